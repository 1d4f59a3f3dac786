"""Log a run to metrics.jsonl, and to W&B, TensorBoard and CSV, which mirror it."""

import json
import math
import os
import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.image import imread

from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError
from mic.files import flush, json_value
from mic.tracking.run_directory import METRICS
from mic.tracking.wandb.mirror import WandbMirror, start_wandb_run

Line = dict[str, Any]


class TensorBoardMirror:
    has_pictures = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logger = TensorBoardLogger(folder, name=None, version="tensorboard")

    def cut(self, lines: Sequence[Line], steps: int) -> None:  # noqa: ARG002
        """Have TensorBoard drop the values of later steps."""
        self.logger = TensorBoardLogger(
            self.folder, name=None, version="tensorboard", purge_step=steps + 1
        )

    def log(self, values: Mapping[str, float], steps: int) -> None:
        self.logger.log_metrics(dict(values), steps)

    def image(self, name: str, png: Path, steps: int) -> None:
        self.logger.experiment.add_image(name, imread(png), steps, dataformats="HWC")

    def histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        self.logger.experiment.add_histogram(name, np.asarray(values), steps)

    def finish(self) -> None:
        self.logger.finalize("success")


class CsvMirror:
    has_pictures = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "csv"
        self.logger = CSVLogger(folder, name=None, version="csv")

    def cut(self, lines: Sequence[Line], steps: int) -> None:  # noqa: ARG002
        """Write the table again from the remaining lines."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for line in lines:
            values = {name: value for name, value in line.items() if name != "step"}
            self.log(
                {name: value for name, value in values.items() if value is not None}, line["step"]
            )

    def log(self, values: Mapping[str, float], steps: int) -> None:
        self.logger.log_metrics(dict(values), steps)

    def image(self, name: str, png: Path, steps: int) -> None:
        """A table has no pictures."""

    def histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        """A table has no histograms."""

    def finish(self) -> None:
        self.logger.save()


Mirror = WandbMirror | TensorBoardMirror | CsvMirror


class RunLogger(Logger):
    """One JSON object per log call: {"step": int, "epoch": int, "<name>": float, ...}.

    `step` is the number of optimiser steps taken, in metrics.jsonl and in every mirror. Nothing is
    written but by rank 0.
    """

    def __init__(self, folder: Path, mirrors: Sequence[Mirror] = ()) -> None:
        super().__init__()
        self.file = folder / METRICS
        self.mirrors = list(mirrors)

    @property
    def name(self) -> str:
        return self.file.parent.name

    @property
    def version(self) -> str:
        return ""

    @property
    def has_pictures(self) -> bool:
        """Whether any mirror shows pictures and histograms."""
        return any(mirror.has_pictures for mirror in self.mirrors)

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
    def write(self, values: Mapping[str, float], steps: int, epoch: int = 0) -> None:
        """Add a line for `values` after `steps` optimiser steps."""
        line = json_value({"step": steps, "epoch": epoch, **values})
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        for mirror in self.mirrors:
            mirror.log({"epoch": epoch, **values}, steps)

    @rank_zero_only
    def log_image(self, name: str, png: Path, steps: int) -> None:
        for mirror in self.mirrors:
            mirror.image(name, png, steps)

    @rank_zero_only
    def log_histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        """The distribution of values, of which there are too many for a line each."""
        finite = [value for value in values if math.isfinite(value)]
        for mirror in self.mirrors if finite else ():
            mirror.histogram(name, finite, steps)

    @rank_zero_only
    def alert(self, heading: str, text: str) -> None:
        """Send an alert to W&B, which notifies its subscribers."""
        for mirror in self.mirrors:
            if isinstance(mirror, WandbMirror):
                mirror.alert(heading, text)

    @rank_zero_only
    def position(self) -> int:
        """The size of metrics.jsonl in bytes; the content is on the disk when this returns."""
        if not self.file.exists():
            return 0
        flush(self.file)
        return self.file.stat().st_size

    @rank_zero_only
    def cut(self, position: int | None, steps: int) -> None:
        """Drop what was logged after the checkpoint of `steps` steps that is resumed."""
        held = self.file.stat().st_size if self.file.exists() else 0
        if position is None or held < position:
            notice(
                f"{self.file}: is shorter than at the checkpoint of step {steps}: it was changed "
                "since; the lines that are gone stay gone"
            )
        elif held > position:
            os.truncate(self.file, position)
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        for mirror in self.mirrors:
            mirror.cut(lines, steps)

    @rank_zero_only
    def preempting(self) -> None:
        """Mark the run as preempted at W&B, whose sweeps then start it again."""
        for mirror in self.mirrors:
            if isinstance(mirror, WandbMirror):
                mirror.preempting()

    @rank_zero_only
    def finish(self) -> None:
        """Close the mirrors; metrics.jsonl is whole after every line."""
        for mirror in self.mirrors:
            mirror.finish()


def require_mirror_packages(config: Config) -> None:
    """Raise an InputError for a mirror whose package is not installed."""
    if config.logging.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "logging.tensorboard=true: tensorboard is not installed; "
            "pip install 'mic-embeddings[tensorboard]'"
        )


@rank_zero_only
def build_mirrors(config: Config, folder: Path) -> list[Mirror]:
    wanted, mirrors = config.logging, list[Mirror]()
    if wanted.tensorboard:
        mirrors.append(TensorBoardMirror(folder))
    if wanted.csv:
        mirrors.append(CsvMirror(folder))
    if wanted.wandb != "disabled":
        mirrors += [mirror] if (mirror := start_wandb_run(config, folder, wanted.wandb)) else []
    return mirrors


def build_logger(config: Config, folder: Path) -> RunLogger:
    """The log of a run in its folder, with the mirrors that `config.logging` asks for."""
    return RunLogger(folder, build_mirrors(config, folder) or ())
