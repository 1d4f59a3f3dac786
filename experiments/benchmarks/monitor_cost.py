"""What watching a run costs: the quickstart's training with its callbacks on and off, in turn."""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch import seed_everything
from timing import publish, ratio, table

from mic.config import load
from mic.fit import fit
from mic.loggers import build_logger
from mic.module import MICModule
from mic.nested import with_full
from mic.train import read_data, read_tasks

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
BLIND = ("monitor.geometry=false", "monitor.balance_every=0")
WAYS = {"on, as by default": (), "off": BLIND}


def training(overrides: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of the whole loop, validations included, and of the steps alone."""
    config = load("configs/quickstart.yaml", *overrides)
    seed_everything(config.seed, verbose=False)
    module = MICModule(config)
    data = read_data(config, module.encoder.tokenize)
    tasks, _ = read_tasks(config, data)
    dims = with_full(config.evaluation.dims, module.encoder.width)
    with tempfile.TemporaryDirectory() as folder:
        logger = build_logger(config, Path(folder))
        start = time.perf_counter()
        speed = fit(module, data, tasks, dims, logger, Path(folder))
        return time.perf_counter() - start, speed.seconds


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            found[way].append(training(WAYS[way]))
    off = found["off"]
    rows = [
        [
            way,
            *(f"{median(one[part] for one in seconds):.1f}" for part in (0, 1)),
            *(ratio([one[part] for one in seconds], [one[part] for one in off]) for part in (0, 1)),
        ]
        for way, seconds in found.items()
    ]
    publish(
        "monitor_cost",
        "What watching costs",
        [
            "The training loop of configs/quickstart.yaml: 90 steps of 64 pairs, all-MiniLM-L6-v2 "
            "with the lower half frozen, validations after 45 and 90. On: geometry of every "
            "prefix, correlation, retrieval among the validation rows and the alarm at both "
            "validations and once before training, term balance at the first step. The loop holds "
            "all of that; the steps alone only what a step pays for being watched.",
            table(["watching", "loop, s", "steps, s", "loop / off", "steps / off"], rows),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
