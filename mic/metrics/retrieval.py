"""Retrieval at every width from embeddings encoded once."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mic.nested import check_dims, cosines

DEPTH = 100  # ranks looked at
BLOCK = 256  # queries scored at a time: BLOCK x corpus scores are alive


def nested_retrieval(
    queries: Float[Tensor, "queries dim"],
    corpus: Float[Tensor, "documents dim"],
    relevant: Sequence[Mapping[int, float]],
    dims: Sequence[int],
    own: Sequence[int | None] | None = None,
) -> dict[str, dict[int, float]]:
    """Recall@1, @10 and @100, MRR@10 and nDCG@10, times 100, by cosine at every width.

    `relevant[i]` maps the documents (rows of `corpus`) that answer query i to their gain, above 0.
    `own[i]` is query i itself where it stands in the corpus: it is passed over, as BEIR does.
    nDCG takes gains linearly and recall divides by all the relevant documents, as trec_eval does.

    Raises InputError for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, corpus.shape[1])
    ids, gains = pad(relevant)
    sums = {dim: torch.zeros(5, dtype=torch.double) for dim in dims}
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        skip = [(i, at) for i, at in enumerate((own or [])[block]) if at is not None]
        for dim, scores in cosines(queries[block], corpus, dims):
            for i, at in skip:
                scores[i, at] = -torch.inf
            best = scores.topk(min(DEPTH, len(corpus)), dim=1)
            # in a small corpus even a document passed over is among the best: it has no row
            ranked = best.indices.masked_fill(best.values == -torch.inf, len(corpus))
            sums[dim] += ranking_sums(ranked, ids[block], gains[block])
    names = ("recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10")
    return {
        name: {dim: 100 * float(sums[dim][k]) / len(queries) for dim in dims}
        for k, name in enumerate(names)
    }


def pad(relevant: Sequence[Mapping[int, float]]) -> tuple[Tensor, Tensor]:
    """Relevant documents [queries, most] (-1: none) and gains, the largest first."""
    most = max(len(one) for one in relevant)
    ids = torch.full((len(relevant), most), -1)
    gains = torch.zeros(len(relevant), most, dtype=torch.double)
    for i, one in enumerate(relevant):
        ordered = sorted(one.items(), key=lambda item: -item[1])
        ids[i, : len(one)] = torch.tensor([document for document, _ in ordered])
        gains[i, : len(one)] = torch.tensor([gain for _, gain in ordered])
    return ids, gains


def ranking_sums(
    ranked: Int[Tensor, "queries ranks"],
    ids: Int[Tensor, "queries relevant"],
    gains: Float[Tensor, "queries relevant"],
) -> Float[Tensor, "5"]:
    """Summed over queries: recall@1, recall@10, recall@100, MRR@10 and nDCG@10."""
    found = (ranked[:, :, None] == ids[:, None, :]).double()  # [queries, ranks, relevant]
    hits = found.sum(2)
    total = (ids >= 0).sum(1)
    first = hits[:, :10].cumsum(1).clamp_max(1).sum(1)  # ranks from the first hit to the tenth
    depth = min(10, ranked.shape[1])
    reciprocal = torch.where(first > 0, 1 / (depth + 1 - first), 0)
    discounts = 1 / torch.log2(torch.arange(2, 12, dtype=torch.double))
    gained = ((found * gains[:, None, :]).sum(2)[:, :10] * discounts[:depth]).sum(1)
    ideal = (gains[:, :10] * discounts[: gains[:, :10].shape[1]]).sum(1)
    recalls = [(hits[:, :k].sum(1) / total).sum() for k in (1, 10, 100)]
    return torch.stack([*recalls, reciprocal.sum(), (gained / ideal).sum()])
