"""One rank of two or three with its own, unequal part of the rows.

Run by tests/test_metric_ranks.py as `python metric_ranks.py RANK WORLD FOLDER`; writes every figure
that it computes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from references import gaussian
from torch import distributed

from mic.metrics import Moments, NestedRetrieval, NestedSpearman, Spread

FULL, DIMS = 12, (2, 5, 12)
PAIRS, QUERIES, DOCUMENTS = 45, 9, 150
SHARES = {1: [45], 2: [31, 14], 3: [20, 0, 25]}  # a rank may have nothing


def own(rank: int, world: int, rows: torch.Tensor) -> torch.Tensor:
    sizes = [share * len(rows) // PAIRS for share in SHARES[world]]
    sizes[-1] += len(rows) - sum(sizes)
    return torch.split(rows, sizes)[rank]


def figures(rank: int, world: int) -> dict[str, Any]:
    """Every metric fed with a rank's own rows in two batches."""
    queries, keys, taught = (own(rank, world, gaussian(PAIRS, FULL, seed=s)) for s in range(3))
    moments, spread, spearman = Moments(FULL, FULL), Spread(DIMS), NestedSpearman(DIMS)
    scores = own(rank, world, gaussian(PAIRS, 1, seed=7))[:, 0].round(decimals=1)
    for part in (slice(0, 5), slice(5, None)):
        moments.update(queries[part], taught[part])
        spread.update(queries[part], keys[part])
        spearman.update(queries[part], keys[part], scores[part])
    relevant = [{(17 * i) % DOCUMENTS: 1.0, (29 * i + 3) % DOCUMENTS: 2.0} for i in range(QUERIES)]
    retrieval = NestedRetrieval(gaussian(QUERIES, FULL, seed=5), relevant, DIMS, range(QUERIES))
    documents = own(rank, world, gaussian(DOCUMENTS, FULL, seed=6))
    retrieval.update(documents, own(rank, world, torch.arange(DOCUMENTS)[:, None])[:, 0])
    return {
        **moments.compute().measures(DIMS),
        **spread.compute(),
        **{f"spearman/d{dim}": value for dim, value in spearman.compute().items()},
        **{
            f"{name}/d{dim}": value
            for name, values in retrieval.compute().items()
            for dim, value in values.items()
        },
    }


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world
    )
    found = figures(rank, world)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()
