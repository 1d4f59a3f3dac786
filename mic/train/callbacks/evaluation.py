"""Quality at every width while a run trains."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.evaluation.scoring import Results, embed_each
from mic.evaluation.tasks.tasks import Task
from mic.train.module import MICModule
from mic.train.step_metrics import record


class NestedEvaluation(Callback):
    """Score the validation tasks at every width after each validation: val/<task>/<metric>/d<dim>.

    Not before training nor at the last step, beside which the whole evaluation stands. On several
    ranks each encodes its share of the texts. `check` is called now and then, as in `embed_tasks`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        dims: Sequence[int],
        batch_size: int,
        check: Callable[[Trainer], None] | None = None,
    ) -> None:
        self.tasks = tasks
        self.dims = dims
        self.batch_size = batch_size
        self.check = check

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MICModule)
        if trainer.sanity_checking or trainer.global_step >= trainer.max_steps:
            return
        check = None if self.check is None else partial(self.check, trainer)
        encoder = pl_module.encoder
        scores = {}
        for task, found in embed_each(encoder, self.tasks, self.batch_size, "validating", check):
            scores[task.name] = task.score(found, self.dims)  # one task's embeddings at a time
        record(trainer, flat(scores, "val"))


class LastValidation(Callback):
    """Validate after the last step as well, wherever it falls."""

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if trainer.global_step + 1 >= trainer.max_steps > 0:
            trainer.val_check_batch = 1


def flat(results: Results, above: str) -> dict[str, float]:
    """Scores under their logged names: <above>/<task>/<metric>/d<dim>."""
    return {
        f"{above}/{task}/{metric}/d{dim}": value
        for task, scores in results.items()
        for metric, values in scores.items()
        for dim, value in values.items()
    }
