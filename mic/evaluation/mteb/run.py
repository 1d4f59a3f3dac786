"""Models by mteb's tasks: task after task, each at every width, with what is done kept."""

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from mic.console import Advance, bar
from mic.distributed.environment import accelerator
from mic.encoder.embedding_store import BoundedStore
from mic.encoder.pretrained import locate, no_progress_bars
from mic.errors import InputError
from mic.evaluation import results as evaluation
from mic.evaluation.evaluate import Options, digest
from mic.evaluation.models import Model, find_models, group_of, trained, weights_hash, widths
from mic.evaluation.mteb.model import AtWidth, Subject, encoder_key
from mic.evaluation.mteb.prompts import read_prompts
from mic.evaluation.mteb.score import parts_of, scores
from mic.evaluation.mteb.suite import find_tasks
from mic.evaluation.results import Evaluation
from mic.nested import check_dims
from mic.tracking.run_directory import git_commit, versions

RESULTS = "mteb"  # in the folder of --to: mteb's own result files
PROTOCOL = "mteb"


def evaluate_all(
    models: Sequence[str], suite: str, data: Path | None, options: Options
) -> list[Evaluation]:
    """Judge models by mteb's tasks; write TO/NAME for each.

    A task at a width that TO/mteb has is read, not run again. Raises InputError for bad input,
    RunError where a task's data is not to be had.
    """
    chosen = find_models(models)
    with quiet():
        tasks = find_tasks(suite, data, options.tasks)
        return [evaluate_model(model, suite, tasks, options) for model in chosen]


def evaluate_model(model: Model, suite: str, tasks: Sequence[Any], options: Options) -> Evaluation:
    import mteb

    weights, encoder = weights_hash(model.given), trained(model)
    dims = list(check_dims(widths(model, encoder.width, options.dims), encoder.width))
    folder = options.to / model.name
    refuse_other(folder, weights)
    prompts = read_prompts(locate(model.given))
    encoder.to(accelerator())
    cache, results = mteb.ResultCache(options.to / RESULTS), {}
    with bar(model.name, len(dims) * sum(len(parts_of(task)) for task in tasks)) as advance:
        told = Told(advance)

        def encode(texts: Sequence[str]) -> Float32[np.ndarray, "part width"]:
            found = encoder.embed(texts, batch_size=options.batch_size, progress=told.encoded)
            return found.numpy()

        kept = BoundedStore(encoder_key(encoder, weights), encoder.width, encode)
        subject = Subject(model.name, weights, encoder, prompts, kept)
        at = {dim: AtWidth(subject, dim) for dim in dims}
        for task in tasks:
            kept.begin_task()
            found = scores(task, at, cache, options.batch_size, told.say)
            results[task.metadata.name] = {task.metadata.main_score: found}
    meta = {
        "weights": weights,
        "dims": dims,
        "tasks": {task.metadata.name: question(task) for task in tasks},
        "protocol": PROTOCOL,
        "model": model.given,
        "seed": model.config.seed if model.config else None,
        "group": group_of(model, weights),
        "base": None,
        "suite": suite,
        "headlines": {task.metadata.name: task.metadata.main_score for task in tasks},
        "types": {task.metadata.name: task.metadata.type for task in tasks},
        "prompts": prompts._asdict(),
        "texts_encoded": told.texts,
        "data": {task.metadata.name: task.metadata.revision for task in tasks},
        "versions": {**versions(), "mteb": version("mteb")},
        "git_commit": git_commit(),
    }
    judged = Evaluation(model.name, results, {}, {}, meta)
    if folder.exists():  # a view of TO/mteb, which has all that it was made from
        shutil.rmtree(folder)
    evaluation.write(folder, judged)
    return judged


class Told:
    """What the bar says: tasks at a width that are done, and how many texts were encoded."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.texts, self.task = advance, 0, ""

    def encoded(self, texts: int) -> None:
        self.texts += texts
        self.say(self.task, 0)

    def say(self, task: str, done: int) -> None:
        self.task = task
        self.advance(done, f"{task}, {self.texts:,} texts encoded")


def question(task: Any) -> str:
    """Equal for equal questions: the data, and which of it is asked by which version of mteb."""
    about = task.metadata
    asked = [about.name, about.main_score, about.revision, task.eval_splits, task.hf_subsets]
    return digest(PROTOCOL, version("mteb"), asked)


def refuse_other(folder: Path, weights: str) -> None:
    """Raise an InputError where TO/NAME is no evaluation of the same model by mteb."""
    if not folder.exists():
        return
    if not evaluation.is_evaluation(folder):
        raise InputError(f"{folder}: is there and no evaluation; choose another --to")
    meta = evaluation.read(folder).meta
    other = "weights" if meta["weights"] != weights else "tasks"
    if meta["weights"] != weights or meta.get("protocol") != PROTOCOL:
        raise InputError(
            f"{folder}: holds an evaluation with other {other}; choose another --to, or remove it"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and the advice of mteb and datasets, so that our own lines can be read."""
    from datasets.utils import logging as bars

    logger = logging.getLogger("mteb")
    level, shown = logger.level, bars.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings(), no_progress_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
