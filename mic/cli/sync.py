"""`mic sync`: replay a run into Weights & Biases."""

import argparse
from pathlib import Path
from typing import Any


def add_sync(actions: Any) -> None:
    sync = actions.add_parser(
        "sync",
        help="replay a run into Weights & Biases",
        description="Replay a run's own log, figures and results into one W&B run; one that is "
        "there already is not touched: the replay is a new run beside it, to keep in its place.",
    )
    sync.add_argument("folder", metavar="RUN", type=Path, help="a run directory")
    sync.set_defaults(run=run_sync)


def run_sync(options: argparse.Namespace) -> None:
    from mic.report.wandb_replay import sync

    print(sync(options.folder))
