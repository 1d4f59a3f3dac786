"""Progress of training."""

import time
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.progress import Advance, bar


class Progress(Callback):
    """Steps, loss, pairs per second and time left; keeps the pairs per second of training alone.

    The loss is that of every `every`-th step: to read it, a GPU must be waited for.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.loss = float("nan")
        self.pairs = 0
        self.seconds = 0.0
        self._started = 0.0
        self._advance: Advance | None = None
        self._open = ExitStack()

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.is_global_zero:
            self._advance = self._open.enter_context(bar("training", int(trainer.max_steps)))
        self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        now = time.monotonic()
        self.seconds += now - self._started
        self._started = now
        self.pairs += batch.size
        if self._advance is not None:
            if trainer.global_step == 1 or trainer.global_step % self.every == 0:
                self.loss = float(outputs["loss"])
            self._advance(1, f"loss {self.loss:.3f} {self.pairs_per_second:.0f} pairs/s")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._started = time.monotonic()  # validation is not training time

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._open.close()

    def on_exception(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        self._open.close()
