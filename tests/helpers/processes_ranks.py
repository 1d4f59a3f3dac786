"""A rank of two, with PyTorch: `processes_ranks.py FOLDER [dies]` writes FOLDER/RANK.json."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from mic.distributed.failures import lost
from mic.distributed.launcher import report, watch_parent
from mic.distributed.process_group import environment, first_on_node, from_rank_zero, group
from mic.errors import InputError, RunError


def main(folder: str, then: str = "") -> None:
    into = Path(folder)
    with group(cuda=False) as here:
        seen: dict[str, Any] = {
            "place": here,
            "environment": type(environment()).__name__,
            "backend": distributed.get_backend(),
            "told": from_rank_zero(lambda: [here.rank, here.ranks]),
            "bad input": raised(lambda: from_rank_zero(lambda: fail(InputError("dims: none")))),
            "boom": raised(lambda: from_rank_zero(lambda: fail(ValueError("boom")))),
            "again": from_rank_zero(lambda: here.rank),
        }
        with group() as within:  # a group in a group is the same
            assert within == here
        for name in ("one", "two"):
            seen[f"first {name}"] = first_on_node(
                lambda name=name: once(into / f"{name}.cache", here.rank)
            )
        seen["first failed"] = raised(lambda: first_on_node(lambda: fail(RunError("disk full"))))
        seen["first boom"] = raised(lambda: first_on_node(lambda: fail(KeyError("boom"))))
        if then == "dies":
            distributed.barrier()
            save(into, here.rank, seen)
            if here.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                distributed.all_reduce(torch.ones(1))
            except RuntimeError as error:
                save(into, here.rank, seen | {"lost": lost(error)})
                report(error, 1)
                os._exit(1)
    save(into, here.rank, seen | {"left": not distributed.is_initialized()})


def once(file: Path, rank: int) -> str:
    """What was there, as a cache is filled: slowly, by whoever comes first."""
    if not file.exists():
        time.sleep(0.6)
        file.write_text(f"by rank {rank}")
    return file.read_text()


def fail(error: Exception) -> None:
    raise error


def raised(call: Callable[[], Any]) -> list[Any]:
    """The error of a call: its kind, its text, and whether another rank has said it."""
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "said", False)]
    return []


def save(into: Path, rank: int, seen: dict[str, Any]) -> None:
    (into / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    watch_parent()
    main(*sys.argv[1:])
