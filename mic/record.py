"""Where the figures of a training step or of a validation go."""

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer


def record(
    trainer: Trainer,
    module: LightningModule,
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
        module.log_dict(dict(values), logger=False, rank_zero_only=True)


def write(trainer: Trainer, values: Mapping[str, float], steps: int | None = None) -> None:
    """Log values to the loggers alone: in the hooks where Lightning takes none."""
    if steps is None:
        steps = 0 if trainer.sanity_checking else trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=steps - 1)
