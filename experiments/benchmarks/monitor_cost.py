"""What watching a run costs: the quickstart's training with its callbacks on and off, in turn."""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import timing
import torch
from lightning.pytorch import seed_everything

from mic.config.loading import load
from mic.evaluation.scoring import embed_tasks
from mic.nested import with_full
from mic.tracking.loggers import build_logger
from mic.train import callbacks
from mic.train.module import MICModule
from mic.train.run import read_data, read_tasks
from mic.train.trainer import fit
from mic.train.untrained_baselines import known_embeddings

timing.THREADS = 2  # as the quickstart on two cores
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
WAYS = {
    "on, as by default": (),
    "off": ("monitor.geometry=false", "monitor.balance_every=0"),
}
WATCHERS = (
    callbacks.SpectralIsotropy,
    callbacks.CrossCorrelationMap,
    callbacks.NestedRetrievalEval,
    callbacks.CollapseAlarm,
    callbacks.TermBalance,
    callbacks.Throughput,
)
spent = {watcher.__name__: 0.0 for watcher in WATCHERS}


class Seconds(NamedTuple):
    loop: float
    steps: float


def timed(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = hook(*args, **kwargs)
        spent[name] += time.perf_counter() - start
        return found

    return call


def training(overrides: tuple[str, ...]) -> Seconds:
    """The whole loop, validations included, and the steps alone."""
    config = load("configs/quickstart.yaml", *overrides)
    seed_everything(config.seed, verbose=False)
    module = MICModule(config)
    data = read_data(config, module.encoder.tokenize)
    tasks, _ = read_tasks(config, data)
    known = known_embeddings(data, tasks, embed_tasks(module.encoder, tasks, 64, "before"))
    dims = with_full(config.evaluation.dims, module.encoder.width)
    with tempfile.TemporaryDirectory() as folder:
        logger = build_logger(config, Path(folder))
        start = time.perf_counter()
        speed, _ = fit(module, data, tasks, dims, logger, Path(folder), known=known)
        return Seconds(time.perf_counter() - start, speed.seconds)


def main() -> None:
    torch.set_num_threads(timing.THREADS)
    for watcher in WATCHERS:
        for name, hook in vars(watcher).items():
            if name.startswith("on_"):
                setattr(watcher, name, timed(watcher.__name__, hook))
    found: dict[str, list[Seconds]] = {way: [] for way in WAYS}
    watching = []
    for number in range(ROUNDS):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            before = dict(spent)
            found[way].append(training(WAYS[way]))
            if way != "off":
                watching.append({name: spent[name] - before[name] for name in spent})
    rows = [
        [
            way,
            f"{median(one.loop for one in seconds):.1f}",
            f"{median(one.steps for one in seconds):.1f}",
            timing.ratio([one.loop for one in seconds], [one.loop for one in found["off"]]),
        ]
        for way, seconds in found.items()
    ]
    loop = median(one.loop for one in found["on, as by default"])
    shares = {name: median(one[name] for one in watching) for name in spent}
    shares["all"] = sum(shares.values())
    timing.publish(
        "monitor_cost",
        "What watching costs",
        [
            "The training loop of configs/quickstart.yaml: 90 steps of 64 pairs, all-MiniLM-L6-v2 "
            "with the lower half frozen, validations after 45 and 90. On: geometry of every "
            "prefix, correlation, retrieval among the validation rows and the alarm at both "
            "validations and once before training, term balance at the first step.",
            timing.table(["watching", "loop, s", "steps alone, s", "loop / off"], rows),
            "Of the watched loop, the time inside the callbacks, by their own clocks: what the "
            "comparison above sees through the noise of the machine.",
            timing.table(
                ["callback", "s", "share of the loop"],
                [
                    [name, f"{value:.2f}", f"{100 * value / loop:.2f} %"]
                    for name, value in shares.items()
                ],
            ),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
