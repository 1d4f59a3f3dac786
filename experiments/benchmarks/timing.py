"""Alternatives timed in turn, round by round, so that a busy machine slows all of them alike."""

import gc
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import torch

from mic.files import write_text

HERE = Path(__file__).parent
THREADS = 1


def seconds(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds, wall-clock ones by default, of every call in every round; warmed up if asked."""
    torch.set_num_threads(THREADS)
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(0 if warm else 1, rounds + 1):
        # who comes first changes, so that nobody always finds the same cache
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            start = clock()
            calls[name]()
            if number:
                found[name].append(clock() - start)
    return found


def milliseconds(values: Sequence[float]) -> str:
    """The median."""
    return f"{1000 * median(values):.1f}"


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the rounds' ratios and, in brackets, their quartiles."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(name: str, title: str, body: Sequence[str], rounds: int | None) -> None:
    """Print a report and write it beside this file, whole or not at all."""
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "sentence-transformers"))
    interleaved = (
        f"; medians over {rounds} rounds of interleaved alternatives; ratios are of one round, "
        "median [quartiles]"
    )
    threads = f"{THREADS} CPU thread{'s' * (THREADS > 1)}"
    report = "\n\n".join(
        [
            f"# {title}",
            f"Written by `python experiments/benchmarks/{name}.py`: {versions}, Python "
            f"{platform.python_version()}, {threads}{interleaved if rounds else ''}.",
            *body,
        ]
    )
    print(report)
    write_text(HERE / f"{name}.md", report + "\n")


def agree(ours: float, theirs: float, tolerance: float = 1e-4) -> None:
    """Stop unless two ways of computing a value agree: otherwise their times say nothing."""
    if not abs(ours - theirs) <= tolerance * max(1.0, abs(theirs)):
        sys.exit(f"{ours} and {theirs} should be one value; nothing was timed")
