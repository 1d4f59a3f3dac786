"""Measure the speed of exact search at each width and precision, relative to the full vectors.

One query after the other, on one CPU thread, over vectors in memory, the 10 best of each. fp32 is a
product with the matrix; int8 the same, its codes decoded a few thousand rows at a time; binary
counts bits that differ. The kernels of a search library may be faster at each of them.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mic.console import bar
from mic.encoder.embedding_file import Embeddings
from mic.evaluation.advise.quality import FULL, OperatingPoint, int8_ranges_of
from mic.metrics.quantization import from_int8, scale, to_binary, to_int8
from mic.nested import prefix, unit

BEST = 10
ROUNDS = 5
SECONDS = 0.05  # of a round, for each of the two searches
BYTES = 2**28  # of the full vectors that are searched: a larger corpus takes longer in proportion
BLOCK = 4096  # rows of codes decoded at a time
WORD = 8  # bytes of a machine word
PreparedQueries = Sequence[Any]  # of a query each


class Search(NamedTuple):
    """Exact search: `prepare` encodes truncated queries of length 1, `best` ranks one of them.

    `best` returns the row numbers of the 10 best documents of a prepared query.
    """

    prepare: Callable[[Float[Tensor, "queries dim"]], PreparedQueries]
    best: Callable[[Any], Int64[Tensor, " best"]]


class Speed(NamedTuple):
    """Queries per second over the whole corpus, and their ratio to the full vectors' (`times`).

    `times` is measured for each point; `per_second` is that of the full vectors multiplied by it.
    """

    per_second: float
    times: float


class Speeds(NamedTuple):
    """`rows` documents were searched; figures for a larger corpus are in proportion."""

    rows: int
    by_point: dict[OperatingPoint, Speed]


def measure_speed(
    documents: Embeddings,
    queries: Embeddings,
    points: Sequence[OperatingPoint],
    full: OperatingPoint,
) -> Speeds:
    """The speed of every point, which is timed in turns with the full vectors."""
    rows = min(len(documents), max(1, BYTES // (4 * documents.width)))
    matrix, sample = documents[:rows], queries[: min(len(queries), 64)]
    ranges = int8_ranges_of(documents, [point.dim for point in points])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times: dict[OperatingPoint, float] = {}
        taken: list[float] = []
        with bar("timing the search", len(points)) as advance:
            whole = searcher(matrix, full, ranges[full.dim])
            for point in points:
                search = whole if point == full else searcher(matrix, point, ranges[point.dim])
                rounds = timed(search, whole, sample, point.dim)
                times[point] = 1.0 if point == full else median(b / a for a, b in rounds)
                taken += [full for _, full in rounds]
                advance(1)
    finally:
        torch.set_num_threads(threads)
    rate = rows / len(documents) / median(taken)
    return Speeds(rows, {point: Speed(rate * ratio, ratio) for point, ratio in times.items()})


def timed(
    search: Search, whole: Search, queries: Float[Tensor, "queries dim"], dim: int
) -> list[tuple[float, float]]:
    """Seconds of both searches, in turns, in every round."""
    prepared, full = search.prepare(unit(prefix(queries, dim))), whole.prepare(unit(queries))
    counts = [how_many(search, prepared), how_many(whole, full)]
    return [
        (
            seconds_per_search(search, prepared, counts[0]),
            seconds_per_search(whole, full, counts[1]),
        )
        for _ in range(ROUNDS)
    ]


def how_many(search: Search, queries: PreparedQueries) -> int:
    """How many searches fill a round; the first ones are a warm-up."""
    once = min(seconds_per_search(search, queries, 1) for _ in range(3))
    return max(2, min(500, int(SECONDS / max(once, 1e-6))))


def seconds_per_search(search: Search, queries: PreparedQueries, count: int) -> float:
    """Seconds of this thread that a search takes, over `count` of them."""
    start = time.thread_time()  # which other programs do not lengthen
    for number in range(count):
        search.best(queries[number % len(queries)])
    return (time.thread_time() - start) / count


def searcher(
    matrix: Float[Tensor, "rows full"], point: OperatingPoint, ranges: Float[Tensor, "two dim"]
) -> Search:
    """Search in documents' full vectors at a point; `ranges` are int8's at its width."""
    vectors = unit(prefix(matrix, point.dim))
    if point.precision == FULL:
        return Search(list, lambda query: (vectors @ query).topk(BEST).indices)
    if point.precision == "int8":
        return int8_searcher(vectors, ranges)
    return binary_searcher(vectors)


def int8_searcher(vectors: Float[Tensor, "rows dim"], ranges: Float[Tensor, "two dim"]) -> Search:
    """Cosines of decoded codes: decoding is linear, so that it is applied to the query instead."""
    codes = to_int8(vectors, ranges)
    parts = torch.split(codes, BLOCK)
    lengths = torch.cat([from_int8(some, ranges).norm(dim=1) for some in parts])
    low, step = scale(ranges)

    def prepare(queries: Tensor) -> PreparedQueries:
        seen = unit(from_int8(to_int8(queries, ranges), ranges))
        return list(zip(seen * step, seen @ (low + 128.5 * step), strict=True))

    def best(query: tuple[Tensor, Tensor]) -> Tensor:
        weights, constant = query
        products = torch.cat([some.float() @ weights for some in parts])
        return ((products + constant) / lengths).topk(BEST).indices

    return Search(prepare, best)


def binary_searcher(vectors: Float[Tensor, "rows dim"]) -> Search:
    """The fewest bits that differ, compared one machine word of all documents at a time."""

    def machine_words(x: Tensor) -> np.ndarray:
        codes = to_binary(x).numpy()
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % WORD)))
        return np.ascontiguousarray(padded.view(np.uint64).T)

    columns = machine_words(vectors)

    def best(query: np.ndarray) -> Tensor:
        differing = np.zeros(columns.shape[1], np.int16)
        for column, word in zip(columns, query, strict=True):
            differing += np.bitwise_count(column ^ word)
        return torch.from_numpy(differing).topk(BEST, largest=False).indices

    return Search(lambda queries: list(machine_words(queries).T), best)
