"""Judge one model by a suite: one encoding, every width, the baselines beside it."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.schema_data import TasksConfig
from mic.console import bar, notice
from mic.encoder.embedding_file import Embeddings
from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.evaluation import encoding, geometry
from mic.evaluation import results as evaluation
from mic.evaluation.baselines import ROTATIONS, baselines, pca, training_texts
from mic.evaluation.models import Model, group_of, trained, untrained, weights_hash, widths
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import RAW, Results, score_tasks
from mic.evaluation.tasks.tasks import Scores, Task, build_tasks, fingerprints
from mic.evaluation.truncation import trained_nested
from mic.nested import check_dims
from mic.tracking.reader import OWN
from mic.tracking.run_directory import git_commit, versions


class Suite(NamedTuple):
    """The tasks, the hashes of their files, and a hash of each task: equal for equal questions."""

    name: str
    tasks: list[Task]
    data: dict[str, str]
    questions: dict[str, str]
    sample: geometry.Sample  # the texts whose geometry is measured


class Baselines(NamedTuple):
    """What an encoder is worth without training, by method, and how it fills its space."""

    results: dict[str, Results]
    geometry: dict[str, Scores]


class Options(NamedTuple):
    """How to evaluate; without `dims` a model is judged at its own, without `tasks` by all."""

    to: Path
    dims: Sequence[int] = ()
    batch_size: int = 64
    baselines: bool = True
    tasks: Sequence[str] = ()


class Needs(NamedTuple):
    """The names of what is encoded for a model, and for its baselines, which are of `base`."""

    own: str
    base: str | None
    begun: str | None


def build_suite(name: str, config: TasksConfig) -> Suite:
    tasks, data = build_tasks(config), fingerprints(config)
    questions = {}
    for task in tasks:
        files = [one for source, one in data.items() if source.split("/")[0] == task.name]
        questions[task.name] = digest(files, task.headline, task.texts)
    return Suite(name, tasks, data, questions, geometry.sample(tasks))


def digest(*told: Any) -> str:
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


def evaluate_models(models: Sequence[Model], suite: Suite, options: Options) -> list[Evaluation]:
    """Judge models one after the other, each from what its backbone's texts are encoded to once.

    That is kept as long as one that follows needs it. Raises InputError as `evaluate_model` does.
    """
    ahead = needed(models[1:], suite, options)
    known: dict[str, Baselines] = {}
    return [
        evaluate_model(model, suite, options, known, ahead[at:]) for at, model in enumerate(models)
    ]


def needed(models: Sequence[Model], suite: Suite, options: Options) -> list[Needs | None]:
    """What each model needs; nothing where it was judged before."""
    found: list[Needs | None] = []
    begun: dict[str, str] = {}
    for model in models:
        if (options.to / model.name).exists():
            found.append(None)
            continue
        encoder = trained(model)
        own, base = encoding.backbone_key(encoder, digest(suite.questions)), None
        if options.baselines:
            dims = check_dims(widths(model, encoder.width, options.dims), encoder.width)
            base = base_of(model, encoder, weights_hash(model.given), suite, list(dims))
            if base not in begun and model.config is not None:
                begun[base] = encoding.backbone_key(
                    untrained(model.config), digest(suite.questions)
                )
        found.append(Needs(own, base, begun.get(base, own) if base else None))
    return found


def still_needed(ahead: Sequence[Needs | None], known: Collection[str]) -> set[str]:
    """The names of what models need whose baselines, but for those known, are to be measured."""
    own = {one.own for one in ahead if one}
    return own | {one.begun for one in ahead if one and one.begun and one.base not in known}


def evaluate_model(
    model: Model,
    suite: Suite,
    options: Options,
    known: dict[str, Baselines],
    ahead: Sequence[Needs | None] = (),
) -> Evaluation:
    """Judge a model and write TO/NAME; or read it, where an earlier call judged the same.

    `known` has the baselines of encoders that were measured before, and gets this one's. What is
    encoded is removed once it is judged, but for what those `ahead` need.

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
    own = embed(encoder, suite, options, f"encoding {model.name}")
    encoded = time.monotonic()
    with bar(f"scoring {model.name}", len(suite.tasks)) as advance:
        found = {}
        for task in suite.tasks:
            found[task.name] = task.judge(own[task.name], dims)
            advance(1)
    scored = time.monotonic()
    spread = {OWN: geometry.measures(geometry.moment(own, suite.sample), dims)}
    measured = time.monotonic()
    if base is not None and base not in known:
        known[base] = measure_baselines(model, own, suite, dims, options)
    before = known[base] if base is not None else Baselines({}, {})
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
            "geometry": measured - scored,
            "baselines": time.monotonic() - measured,
        },
        "data": suite.data,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    judged = Evaluation(
        model.name,
        {name: one.scores for name, one in found.items()},
        before.results,
        {name: one.items for name, one in found.items() if one.items is not None},
        meta,
        {**before.geometry, **spread},
    )
    evaluation.write(folder, judged)
    encoding.drop_encodings(options.to, still_needed(ahead, known))
    return judged


def earlier(
    folder: Path,
    asked: Mapping[str, Any],
    with_baselines: bool,
    known: dict[str, Baselines],
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
    if found.meta.get("base") and found.geometry:  # an older one has none
        of = {name: one for name, one in found.geometry.items() if name != OWN}
        known[found.meta["base"]] = Baselines(found.baselines, of)
    return found


def embed(encoder: Encoder, suite: Suite, options: Options, label: str) -> dict[str, Embeddings]:
    """A suite's embeddings; those of an interrupted evaluation are found by what they are of."""
    key = encoding.backbone_key(encoder, digest(suite.questions))
    asked = {task.name: task.texts for task in suite.tasks}
    folder = options.to / encoding.ENCODINGS / key
    return encoding.embed_with_head(encoder, asked, options.batch_size, folder, label)


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
) -> Baselines:
    """What needs no training: of a run's untrained encoder, cut as it is; of any, turned."""
    found: dict[str, Results] = {}
    spread: dict[str, Scores] = {}
    if model.config is not None:
        encoder = untrained(model.config)
        own = embed(encoder, suite, options, f"encoding {model.name}, untrained")
        found[RAW] = score_tasks(suite.tasks, own, dims)
    moment, project = geometry.moment(own, suite.sample), pca(suite.tasks, own)
    if model.config is not None:
        spread[RAW] = geometry.measures(moment, dims)
    spread |= geometry.of_baselines(own, moment, project, suite.sample, dims)
    with bar("scoring baselines", 2) as advance:
        for name, results in baselines(suite.tasks, own, project, dims):
            found[name] = results
            advance(1)
    return Baselines(found, spread)
