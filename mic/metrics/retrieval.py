"""Score retrieval at every width from embeddings encoded once."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from mic.nested import check_dims, cosines

DEPTH = 100  # ranks looked at
BLOCK = 256  # queries scored at a time,
CHUNK = 8192  # against so many documents
NONE = -1  # no document
NOWHERE = torch.iinfo(torch.long).max  # the number of none, after all others
NAMES = ("recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100")


class NestedRetrieval(Metric):
    """Recall@1, @10 and @100, MRR@10, nDCG@10 and MAP@100, times 100, by cosine at every width.

    The queries are the same on every rank; `update` adds documents, each once and on any rank, with
    their numbers. Of all documents only the best 100 of every query and width are kept, on the
    queries' device, so that memory does not grow with the corpus; ranks merge theirs. Of those,
    equal cosines stand in the order of their numbers; a document with a NaN cosine is never ranked.

    `relevant[i]` maps the numbers of the documents that answer query i to their gain, above 0.
    `excluded[i]` is the number of query i itself where it is a document, too: it is left out of its
    ranking, as BEIR does. nDCG takes gains linearly; recall and MAP divide by all the relevant
    documents, as trec_eval does.

    Without `sync_on_compute` a rank's figures are those of its own documents. Raises InputError for
    widths that do not increase or exceed D.
    """

    full_state_update = False
    best: Tensor
    queries: Tensor
    excluded: Tensor

    def __init__(
        self,
        queries: Float[Tensor, "queries dim"],
        relevant: Sequence[Mapping[int, float]],
        dims: Sequence[int],
        excluded: Sequence[int | None] | None = None,
        *,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute, compute_with_cache=False)
        self.dims = check_dims(dims, queries.shape[1])
        self.relevance = relevance_tensors(relevant)
        numbers = [
            NONE if number is None else number for number in excluded or [None] * len(queries)
        ]
        exact = queries.to(torch.promote_types(queries.dtype, torch.float))
        self.register_buffer("queries", exact, persistent=False)
        self.register_buffer("excluded", torch.tensor(numbers).to(queries.device), persistent=False)
        # scores and numbers in one tensor, so that it is one message; fp64 holds both exactly
        shape = (2, len(self.dims), len(queries), DEPTH)
        empty = torch.full(shape, -torch.inf, dtype=torch.double, device=queries.device)
        self.add_state("best", empty, dist_reduce_fx=merge_best)

    def update(
        self, documents: Float[Tensor, "documents dim"], numbers: Int[Tensor, " documents"]
    ) -> None:
        """Rank some documents, which have the `numbers` by which `relevant` knows them."""
        for first in range(0, len(documents), CHUNK):
            chunk = slice(first, first + CHUNK)
            rows, ids = documents[chunk].to(self.queries), numbers[chunk].to(self.queries.device)
            for start in range(0, len(self.queries), BLOCK):
                self.rank(slice(start, start + BLOCK), rows, ids)

    def rank(self, block: slice, documents: Tensor, numbers: Tensor) -> None:
        """Put a chunk of documents among the best of a block of queries."""
        queries, excluded = self.queries[block], self.excluded[block, None]
        count = min(DEPTH + 1, len(documents))  # one of them may be the query itself
        for k, (_, scores) in enumerate(cosines(queries, documents, self.dims)):
            best = scores.topk(count, dim=1)  # NaN comes first
            values, ids = best.values.double(), numbers[best.indices]
            values = values.masked_fill(values.isnan() | (ids == excluded), -torch.inf)
            new = torch.stack([values, ids.double()])
            self.best[:, k, block] = keep_best(torch.cat([self.best[:, k, block], new], dim=2))

    def compute(self) -> dict[str, dict[int, float]]:
        scores: dict[str, dict[int, float]] = {name: {} for name in NAMES}
        for dim, ranked in self.ranking().items():
            means = ranking_values(ranked, self.relevance).mean(1)
            for name, value in zip(NAMES, (100 * means).tolist(), strict=True):
                scores[name][dim] = value
        return scores

    def ranking(self) -> dict[int, Int[Tensor, "queries depth"]]:
        """Every query's best documents at each width so far, the best first, padded with -1."""
        return {dim: in_order(self.best[:, k].cpu()) for k, dim in enumerate(self.dims)}


def nested_retrieval(
    queries: Float[Tensor, "queries dim"],
    corpus: Float[Tensor, "documents dim"],
    relevant: Sequence[Mapping[int, float]],
    dims: Sequence[int],
    excluded: Sequence[int | None] | None = None,
) -> dict[str, dict[int, float]]:
    """The scores of `NestedRetrieval` for a corpus whose documents are numbered by their rows."""
    dims = check_dims(dims, corpus.shape[1])
    metric = NestedRetrieval(queries, relevant, dims, excluded, sync_on_compute=False)
    metric.update(corpus, torch.arange(len(corpus)))
    return metric.compute()


def keep_best(best: Float[Tensor, "2 *rows found"]) -> Float[Tensor, "2 *rows depth"]:
    """The DEPTH best of each row's scores and numbers."""
    scores, places = best[0].topk(DEPTH, dim=-1)
    return torch.stack([scores, best[1].gather(-1, places)])


def merge_best(parts: Float[Tensor, "ranks 2 widths queries depth"]) -> Tensor:
    """The best of all ranks."""
    return keep_best(torch.cat(list(parts), dim=-1))


class Relevance(NamedTuple):
    """The relevant documents of each query, padded to the most that any query has."""

    ids: Int[Tensor, "queries relevant"]  # rising, padded with NOWHERE
    gains: Float[Tensor, "queries relevant"]
    ideal: Float[Tensor, "queries relevant"]  # the gains, the largest first
    counts: Int[Tensor, " queries"]


def relevance_tensors(relevant: Sequence[Mapping[int, float]]) -> Relevance:
    """The relevant documents of every query as tensors."""
    shape = (len(relevant), max([1, *map(len, relevant)]))
    ids, gains = torch.full(shape, NOWHERE), torch.zeros(shape, dtype=torch.double)
    for i, gain in enumerate(relevant):
        rising = sorted(gain)
        ids[i, : len(gain)] = torch.tensor(rising, dtype=torch.long)
        gains[i, : len(gain)] = torch.tensor([gain[document] for document in rising])
    ideal = gains.sort(dim=1, descending=True).values
    return Relevance(ids, gains, ideal, (ids != NOWHERE).sum(1))


def in_order(best: Float[Tensor, "2 queries depth"]) -> Int[Tensor, "queries depth"]:
    """The numbers of the documents, the best first, of equal ones the lowest; NONE: none."""
    numbers, order = best[1].sort(dim=1)
    scores, places = best[0].gather(1, order).sort(dim=1, descending=True, stable=True)
    return numbers.gather(1, places).masked_fill(scores == -torch.inf, NONE).long()


def ranking_values(
    ranked: Int[Tensor, "queries ranks"], relevance: Relevance
) -> Float[Tensor, "metrics queries"]:
    """Every query's value of each of NAMES, from 0 to 1."""
    ids, gains, ideal, counts = relevance
    places = torch.searchsorted(ids, ranked).clamp_max(ids.shape[1] - 1)
    relevant = ids.gather(1, places) == ranked
    hits, gained = relevant.double(), gains.gather(1, places) * relevant
    ranks = torch.arange(1, ranked.shape[1] + 1, dtype=torch.double)
    discounts = 1 / torch.log2(1 + ranks[:10])
    best = (ideal[:, :10] * discounts[: ideal.shape[1]]).sum(1)
    precision = hits * hits.cumsum(1) / ranks
    columns = [
        *(hits[:, :k].sum(1) / counts for k in (1, 10, 100)),
        (hits / ranks)[:, :10].max(1).values,
        (gained[:, :10] * discounts).sum(1) / best,
        precision.sum(1) / counts,
    ]
    return torch.stack(columns)
