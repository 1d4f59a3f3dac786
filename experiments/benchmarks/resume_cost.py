"""What exact resume costs: the time of its hooks in the quickstart's training, and of a save."""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import timing
import torch
from lightning.pytorch import seed_everything

from mic.config.loading import load
from mic.nested import with_full
from mic.tracking.loggers import build_logger
from mic.train.callbacks import ExactResume
from mic.train.module import MICModule
from mic.train.run import read_data
from mic.train.trainer import fit

timing.THREADS = 2  # as the quickstart on two cores
STEPS, EVERY = 60, 10
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
spent: dict[str, list[float]] = {"save": [], "hooks": []}


def timed(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = hook(*args, **kwargs)
        spent[name].append(time.perf_counter() - start)
        return found

    return call


def training() -> tuple[float, int]:
    """Seconds of the steps, without the saves, and the bytes of a checkpoint."""
    overrides = (f"trainer.max_steps={STEPS}", f"trainer.save_every={EVERY}")
    config = load("configs/quickstart.yaml", *overrides, "monitor.geometry=false")
    seed_everything(config.seed, verbose=False)
    module = MICModule(config)
    data = read_data(config, module.encoder.tokenize)
    dims = with_full(config.evaluation.dims, module.encoder.width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        fit(module, data, (), dims, build_logger(config, folder), folder)
        seconds = time.perf_counter() - start
        size = max(file.stat().st_size for file in (folder / "checkpoints").glob("*.ckpt"))
        return seconds, size


def main() -> None:
    torch.set_num_threads(timing.THREADS)
    for name in ("on_train_batch_end", "on_train_batch_start", "on_validation_end"):
        setattr(ExactResume, name, timed("hooks", vars(ExactResume)[name]))
    ExactResume.save = timed("save", ExactResume.save)  # type: ignore[method-assign]
    runs = [training() for _ in range(ROUNDS)]
    loop, size = median(seconds for seconds, _ in runs), runs[0][1]
    save, hooks = median(spent["save"]), sum(spent["hooks"]) - sum(spent["save"])
    steps = STEPS * ROUNDS
    rows = [
        ["a checkpoint", f"{size / 1e6:.0f} MB", f"{save:.2f} s", f"{size / 1e6 / save:.0f} MB/s"],
        [
            "a step beside it",
            "",
            f"{1e6 * hooks / steps:.0f} us",
            f"{100 * hooks / loop / ROUNDS:.3f} %",
        ],
    ]
    timing.publish(
        "resume_cost",
        "What exact resume costs",
        [
            f"{STEPS} steps of configs/quickstart.yaml (all-MiniLM-L6-v2, lower half frozen, so "
            f"that half of the weights have an optimiser state), a checkpoint every {EVERY}, by "
            "the callback's own clock. Writing includes the SHA-256 and the flush to the disk.",
            timing.table(["", "size", "time", "speed; share of the loop"], rows),
            f"At the default of 200 steps between checkpoints, and {loop / STEPS:.2f} s a step, "
            f"that is {100 * save / (200 * loop / STEPS):.2f} % of the time.",
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
