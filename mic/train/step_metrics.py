"""Log the values of a training step or a validation, and refuse a loss that is not finite."""

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
    """Log values under the number of steps taken so far (or `steps`), which is 0 before training.

    They go straight to the loggers: Lightning would round them to fp32, log none before training,
    and log those of a step after the callbacks, one of which saves a checkpoint of that step.
    Callbacks that watch a value, as ModelCheckpoint does, can read it during training all the same.
    """
    write_to_loggers(trainer, values, steps)
    if trainer.validating or (trainer.training and not trainer.sanity_checking):
        tensors = {name: torch.tensor(value, dtype=torch.double) for name, value in values.items()}
        trainer.callback_metrics.update(tensors)  # as LightningModule.log would, but at once


def write_to_loggers(
    trainer: Trainer, values: Mapping[str, float], steps: int | None = None
) -> None:
    """Log values to the loggers alone, also in hooks where Lightning's own `log` is refused."""
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
