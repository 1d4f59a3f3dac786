"""`mic sweep`: work on the trials of a sweep file, list them, or show how far they are."""

import argparse
import os
from pathlib import Path
from typing import Any

from mic.cli.arguments import count
from mic.errors import InputError


def add_sweep(actions: Any) -> None:
    sweep = actions.add_parser(
        "sweep",
        help="many runs of one config, chosen by a sweep file",
        description="Work on the trials of FILE, a sweep in W&B's format; on as many machines as "
        "see the same runs folder and storage. The same command continues after any interruption. "
        "`mic sweep status FILE` shows how far it is.",
    )
    sweep.add_argument("words", metavar="[status] FILE", nargs="+", help="a sweep file")
    sweep.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="trials at a time on this machine (default: 1)",
    )
    sweep.add_argument(
        "--storage",
        metavar="URL",
        help="any Optuna storage, as postgresql://USER@HOST/NAME (default: $MIC_STORAGE, else a "
        "journal file in the sweep's folder)",
    )
    sweep.add_argument(
        "--retries", type=int, metavar="N", help="tries of a failing trial beyond the first (2)"
    )
    sweep.add_argument(
        "--retry-failed", action="store_true", help="first try again what has failed for good"
    )
    sweep.add_argument(
        "--engine",
        choices=("optuna", "wandb"),
        default="optuna",
        help="wandb: register the sweep there and print the agents' command",
    )
    sweep.add_argument(
        "--slurm", action="store_true", help="write an array job with a task a worker, and stop"
    )
    sweep.add_argument("--dry-run", action="store_true", help="list the trials, and stop")
    sweep.set_defaults(run=run_sweep)


def run_sweep(options: argparse.Namespace) -> None:
    from mic.sweep import run
    from mic.sweep.sweep_file import read_sweep

    status, file = parse_words(options.words)
    sweep = read_sweep(file)
    storage = options.storage or os.environ.get("MIC_STORAGE") or None
    if status:
        run.show_status(sweep, storage)
    elif options.dry_run:
        run.dry_run(sweep)
    elif options.engine == "wandb":
        from mic.sweep.engines.wandb import register_sweep

        print(register_sweep(sweep))
    elif options.slurm:
        from mic.sweep.engines.slurm import write_array_job

        given = {"--storage": options.storage, "--retries": options.retries}
        worker_options = [f"{name}={value}" for name, value in given.items() if value is not None]
        print(write_array_job(sweep, options.workers, worker_options))
    else:
        run.work_on_sweep(sweep, storage, options.retries, options.retry_failed, options.workers)


def parse_words(words: list[str]) -> tuple[bool, Path]:
    """Whether the status is wanted, and the sweep file: of FILE, or of `status FILE`."""
    if len(words) == 2 and words[0] == "status":
        return True, Path(words[1])
    if len(words) == 1:
        return False, Path(words[0])
    raise InputError(
        f"mic sweep {' '.join(words)}: write `mic sweep FILE` or `mic sweep status FILE`"
    )
