"""Evaluate models by mteb's tasks at every width; finished tasks are read from mteb's results."""

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
from mic.encoder.encoder import encoder_fingerprint
from mic.encoder.loading import locate, no_progress_bars
from mic.errors import InputError
from mic.evaluation.evaluate import Options, json_hash
from mic.evaluation.models import (
    Model,
    evaluation_widths,
    find_models,
    load_trained_encoder,
    seed_group_key,
    weights_hash,
)
from mic.evaluation.mteb.model import AtWidth, Subject
from mic.evaluation.mteb.prompts import read_prompts
from mic.evaluation.mteb.score import score_task, subtasks_of
from mic.evaluation.mteb.suite import find_tasks
from mic.evaluation.results import Evaluation, is_evaluation, read_evaluation, write_evaluation
from mic.nested import check_dims
from mic.tracking.run_directory import git_commit, package_versions

RESULTS = "mteb"  # in the folder of --to: mteb's own result files
PROTOCOL = "mteb"


def evaluate_by_mteb(
    models: Sequence[str], suite: str, data: Path | None, options: Options
) -> list[Evaluation]:
    """Evaluate models by mteb's tasks; write TO/NAME for each.

    A task at a width that TO/mteb has is read, not run again. Raises InputError for bad input,
    RunError where a task's data is not available.
    """
    chosen = find_models(models, options.trust_remote_code)
    with quiet_mteb():
        tasks = find_tasks(suite, data, options.tasks)
        return [evaluate_model_by_mteb(model, suite, tasks, options) for model in chosen]


def evaluate_model_by_mteb(
    model: Model, suite: str, tasks: Sequence[Any], options: Options
) -> Evaluation:
    import mteb

    weights, encoder = weights_hash(model.given), load_trained_encoder(model)
    dims = list(check_dims(evaluation_widths(model, encoder.width, options.dims), encoder.width))
    folder = options.to / model.name
    refuse_other(folder, weights)
    prompts = read_prompts(locate(model.given))
    encoder.to(accelerator())
    cache, results = mteb.ResultCache(options.to / RESULTS), {}
    with bar(model.name, len(dims) * sum(len(subtasks_of(task)) for task in tasks)) as advance:
        progress = EncodingProgress(advance)

        def encode(texts: Sequence[str]) -> Float32[np.ndarray, "part width"]:
            scores = encoder.embed(texts, batch_size=options.batch_size, progress=progress.encoded)
            return scores.numpy()

        store = BoundedStore(encoder_fingerprint(encoder)[:32], encoder.width, encode)
        subject = Subject(model.name, weights, encoder, prompts, store)
        models = {dim: AtWidth(subject, dim) for dim in dims}
        for task in tasks:
            store.begin_task()
            scores = score_task(task, models, cache, options.batch_size, progress.say)
            results[task.metadata.name] = {task.metadata.main_score: scores}
    meta = {
        "weights": weights,
        "dims": dims,
        "tasks": {task.metadata.name: question_hash(task) for task in tasks},
        "protocol": PROTOCOL,
        "model": model.given,
        "seed": model.config.seed if model.config else None,
        "group": seed_group_key(model, weights),
        "base": None,
        "suite": suite,
        "headlines": {task.metadata.name: task.metadata.main_score for task in tasks},
        "types": {task.metadata.name: task.metadata.type for task in tasks},
        "prompts": prompts._asdict(),
        "texts_encoded": progress.texts,
        "data": {task.metadata.name: task.metadata.revision for task in tasks},
        "versions": {**package_versions(), "mteb": version("mteb")},
        "git_commit": git_commit(),
    }
    evaluated = Evaluation(model.name, results, {}, {}, meta)
    if folder.exists():  # made from TO/mteb, which has everything in it
        shutil.rmtree(folder)
    write_evaluation(folder, evaluated)
    return evaluated


class EncodingProgress:
    """The text of the progress bar: the task, and how many texts were encoded."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.texts, self.task = advance, 0, ""

    def encoded(self, texts: int) -> None:
        self.texts += texts
        self.say(self.task, 0)

    def say(self, task: str, done: int) -> None:
        self.task = task
        self.advance(done, f"{task}, {self.texts:,} texts encoded")


def question_hash(task: Any) -> str:
    """A hash of what is asked: the data, the splits and subsets of it, and mteb's version."""
    metadata = task.metadata
    parts = [
        metadata.name,
        metadata.main_score,
        metadata.revision,
        task.eval_splits,
        task.hf_subsets,
    ]
    return json_hash(PROTOCOL, version("mteb"), parts)


def refuse_other(folder: Path, weights: str) -> None:
    """Raise InputError where TO/NAME exists and is no evaluation of the same model by mteb."""
    if not folder.exists():
        return
    if not is_evaluation(folder):
        raise InputError(f"{folder}: exists and is no evaluation; choose another --to")
    meta = read_evaluation(folder).meta
    other = "weights" if meta["weights"] != weights else "tasks"
    if meta["weights"] != weights or meta.get("protocol") != PROTOCOL:
        raise InputError(
            f"{folder}: holds an evaluation with other {other}; choose another --to, or remove it"
        )


@contextmanager
def quiet_mteb() -> Iterator[None]:
    """Silence the progress bars, warnings and log lines of mteb and datasets."""
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
