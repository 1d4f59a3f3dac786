"""The figures of a training step or of a validation: which they are, and where they go."""

import math
from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from mic.config.schema import Config
from mic.errors import RunError
from mic.objective.objective import Loss


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


def scalars(loss: Loss) -> dict[str, float]:
    """Every value of a loss by its logged name: total, raw terms, their weighted parts, widths."""
    values = {"loss": loss.total}
    for name, term in loss.terms.items():
        values[name] = torch.stack(list(term.values())).mean()
        values[f"{name}/weighted"] = loss.weighted[name]
        values |= {f"{name}/d{dim}": value for dim, value in term.items()}
    values["negatives"] = loss.negatives
    stacked = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, stacked, strict=True))


def refuse_nan(values: Mapping[str, float], step: int, config: Config) -> None:
    """Raise a RunError when the loss is not finite."""
    if math.isfinite(values["loss"]):
        return
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    raise RunError(
        f"step {step + 1}: loss is {values['loss']} ({', '.join(broken[:4])}); lower "
        f"trainer.learning_rate ({config.trainer.learning_rate}) or raise objective.temperature "
        f"({config.objective.temperature})"
    )
