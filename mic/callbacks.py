"""Lightning callbacks: what is shown and measured while a run trains."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.evaluate import Results, embed_tasks, score_tasks
from mic.module import MICModule
from mic.progress import Advance, bar
from mic.tasks import Task


class NestedEvaluation(Callback):
    """Score the validation tasks at every width after each validation: val/<task>/<metric>/d<dim>.

    Not at the last step, after which the whole evaluation follows.
    """

    def __init__(self, tasks: Sequence[Task], dims: Sequence[int], batch_size: int) -> None:
        self.tasks = tasks
        self.dims = dims
        self.batch_size = batch_size

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MICModule)
        if trainer.global_step >= trainer.max_steps:
            return
        embeddings = embed_tasks(pl_module.encoder, self.tasks, self.batch_size, "validating")
        scores = score_tasks(self.tasks, embeddings, self.dims)
        pl_module.log_dict(flat(scores, "val"), rank_zero_only=True)


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


def flat(results: Results, above: str) -> dict[str, float]:
    """Scores under their logged names: <above>/<task>/<metric>/d<dim>."""
    return {
        f"{above}/{task}/{metric}/d{dim}": value
        for task, scores in results.items()
        for metric, values in scores.items()
        for dim, value in values.items()
    }
