"""Lightning's loggers that write into the run directory."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from mic.rundir import METRICS, plain


class JsonLinesLogger(Logger):
    """One JSON object per log call: {"step": int, "epoch": int, "<name>": float, ...}."""

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
        line = {
            "step": step,
            "epoch": int(metrics.get("epoch", 0)),
            **metrics,
        }
        line["epoch"] = int(line["epoch"])
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(line)) + "\n")
