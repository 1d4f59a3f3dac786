"""One rank of two or three with its own, unequal part of the rows.

What each rank of test_metric_ranks.py does: it writes every figure that it computes, and how.
"""

import json
from pathlib import Path
from typing import Any

import torch
from references import gaussian
from torch import Tensor, distributed

from mic.metrics import (
    Moments,
    NestedRetrieval,
    NestedSpearman,
    Spread,
    nested_retrieval,
    nested_spearman,
)

FULL, DIMS = 12, (2, 5, 12)
PAIRS, QUERIES, DOCUMENTS = 45, 9, 150
SHARES = {1: [45], 2: [31, 14], 3: [20, 0, 25]}  # a rank may have nothing
RELEVANT = [{(17 * i) % DOCUMENTS: 1.0, (29 * i + 3) % DOCUMENTS: 2.0} for i in range(QUERIES)]

Figures = dict[str, float]


def rows_of_rank(rank: int, world: int, rows: Tensor) -> Tensor:
    sizes = [share * len(rows) // PAIRS for share in SHARES[world]]
    sizes[-1] += len(rows) - sum(sizes)
    return torch.split(rows, sizes)[rank]


def pairs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, a teacher's queries, and how alike they are, with ties."""
    queries, keys, taught = (gaussian(PAIRS, FULL, seed=seed) for seed in range(3))
    return queries, keys, taught, gaussian(PAIRS, seed=7).round(decimals=1)


def corpus() -> tuple[Tensor, Tensor]:
    """Queries and documents."""
    return gaussian(QUERIES, FULL, seed=5), gaussian(DOCUMENTS, FULL, seed=6)


def flat(scores: dict[str, dict[int, float]]) -> Figures:
    return {
        f"{name}/d{dim}": value for name, values in scores.items() for dim, value in values.items()
    }


def batches(rows: Tensor) -> list[Tensor]:
    """Where the rows of each batch are; the last is empty, and without rows no batch comes."""
    return [*torch.arange(len(rows)).split(6), torch.arange(0)] if len(rows) else []


def figures(rank: int, world: int) -> Figures:
    """Every metric of a rank's own rows."""
    queries, keys, taught, scores = (rows_of_rank(rank, world, rows) for rows in pairs())
    retained = rows_of_rank(rank, world, torch.arange(PAIRS)) % 3 == 0
    asked, documents = corpus()
    documents, numbers = (
        rows_of_rank(rank, world, x) for x in (documents, torch.arange(DOCUMENTS))
    )
    moments, spread, spearman = Moments(FULL, FULL), Spread(DIMS), NestedSpearman(DIMS)
    retrieval = NestedRetrieval(asked, RELEVANT, DIMS, range(QUERIES))

    def feed(part: Tensor) -> None:
        moments.update(queries[part], taught[part])
        for keep in (True, False):
            chosen = part[retained[part] == keep]
            spread.update(queries[chosen], keys[chosen], keep=keep)
        spearman.update(queries[part], keys[part], scores[part])

    def compute() -> Figures:
        return {
            **moments.compute().measures(DIMS),
            **spread.compute(),
            **flat({"spearman": spearman.compute()}),
            **flat(retrieval.compute()),
        }

    first, *others = batches(queries) or [None]
    if first is not None:
        feed(first)
    compute()  # on the way: the rows of other ranks must not stay
    for part in others:
        feed(part)
    for part in batches(documents):
        retrieval.update(documents[part], numbers[part])
    return compute()


def functions() -> Figures:
    """The functions, of all rows."""
    queries, keys, _, scores = pairs()
    asked, documents = corpus()
    return {
        **flat({"spearman": nested_spearman(queries, keys, scores.tolist(), DIMS)}),
        **flat(nested_retrieval(asked, documents, RELEVANT, DIMS, range(QUERIES))),
    }


def collectives_of_moments() -> list[str]:
    """The names of the collectives that it takes to compute moments."""
    calls: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(distributed, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return function(*args, **kwargs)

        return call

    for name in ("all_reduce", "all_gather", "all_gather_into_tensor", "barrier"):
        setattr(distributed, name, counted(name))
    moments = Moments(FULL)
    moments.update(gaussian(3, FULL))
    moments.compute().measures(DIMS)
    return calls


def main(folder: str) -> None:
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    actual = {
        "metrics": figures(rank, world),
        # which the other ranks do not join
        "functions": functions() if rank == world - 1 else {},
        "collectives": collectives_of_moments(),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(actual))
    distributed.destroy_process_group()
