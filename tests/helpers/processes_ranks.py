"""A rank of two, with PyTorch: `processes_ranks.py FOLDER [dies]` writes FOLDER/RANK.json."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed import Store

from mic.distributed import process_group
from mic.distributed.failures import lost_rank, report_failure
from mic.distributed.launcher import watch_parent
from mic.distributed.process_group import (
    cluster_environment,
    first_on_node,
    from_rank_zero,
    group,
    wait_for,
)
from mic.errors import InputError, RunError


def main(folder: str, then: str = "") -> None:
    into = Path(folder)
    with group(cuda=False) as info:
        seen: dict[str, Any] = {
            "info": info,
            "environment": type(cluster_environment()).__name__,
            "backend": distributed.get_backend(),
            "received": from_rank_zero(lambda: [info.rank, info.ranks]),
            "bad input": raised(lambda: from_rank_zero(lambda: fail(InputError("dims: none")))),
            "boom": raised(lambda: from_rank_zero(lambda: fail(ValueError("boom")))),
            "again": from_rank_zero(lambda: info.rank),
        }
        with group() as within:  # a group in a group is the same
            assert within == info
        for name in ("one", "two"):
            file = into / f"{name}.cache"
            with note_waiting(waits := into / f"{name}.waits"):
                fill = partial(fill_once, file, info.rank, waits)
                seen[f"first {name}"] = first_on_node(fill)
        seen["first failed"] = raised(lambda: first_on_node(lambda: fail(RunError("disk full"))))
        seen["first boom"] = raised(lambda: first_on_node(lambda: fail(KeyError("boom"))))
        if then == "dies":
            distributed.barrier()
            save(into, info.rank, seen)
            if info.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                distributed.all_reduce(torch.ones(1))
            except RuntimeError as error:
                save(into, info.rank, seen | {"lost": lost_rank(error)})
                report_failure(error, 1)
                os._exit(1)
    save(into, info.rank, seen | {"left": not distributed.is_initialized()})


def fill_once(file: Path, rank: int, waits: Path) -> str:
    """What was there, as a cache is filled; rank 0 fills it when rank 1 has begun to wait."""
    if not file.exists():
        while rank == 0 and not waits.exists():
            time.sleep(0.01)
        file.write_text(f"by rank {rank}")
    return file.read_text()


@contextmanager
def note_waiting(file: Path) -> Iterator[None]:
    """Have a file tell that this rank has begun to wait for another that was not done."""

    def wait(store: Store, done: str, process: str) -> None:
        assert not store.check([done])
        file.touch()
        wait_for(store, done, process)

    with patch.object(process_group, "wait_for", wait):
        yield


def fail(error: Exception) -> None:
    raise error


def raised(call: Callable[[], Any]) -> list[Any]:
    """The error of a call: its kind, its text, and whether another rank has reported it."""
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "reported", False)]
    return []


def save(into: Path, rank: int, seen: dict[str, Any]) -> None:
    (into / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    watch_parent()
    main(*sys.argv[1:])
