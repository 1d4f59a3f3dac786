"""Two processes on one machine against one: the quickstart's training steps, in turn."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

import timing

timing.THREADS = 2  # cores, shared out among the processes
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
STEPS = 40
OVERRIDES = (
    f"trainer.max_steps={STEPS}",
    "trainer.log_every=5",
    "trainer.save_every=1000",
    "trainer.validate_every=1000",
    "monitor.geometry=false",
    "monitor.balance_every=0",
    "evaluation.pca_texts=100",
    "data.validation.docstrings.limit=64",
    "evaluation.validation.pairs.docstrings_validation.limit=64",
    "evaluation.test.pairs.docstrings_test.limit=64",
)
WAYS = {  # processes, threads of each
    "one process, two threads": (1, 2),
    "two processes, a thread each": (2, 1),
    "one process, one thread": (1, 1),
}
PARTS = ("data", "encoder", "objective", "backward", "optimizer")


class Speed(NamedTuple):
    pairs_per_second: float
    parts: dict[str, float]


def speed(processes: int, threads: int) -> Speed:
    """The median line of a run, the first left out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mic.cli", "train", "configs/quickstart.yaml", *OVERRIDES]
        command += [f"runs={folder}", "name=run", f"trainer.devices={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    told = [line for line in map(json.loads, lines) if "speed/pairs_per_second" in line][1:]
    return Speed(
        median(line["speed/pairs_per_second"] for line in told),
        {part: median(line[f"speed/{part}"] for line in told) for part in PARTS},
    )


def main() -> None:
    found: dict[str, list[Speed]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            found[way].append(speed(*WAYS[way]))
    first = [one.pairs_per_second for one in found["one process, two threads"]]
    rows = [
        [
            way,
            f"{median(one.pairs_per_second for one in speeds):.0f}",
            timing.ratio([one.pairs_per_second for one in speeds], first),
            *(f"{100 * median(one.parts[part] for one in speeds):.0f} %" for part in PARTS),
        ]
        for way, speeds in found.items()
    ]
    timing.publish(
        "rank_speed",
        "Two processes against one",
        [
            f"Training steps of configs/quickstart.yaml, {STEPS} of 64 pairs (those of all "
            "processes together), all-MiniLM-L6-v2 with the lower half frozen, on two cores. The "
            "same batches and, but for rounding, the same gradients in every way.",
            timing.table(["", "pairs/s", "of one process", *PARTS], rows),
            "The shares of a step are rank 0's. `objective` holds the collectives of the loss and "
            "the waiting for the other rank before them, `backward` DDP's sum of the gradients. "
            "What limits it is the machine: both processes share out the two cores that one "
            "process with two threads has already, so the second process gains what a second "
            "thread does, and every process holds the whole model.",
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
