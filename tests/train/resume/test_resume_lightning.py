"""ExactResume in a Lightning run of one's own, with nothing else of mic."""

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mic.errors import Preempted
from mic.train.callbacks import ExactResume
from mic.train.resume.checkpoint_files import newest


class Noisy(LightningModule):
    """Dropout, noise of numpy's, a schedule, and a validation that draws numbers, too."""

    def __init__(self, stop: ExactResume | None = None, at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.stop = stop
        self.at = at
        self.seen: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.stop and self.global_step + 1 == self.at:
            self.stop.stop(signal.SIGTERM)
        rows = batch[0]
        self.seen.append(rows[0, 0].item())
        noise = torch.from_numpy(np.random.rand(*rows.shape)).float()
        return (self.layers(rows + 0.1 * noise) - random.random()).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/noise", torch.rand(()) + np.random.rand() + random.random())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Resumable(DataLoader):
    """A loader that goes on within an epoch, as Lightning takes it."""

    start = given = 0

    def __iter__(self) -> Iterator[Any]:
        return self.counted(super().__iter__())  # which draws a random number at once

    def counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        start, self.start = self.start, 0
        for number, batch in enumerate(batches, 1):
            if number > start:
                self.given = number
                yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given % len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["given"]


def fit(
    folder: Path, at: int = 0, shuffle: bool = False, **settings: Any
) -> tuple[dict[str, Any], list[float]]:
    """Train 20 steps, in epochs of six batches, or until a step; the weights, and what was seen."""
    rows = TensorDataset(torch.arange(48.0).view(12, 4))
    exact = ExactResume(folder, 3)
    module = Noisy(exact, at)
    trainer = Trainer(
        max_steps=20,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        callbacks=[exact],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"check_val_every_n_epoch": None, "val_check_interval": 4, **settings},
    )
    loaders = Resumable(rows, 2, shuffle=shuffle), DataLoader(rows, 6)
    with pytest.raises(Preempted) if at else nullcontext():
        trainer.fit(module, *loaders, ckpt_path=exact.path(), weights_only=True)
    if at:
        assert newest(folder).step == at
    return module.state_dict(), module.seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"check_val_every_n_epoch": 1, "val_check_interval": 1.0},
        {"limit_val_batches": 0},
        {"accumulate_grad_batches": 2},
        {"accumulate_grad_batches": 2, "val_check_interval": 3},
    ],
    ids=["validations", "an epoch's validation", "no validation", "two batches a step", "amid it"],
)
@pytest.mark.parametrize("steps", [[1, 2, 4, 6], [8, 9, 12], [14, 18, 20]])
def test_a_lightning_run_of_ones_own_goes_on(tmp_path, settings, steps):
    """Wherever it stopped: within an epoch and at its end, where a validation is due and not."""
    compare(tmp_path, steps, **settings)


@pytest.mark.parametrize("interval", [4, 6, 7])
def test_between_epochs_an_order_by_torch_goes_on_too(tmp_path, interval):
    compare(tmp_path, [6, 12, 18], shuffle=True, val_check_interval=interval)


def compare(folder: Path, steps: Sequence[int], **settings: Any) -> None:
    """A run that stops at some steps with one that does not."""
    expected, every = fit(folder / "whole", **settings)
    seen: list[float] = []
    for step in steps:
        seen += fit(folder / "stopped", step, **settings)[1]
    weights, rest = fit(folder / "stopped", **settings)
    assert seen + rest == every
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
