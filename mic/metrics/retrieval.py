"""Retrieval at every width from embeddings encoded once."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from mic.nested import check_dims, cosines

DEPTH = 100  # ranks looked at
BLOCK = 256  # queries scored at a time,
CHUNK = 8192  # against so many documents
NAMES = ("recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100")


class NestedRetrieval(Metric):
    """Recall@1, @10 and @100, MRR@10, nDCG@10 and MAP@100, times 100, by cosine at every width.

    The queries are the same on every rank; `update` adds documents, each once and on any rank, with
    their numbers. Of all documents only the best 100 of every query and width are kept, so that
    memory does not grow with the corpus; ranks merge theirs.

    `relevant[i]` maps the numbers of the documents that answer query i to their gain, above 0.
    `own[i]` is the number of query i itself where it is a document, too: it is passed over, as BEIR
    does. nDCG takes gains linearly; recall and MAP divide by all the relevant documents, as
    trec_eval does.

    Raises InputError for widths that do not increase or exceed D.
    """

    full_state_update = False
    best: Tensor

    def __init__(
        self,
        queries: Float[Tensor, "queries dim"],
        relevant: Sequence[Mapping[int, float]],
        dims: Sequence[int],
        own: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims, queries.shape[1])
        self.queries = queries
        self.ids, self.gains = pad(relevant)
        passed = [-1 if at is None else at for at in own or [None] * len(queries)]
        self.passed = torch.tensor(passed, dtype=torch.long)
        # scores and numbers in one tensor, so that it is one message; fp64 holds both exactly
        empty = torch.full((2, len(self.dims), len(queries), DEPTH), -1.0, dtype=torch.double)
        empty[0] = -torch.inf
        self.add_state("best", empty, dist_reduce_fx=merge)

    def update(
        self, documents: Float[Tensor, "documents dim"], numbers: Int[Tensor, " documents"]
    ) -> None:
        """Rank some documents, which have the `numbers` by which `relevant` knows them."""
        for first in range(0, len(documents), CHUNK):
            chunk = slice(first, first + CHUNK)
            for start in range(0, len(self.queries), BLOCK):
                self.rank(slice(start, start + BLOCK), documents[chunk], numbers[chunk])

    def rank(self, block: slice, documents: Tensor, numbers: Tensor) -> None:
        """Put a chunk of documents among the best of a block of queries."""
        numbers = numbers.to(self.best.device)
        at_itself = self.passed[block].to(numbers.device)[:, None] == numbers
        skip = at_itself.nonzero(as_tuple=True) if at_itself.any() else None
        queries, count = self.queries[block], min(DEPTH, len(documents))
        for k, (_, scores) in enumerate(cosines(queries, documents, self.dims)):
            if skip is not None:
                scores[skip] = -torch.inf
            found = scores.topk(count, dim=1)
            new = torch.stack([found.values.double(), numbers[found.indices].double()])
            self.best[:, k, block] = top(torch.cat([self.best[:, k, block], new], dim=2))

    def compute(self) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {name: {} for name in NAMES}
        for k, dim in enumerate(self.dims):
            scores, numbers = self.best[:, k].cpu()
            ranked = torch.where(scores == -torch.inf, -2, numbers).long()  # -1 pads the relevant
            means = ranking_sums(ranked, self.ids, self.gains) / len(ranked)
            for name, value in zip(NAMES, (100 * means).tolist(), strict=True):
                found[name][dim] = value
        return found


def nested_retrieval(
    queries: Float[Tensor, "queries dim"],
    corpus: Float[Tensor, "documents dim"],
    relevant: Sequence[Mapping[int, float]],
    dims: Sequence[int],
    own: Sequence[int | None] | None = None,
) -> dict[str, dict[int, float]]:
    """What `NestedRetrieval` says of a corpus whose documents are numbered by their rows."""
    metric = NestedRetrieval(queries, relevant, check_dims(dims, corpus.shape[1]), own)
    metric.update(corpus, torch.arange(len(corpus)))
    return metric.compute()


def top(best: Float[Tensor, "2 *rows found"]) -> Float[Tensor, "2 *rows depth"]:
    """The DEPTH best of each row's scores and numbers."""
    scores, places = best[0].topk(DEPTH, dim=-1)
    return torch.stack([scores, best[1].gather(-1, places)])


def merge(parts: Float[Tensor, "ranks 2 widths queries depth"]) -> Tensor:
    """The best of all ranks."""
    return top(torch.cat(list(parts), dim=-1))


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
) -> Float[Tensor, "6"]:
    """Summed over queries: recall@1, @10 and @100, MRR@10, nDCG@10 and MAP@100."""
    sums = [
        block_sums(*block)
        for block in zip(*(torch.split(x, BLOCK) for x in (ranked, ids, gains)), strict=True)
    ]
    return torch.stack(sums).sum(0)


def block_sums(ranked: Tensor, ids: Tensor, gains: Tensor) -> Tensor:
    found = (ranked[:, :, None] == ids[:, None, :]).double()  # [queries, ranks, relevant]
    hits = found.sum(2)
    total = (ids >= 0).sum(1)
    ranks = torch.arange(1, ranked.shape[1] + 1, dtype=torch.double)
    reciprocal = (hits / ranks)[:, :10].max(1).values
    discounts = 1 / torch.log2(1 + ranks[:10])
    gained = ((found * gains[:, None, :]).sum(2)[:, :10] * discounts).sum(1)
    ideal = (gains[:, :10] * discounts[: gains[:, :10].shape[1]]).sum(1)
    precision = (hits * hits.cumsum(1) / ranks).sum(1) / total
    recalls = [(hits[:, :k].sum(1) / total).sum() for k in (1, 10, 100)]
    sums = [*recalls, reciprocal.sum(), (gained / ideal).sum(), precision.sum()]
    return torch.stack(sums)
