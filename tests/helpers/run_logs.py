"""A run's log as train() and its callbacks write it."""

import json
import math
from pathlib import Path

from matplotlib.figure import Figure

from mic.report import figures
from mic.tracking.loggers import RunLogger

LINES = [
    (0, {"val/sts/spearman/d4": 12.5, "geometry/rows": 40.0}),
    (1, {"train/loss": 3.0, "train/learning_rate": 1e-3}),
    (2, {"train/loss": 2.0}),
    (2, {"val/loss": 2.5, "val/sts/spearman/d4": 13.5}),
]


def log_everything(logger: RunLogger, folder: Path) -> None:
    """LINES, a picture and a histogram, the way train() and its callbacks log them."""
    for step, values in LINES:
        logger.write(values, steps=step)
    figure, png = Figure(), folder / "figures" / "map.png"
    figure.subplots().plot([1, 2])
    png.parent.mkdir()
    figures.save(figure, png)
    logger.log_image("correlation/map/d4", png, 2)
    logger.log_histogram("geometry/variance", [0.5, 1.0, 1.5, math.nan], 2)
    logger.finish()


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
