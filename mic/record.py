"""Where the figures of a training step or of a validation go."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer


def record(
    trainer: Trainer,
    values: Mapping[str, float],
    steps: int | None = None,
) -> None:
    """Log values after the steps taken so far (or `steps`); before training, after none.

    Straight to the loggers: Lightning would keep them in fp32, none before training, and those of a
    step until after the callbacks, where a checkpoint of that step is saved. Callbacks that watch a
    value, as ModelCheckpoint does, find it during training all the same.
    """
    write(trainer, values, steps)
    if trainer.validating or (trainer.training and not trainer.sanity_checking):
        found = {name: torch.tensor(value, dtype=torch.double) for name, value in values.items()}
        trainer.callback_metrics.update(found)  # as LightningModule.log would, but at once


def write(trainer: Trainer, values: Mapping[str, float], steps: int | None = None) -> None:
    """Log values to the loggers alone: in the hooks where Lightning takes none."""
    if steps is None:
        steps = 0 if trainer.sanity_checking else trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=steps - 1)
