"""Lightning's loggers that write into the run directory."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mic.rundir import METRICS, plain


class JsonLinesLogger(Logger):
    """One JSON object per log call: {"step": int, "epoch": int, "<name>": float, ...}.

    `step` is the number of optimiser steps taken.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / METRICS

    @property
    def name(self) -> str:
        return self.file.parent.name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """The config stands in config.yaml already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Called by Lightning with the index of the last step; a line has the steps taken."""
        values = dict(metrics)
        epoch = int(values.pop("epoch", 0))
        self.write(values, steps=0 if step is None else step + 1, epoch=epoch)

    @rank_zero_only
    def write(self, values: dict[str, float], steps: int, epoch: int = 0) -> None:
        """Add a line for `values` after `steps` optimiser steps."""
        line = plain({"step": steps, "epoch": epoch, **values})
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
