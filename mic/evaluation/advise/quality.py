"""Measure the search quality of every width and precision in one pass over the corpus."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mic.console import bar
from mic.distributed.environment import accelerator
from mic.encoder.embedding_file import Embeddings
from mic.evaluation.advise.collection import Collection
from mic.metrics import NestedRetrieval, exact_device
from mic.metrics.quantization import PRECISIONS, as_compared, int8_ranges
from mic.metrics.retrieval import CHUNK, NAMES, ranking_values, relevance_tensors
from mic.nested import prefix, unit

FULL = PRECISIONS[0]
CALIBRATION = 10_000  # documents that int8's ranges are taken from
BEST = 10
NDCG, AGREEMENT = "nDCG@10", "agreement"


class OperatingPoint(NamedTuple):
    """A width and a precision."""

    dim: int
    precision: str


class QueryScores(NamedTuple):
    """Every query's quality at every point, from 0 to 1; `full` is the full width in fp32."""

    metric: str
    values: dict[OperatingPoint, Float[Tensor, " queries"]]
    full: OperatingPoint


def measure_quality(
    collection: Collection, documents: Embeddings, queries: Embeddings, dims: Sequence[int]
) -> QueryScores:
    """nDCG@10 by the relevance judgements; without them the share of the full vectors' 10 best.

    The documents are read in chunks and never all in memory; both sides are truncated, scaled to
    length 1 and quantized. Computed on the accelerator if there is one.
    """
    device = exact_device(accelerator())
    query_rows = queries[:].to(device)
    ranges = {
        dim: value_range.to(device) for dim, value_range in int8_ranges_of(documents, dims).items()
    }
    rankers = {
        OperatingPoint(dim, precision): NestedRetrieval(
            seen, [{}] * len(query_rows), [dim], collection.identical, sync_on_compute=False
        )
        for dim in dims
        for precision, seen in as_compared(unit(prefix(query_rows, dim)), ranges[dim]).items()
    }
    with bar("searching", len(documents)) as advance:
        for first in range(0, len(documents), CHUNK):
            some = documents[first : first + CHUNK].to(device)
            numbers = torch.arange(first, first + len(some))
            for dim in dims:
                coded = as_compared(unit(prefix(some, dim)), ranges[dim])
                for precision, seen in coded.items():
                    rankers[OperatingPoint(dim, precision)].update(seen, numbers)
            advance(len(some))
    ranked = {point: ranker.ranking()[point.dim] for point, ranker in rankers.items()}
    full = OperatingPoint(dims[-1], FULL)
    relevant = collection.relevant
    if relevant is not None:
        metric, row = NDCG, NAMES.index("ndcg@10")
    else:
        metric, row = AGREEMENT, NAMES.index("recall@10")
        best = ranked[full][:, :BEST].tolist()
        relevant = [dict.fromkeys(ranking, 1.0) for ranking in best]
    judgements = relevance_tensors(relevant)
    values = {point: ranking_values(ranking, judgements)[row] for point, ranking in ranked.items()}
    return QueryScores(metric, values, full)


def int8_ranges_of(documents: Embeddings, dims: Sequence[int]) -> dict[int, Tensor]:
    """The ranges of each width, from a seeded sample of the corpus alone, without the queries."""
    count = len(documents)
    chosen = sorted(random.Random(0).sample(range(count), min(CALIBRATION, count)))
    sample = documents[chosen]
    return {dim: int8_ranges(unit(prefix(sample, dim))) for dim in dims}
