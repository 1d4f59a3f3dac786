"""Change the counters of Lightning's loops in a checkpoint, so that a run goes on from its place.

Lightning (2.6) tells from its counters where a checkpoint was taken, and is right about two places:
after a batch in the middle of an epoch, and after a validation. The two others are written here:
before a validation that is due, and between two epochs.
"""

from typing import Any, Literal

Place = Literal["batch", "validation due", "validated", "epoch"]
Counters = dict[str, Any]

BATCHES = "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"


def put(loops: Counters, place: Place, epoch: int) -> None:
    """Change the counters of a fit loop so that they say `place`.

    `epoch` counts the epochs that are over; it matters between two of them alone.
    """
    if place == "validation due":
        finish_batch(loops[BATCHES])
        begin_validation(loops[VALIDATION])
    elif place == "validated":
        finish_validation(loops[VALIDATION])
    elif place == "epoch":
        for part in ("total", "current"):
            loops["epoch_progress"][part] = dict.fromkeys(loops["epoch_progress"][part], epoch)
        finish_batch(loops[BATCHES])
        rewind(loops[BATCHES])
        rewind(loops[VALIDATION])
        rewind(loops["epoch_loop.scheduler_progress"])


def finish_batch(batches: Counters) -> None:
    for part in ("total", "current"):
        batches[part]["completed"] = batches[part]["processed"]


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
