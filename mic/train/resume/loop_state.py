"""Set the loop counters of a checkpoint so that Lightning goes on at the right batch.

Lightning (2.6) infers from its counters where a checkpoint was taken, which is right in two places:
after a batch in the middle of an epoch, and after a validation. The counters of the two others are
set here: before a validation that is due, and between two epochs.
"""

from typing import Any, Literal

SavePoint = Literal["batch", "validation due", "validated", "epoch"]
Counters = dict[str, Any]

BATCHES = "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"


def set_counters(loops: Counters, place: SavePoint, epoch: int) -> None:
    """Change the counters of a fit loop to those of a checkpoint taken at `place`.

    `epoch` counts the epochs that are over; it matters between two of them alone.
    """
    if place == "validation due":
        finish_batch(loops[BATCHES])
        begin_validation(loops[VALIDATION])
    elif place == "validated":
        finish_validation(loops[VALIDATION])
    elif place == "epoch":
        for span in ("total", "current"):
            loops["epoch_progress"][span] = dict.fromkeys(loops["epoch_progress"][span], epoch)
        finish_batch(loops[BATCHES])
        rewind(loops[BATCHES])
        rewind(loops[VALIDATION])
        rewind(loops["epoch_loop.scheduler_progress"])


def finish_batch(batches: Counters) -> None:
    for span in ("total", "current"):
        batches[span]["completed"] = batches[span]["processed"]


def begin_validation(batches: Counters) -> None:
    """One batch begun and none processed: Lightning then validates from the first on."""
    batches["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def finish_validation(batches: Counters) -> None:
    """As many batches begun as processed, also when the epoch's first began in another process."""
    batches["total"] = dict.fromkeys(batches["total"], batches["total"]["processed"])


def rewind(progress: Counters) -> None:
    """No batch of the epoch is done."""
    progress["current"] = dict.fromkeys(progress["current"], 0)
    if "is_last_batch" in progress:
        progress["is_last_batch"] = False
