"""Write the rows of every training batch to a file, so that two runs can be compared."""

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.collectives import gather_objects
from mic.data.batch import Batch
from mic.files import write_text

BATCHES = "batches.jsonl"


class BatchRecord(Callback):
    """Write {"batch": n, "rows": [...]} of every global batch, in its order, into batches.jsonl.

    A row is given by its number among those of all training corpora; in a stream, which has no
    numbers, by the id of its first text. The rows are those that all ranks really trained on.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / BATCHES

    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Drop the batches after the checkpoint, which come once more."""
        loops: Any = checkpoint["loops"]["fit_loop"]
        processed = loops["epoch_loop.batch_progress"]["total"]["processed"]
        if trainer.is_global_zero and self.file.is_file():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.file, "".join(lines[:processed]))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        rows = interleaved(gather_objects(row_numbers(batch)))
        if trainer.is_global_zero:
            number = trainer.fit_loop.epoch_loop.total_batch_idx
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"batch": number, "rows": rows}) + "\n")


def row_numbers(batch: Batch) -> list[int]:
    if batch.row_numbers is not None:
        return batch.row_numbers
    return [] if batch.ids is None else batch.ids[:, 0].tolist()


def interleaved(shares: Sequence[Sequence[int]]) -> list[int]:
    """The global batch, of which rank r has every W-th row from the r-th on.

    >>> interleaved([[0, 2, 4], [1, 3]])
    [0, 1, 2, 3, 4]
    """
    return [number for turn in zip_longest(*shares) for number in turn if number is not None]
