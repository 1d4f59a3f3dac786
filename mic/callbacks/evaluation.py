"""Quality at every width while a run trains."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.evaluate import Results, embed_tasks, score_tasks
from mic.module import MICModule
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


def flat(results: Results, above: str) -> dict[str, float]:
    """Scores under their logged names: <above>/<task>/<metric>/d<dim>."""
    return {
        f"{above}/{task}/{metric}/d{dim}": value
        for task, scores in results.items()
        for metric, values in scores.items()
        for dim, value in values.items()
    }
