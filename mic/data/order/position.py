"""Compute, from a Trainer's progress, which batch of an order is next."""

from typing import Any

from lightning.pytorch import Trainer

from mic.data.order.batch_order import Order


def next_batch(trainer: Trainer, order: Order) -> tuple[int, int]:
    """The epoch and position of the next batch, from the number of batches trained on so far.

    Lightning's own count of epochs is one off after a checkpoint from the last batch of an epoch,
    and after one from the end of a run in the middle of an epoch.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    epochs: Any = trainer.fit_loop.epoch_progress.total
    batches, epoch = progress.total.processed, 0
    while batches >= (length := batches_taken(order.length(epoch), trainer.limit_train_batches)):
        # saved after the last batch, by a validation: Lightning first ends the epoch
        done = progress.current.completed == progress.current.processed == length == batches
        if done and epochs.processed < epochs.started:
            break
        batches -= length
        epoch += 1
    return epoch, batches


def batches_taken(length: int, limit: float | None) -> int:
    """The batches of an epoch that a trainer takes under its `limit_train_batches`."""
    if limit is None:
        return length
    return max(1, int(length * limit) if isinstance(limit, float) else min(length, limit))
