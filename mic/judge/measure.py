"""Judge one model by a suite: one encoding, every width, the baselines beside it."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mic.device import accelerator
from mic.embeddings import Embeddings
from mic.encoder import Encoder
from mic.errors import InputError
from mic.evaluate import RAW, Results, score_tasks
from mic.judge import evaluation
from mic.judge.baselines import ROTATIONS, baselines, training_texts
from mic.judge.embed import embed_all
from mic.judge.evaluation import Evaluation
from mic.judge.model import Model, group_of, trained, untrained, weights_hash, widths
from mic.judge.truncation import trained_nested
from mic.nested import check_dims
from mic.progress import bar, notice
from mic.provenance import git_commit, versions
from mic.settings_data import TasksConfig
from mic.tasks import Task, build_tasks, fingerprints

EMBEDDINGS = ".embeddings"  # of the evaluation that is under way


class Suite(NamedTuple):
    """The tasks, the hashes of their files, and a hash of each task: equal for equal questions."""

    name: str
    tasks: list[Task]
    data: dict[str, str]
    questions: dict[str, str]


class Options(NamedTuple):
    """How to evaluate; without `dims` a model is judged at its own, without `tasks` by all."""

    to: Path
    dims: Sequence[int] = ()
    batch_size: int = 64
    baselines: bool = True
    tasks: Sequence[str] = ()


def build_suite(name: str, config: TasksConfig) -> Suite:
    tasks, data = build_tasks(config), fingerprints(config)
    questions = {}
    for task in tasks:
        files = [one for source, one in data.items() if source.split("/")[0] == task.name]
        questions[task.name] = digest(files, task.headline, task.texts)
    return Suite(name, tasks, data, questions)


def digest(*told: Any) -> str:
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


def evaluate_model(
    model: Model, suite: Suite, options: Options, known: dict[str, dict[str, Results]]
) -> Evaluation:
    """Judge a model and write TO/NAME; or read it, where an earlier call judged the same.

    `known` has the baselines of encoders that were measured before, and gets this one's.

    Raises InputError for impossible widths, and where TO/NAME holds something else.
    """
    weights, encoder = weights_hash(model.given), trained(model)
    dims = list(check_dims(widths(model, encoder.width, options.dims), encoder.width))
    asked = {"weights": weights, "dims": dims, "tasks": suite.questions}
    folder = options.to / model.name
    if folder.exists():
        return earlier(folder, asked, options.baselines, known)
    base = base_of(model, encoder, weights, suite, dims) if options.baselines else None
    start = time.monotonic()
    own = embed(encoder, weights, suite, options, f"encoding {model.name}")
    encoded = time.monotonic()
    with bar(f"scoring {model.name}", len(suite.tasks)) as advance:
        found = {}
        for task in suite.tasks:
            found[task.name] = task.judge(own[task.name], dims)
            advance(1)
    scored = time.monotonic()
    if base is not None and base not in known:
        known[base] = measure_baselines(model, own, suite, dims, options)
    fitted = training_texts(suite.tasks)
    meta = {
        **asked,
        "model": model.given,
        "width": encoder.width,
        "nested": trained_nested(model, encoder.width),
        "seed": model.config.seed if model.config else None,
        "group": group_of(model, weights),
        "base": base,
        "suite": suite.name,
        "headlines": {task.name: task.headline for task in suite.tasks},
        "texts": len({text for task in suite.tasks for text in task.texts}),
        "pca": {"fitted_on": len(fitted.texts), "training_texts_of": fitted.tasks},
        "rotations": ROTATIONS,
        "seconds": {
            "encoding": encoded - start,
            "scoring": scored - encoded,
            "baselines": time.monotonic() - scored,
        },
        "data": suite.data,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    judged = Evaluation(
        model.name,
        {name: one.scores for name, one in found.items()},
        known[base] if base is not None else {},
        {name: one.items for name, one in found.items() if one.items is not None},
        meta,
    )
    evaluation.write(folder, judged)
    shutil.rmtree(options.to / EMBEDDINGS, ignore_errors=True)
    return judged


def earlier(
    folder: Path,
    asked: Mapping[str, Any],
    with_baselines: bool,
    known: dict[str, dict[str, Results]],
) -> Evaluation:
    """The evaluation that a folder holds, if it is the one that is asked for."""
    if not evaluation.is_evaluation(folder):
        raise InputError(f"{folder}: is there and no evaluation; choose another --to")
    found = evaluation.read(folder)
    other = [name for name, value in asked.items() if found.meta.get(name) != value]
    if with_baselines and not found.baselines:
        other.append("baselines")
    if other:
        raise InputError(
            f"{folder}: holds an evaluation with other {', '.join(other)}; choose another --to, or "
            "remove it"
        )
    notice(f"{folder}: has been evaluated already")
    if found.meta.get("base"):
        known[found.meta["base"]] = found.baselines
    return found


def embed(
    encoder: Encoder, weights: str, suite: Suite, options: Options, label: str
) -> dict[str, Embeddings]:
    """A suite's embeddings; those of an interrupted evaluation are found by what they are of."""
    of = digest(weights, encoder.pooling, encoder.max_length, encoder.width, suite.questions)
    folder = options.to / EMBEDDINGS / of[:16]
    encoder.to(accelerator())
    asked = {task.name: task.texts for task in suite.tasks}
    return embed_all(encoder, asked, options.batch_size, folder, label)


def base_of(model: Model, encoder: Encoder, weights: str, suite: Suite, dims: Sequence[int]) -> str:
    """A key of the encoder whose baselines are a model's: a run's untrained one, else its own.

    Raises InputError where a run's untrained encoder is not to be had any more.
    """
    if model.config is None:
        return digest(weights, encoder.pooling, encoder.max_length, dims, suite.questions)
    begun = model.config.encoder
    settings = [begun.pooling, begun.max_length, begun.projection]
    try:
        return digest(weights_hash(begun.name), settings, dims, suite.questions)
    except InputError as error:
        raise InputError(
            f"{model.given}: what it was before training, for the baselines: {error}; or evaluate "
            "it with --no-baselines"
        ) from error


def measure_baselines(
    model: Model, own: Mapping[str, Embeddings], suite: Suite, dims: Sequence[int], options: Options
) -> dict[str, Results]:
    """What needs no training: of a run's untrained encoder, cut as it is; of any, turned."""
    found: dict[str, Results] = {}
    if model.config is not None:
        encoder, weights = untrained(model.config), weights_hash(model.config.encoder.name)
        own = embed(encoder, weights, suite, options, f"encoding {model.name}, untrained")
        found[RAW] = score_tasks(suite.tasks, own, dims)
    with bar("scoring baselines", 2) as advance:
        for name, results in baselines(suite.tasks, own, dims):
            found[name] = results
            advance(1)
    return found
