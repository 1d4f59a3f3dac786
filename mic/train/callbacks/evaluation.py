"""Score the validation tasks at every width while a run trains, and log the best so far."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mic.data.batch import Batch
from mic.evaluation.scoring import Results, embed_each
from mic.evaluation.tasks.tasks import Task
from mic.train.module import MICModule
from mic.train.step_metrics import record, write_to_loggers

LOSS = "val/loss"


class NestedEvaluation(Callback):
    """Score the validation tasks at every width after each validation: val/<task>/<metric>/d<dim>.

    Neither before training nor after the last step, when the whole evaluation is run anyway. Each
    rank encodes its share of the texts. `check` is called every few batches, as in `embed_tasks`.
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
        tasks = embed_each(encoder, self.tasks, self.batch_size, "validating", check)
        for task, embeddings in tasks:  # one task's embeddings at a time
            scores[task.name] = task.score(embeddings, self.dims)
        record(trainer, flat_scores(scores, "val"))


class BestSoFar(Callback):
    """Log best/<name> after each validation: the least val/loss, the greatest score of each task.

    `headlines` names each task's metric, which is followed at every width. A checkpoint holds the
    best values, so that they outlive a resume: a logger's own summary may lose them.
    """

    def __init__(self, headlines: Mapping[str, str]) -> None:
        self.headlines = dict(headlines)
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if not trainer.sanity_checking:
            scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
            write_to_loggers(trainer, self.update(scores))

    def update(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The best of all validations, this one's scores included, by their logged names."""
        wanted = tuple(f"val/{task}/{metric}/d" for task, metric in self.headlines.items())
        for name, value in scores.items():
            if name == LOSS:
                self.best[name] = min(self.best.get(name, math.inf), value)
            elif name.startswith(wanted):
                self.best[name] = max(self.best.get(name, -math.inf), value)
        return {f"best/{name.removeprefix('val/')}": value for name, value in self.best.items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict)


class FirstValidation(Callback):
    """Take the embeddings of the validation before training from `known`: encode no row again.

    `known` has an embedding for every id of the validation batches, those of the module as it is
    before training; if it is empty, the module encodes the rows.
    """

    def __init__(self, known: Mapping[int, Tensor]) -> None:
        self.known = known
        self._device = torch.device("cpu")

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self.known:
            self._device = pl_module.device
            vars(pl_module)["validation_step"] = self.recall

    def recall(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """What MICModule.validation_step hands on to callbacks, from what is known."""
        assert batch.ids is not None
        pooled = [
            torch.stack([self.known[text] for text in column]).to(self._device)
            for column in batch.ids[:, :2].T.tolist()
        ]
        return {"pooled": pooled, "teacher": None}

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        vars(pl_module).pop("validation_step", None)
        self.known = {}

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        del exception
        self.on_sanity_check_end(trainer, pl_module)


class LastValidation(Callback):
    """Validate after the last step as well, also where `validate_every` does not divide it."""

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if trainer.global_step + 1 >= trainer.max_steps > 0:
            trainer.val_check_batch = 1


def flat_scores(results: Results, above: str) -> dict[str, float]:
    """Scores under their logged names: <above>/<task>/<metric>/d<dim>."""
    return {
        f"{above}/{task}/{metric}/d{dim}": value
        for task, scores in results.items()
        for metric, values in scores.items()
        for dim, value in values.items()
    }
