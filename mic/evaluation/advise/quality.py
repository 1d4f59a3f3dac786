"""What every width and precision finds, query by query, in one pass over the corpus."""

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
JUDGED, AGREED = "nDCG@10", "agreement"


class Point(NamedTuple):
    """A width and a precision."""

    dim: int
    precision: str


class Found(NamedTuple):
    """Every query's quality at every point, from 0 to 1; the full point is the last one in fp32."""

    metric: str
    values: dict[Point, Float[Tensor, " queries"]]
    full: Point


def measure(
    collection: Collection, documents: Embeddings, asked: Embeddings, dims: Sequence[int]
) -> Found:
    """nDCG@10 where somebody judged; else the share of the full vectors' 10 best found again.

    The documents are read in chunks and never all in memory; both sides are cut, scaled to length
    1 and coded. Computed on the accelerator if there is one.
    """
    device = exact_device(accelerator())
    queries = asked[:].to(device)
    ranges = {dim: one.to(device) for dim, one in int8_ranges_of(documents, dims).items()}
    rankers = {
        Point(dim, precision): NestedRetrieval(
            seen, [{}] * len(queries), [dim], collection.own, sync_on_compute=False
        )
        for dim in dims
        for precision, seen in as_compared(unit(prefix(queries, dim)), ranges[dim]).items()
    }
    with bar("searching", len(documents)) as advance:
        for first in range(0, len(documents), CHUNK):
            some = documents[first : first + CHUNK].to(device)
            numbers = torch.arange(first, first + len(some))
            for dim in dims:
                coded = as_compared(unit(prefix(some, dim)), ranges[dim])
                for precision, seen in coded.items():
                    rankers[Point(dim, precision)].update(seen, numbers)
            advance(len(some))
    ranked = {point: one.ranking()[point.dim] for point, one in rankers.items()}
    full = Point(dims[-1], FULL)
    relevant = collection.relevant
    if relevant is not None:
        metric, row = JUDGED, NAMES.index("ndcg@10")
    else:
        metric, row = AGREED, NAMES.index("recall@10")
        best = ranked[full][:, :BEST].tolist()
        relevant = [dict.fromkeys(one, 1.0) for one in best]
    judgements = relevance_tensors(relevant)
    values = {point: ranking_values(found, judgements)[row] for point, found in ranked.items()}
    return Found(metric, values, full)


def int8_ranges_of(documents: Embeddings, dims: Sequence[int]) -> dict[int, Tensor]:
    """The ranges of each width, of a seeded sample of the corpus: queries are not known yet."""
    count = len(documents)
    chosen = sorted(random.Random(0).sample(range(count), min(CALIBRATION, count)))
    sample = documents[chosen]
    return {dim: int8_ranges(unit(prefix(sample, dim))) for dim in dims}
