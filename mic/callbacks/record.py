"""Where a callback's figures go."""

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer


def record(trainer: Trainer, module: LightningModule, values: Mapping[str, float]) -> None:
    """Log values after the steps taken so far; before training, after none.

    Straight to the loggers: Lightning would keep them in fp32, and none before training. Callbacks
    that watch a value, as ModelCheckpoint does, find it during training all the same.
    """
    steps = 0 if trainer.sanity_checking else trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=steps - 1)
    if trainer.validating or (trainer.training and not trainer.sanity_checking):
        module.log_dict(dict(values), logger=False, rank_zero_only=True)
