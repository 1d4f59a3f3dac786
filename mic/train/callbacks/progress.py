"""Show the progress of training."""

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.console import Advance, bar
from mic.train.callbacks.throughput import Throughput


class Progress(Callback):
    """Show steps, loss, the pairs per second that `throughput` counts, and the time left.

    The loss is that of every `every`-th step: reading it waits for a GPU.
    """

    def __init__(self, every: int, throughput: Throughput) -> None:
        self.every = every
        self.throughput = throughput
        self.loss = float("nan")
        self._advance: Advance | None = None
        self._open = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.is_global_zero:
            self._advance = self._open.enter_context(
                bar("training", int(trainer.max_steps), trainer.global_step)
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if self._advance is not None:
            if trainer.global_step == 1 or trainer.global_step % self.every == 0:
                self.loss = float(outputs["loss"])
            speed = self.throughput.pairs_per_second
            self._advance(1, f"loss {self.loss:.3f} {speed:.0f} pairs/s")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._open.close()

    def on_exception(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        self._open.close()
