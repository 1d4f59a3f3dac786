"""The best that a run had so far."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.train.step_metrics import write

LOSS = "val/loss"


class BestSoFar(Callback):
    """Log best/<figure> after each validation: of val/loss the least, of the tasks the greatest.

    `headlines` names each task's metric, of which every width is kept. A checkpoint holds the best,
    so that it outlives a resume: a logger's own summary may forget it.
    """

    def __init__(self, headlines: Mapping[str, str]) -> None:
        self.headlines = dict(headlines)
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items()}
            write(trainer, self.update(found))

    def update(self, found: Mapping[str, float]) -> dict[str, float]:
        """Take in a validation's figures; the best of all so far."""
        wanted = tuple(f"val/{task}/{metric}/d" for task, metric in self.headlines.items())
        for name, value in found.items():
            if name == LOSS:
                self.best[name] = min(self.best.get(name, math.inf), value)
            elif name.startswith(wanted):
                self.best[name] = max(self.best.get(name, -math.inf), value)
        return {f"best/{name.removeprefix('val/')}": value for name, value in self.best.items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict)
