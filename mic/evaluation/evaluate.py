"""Evaluate models by a suite of tasks: one encoding, every width, and the baselines."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.schema_data import TasksConfig
from mic.console import bar, notice
from mic.encoder.embedding_file import Embeddings
from mic.encoder.encoder import Encoder, encoder_fingerprint
from mic.errors import InputError
from mic.evaluation import encoding, geometry
from mic.evaluation.baselines import ROTATIONS, fit_baseline_pca, score_baselines, training_texts
from mic.evaluation.models import (
    Model,
    evaluation_widths,
    load_trained_encoder,
    load_untrained_encoder,
    seed_group_key,
    trained_nested,
    weights_hash,
)
from mic.evaluation.results import Evaluation, is_evaluation, read_evaluation, write_evaluation
from mic.evaluation.scoring import RAW, Results, score_tasks
from mic.evaluation.tasks.tasks import Task, TaskScores, build_tasks, fingerprints
from mic.nested import check_dims
from mic.tracking.reader import OWN
from mic.tracking.run_directory import git_commit, package_versions


class Suite(NamedTuple):
    """The tasks, the hashes of their files (`data`), and a hash of each task (`questions`)."""

    name: str
    tasks: list[Task]
    data: dict[str, str]
    questions: dict[str, str]
    sample: geometry.Sample  # the texts whose geometry is measured


class Baselines(NamedTuple):
    """The scores and the geometry of an encoder's baselines, by method."""

    results: dict[str, Results]
    geometry: dict[str, TaskScores]


class Options(NamedTuple):
    """How to evaluate; without `dims` at a model's default widths, without `tasks` by all tasks."""

    to: Path
    dims: Sequence[int] = ()
    batch_size: int = 64
    baselines: bool = True
    tasks: Sequence[str] = ()
    trust_remote_code: bool = False


class RequiredEmbeddings(NamedTuple):
    """The keys of the encodings that a model and its baselines need, and of the baselines."""

    model: str
    baselines: str | None
    untrained: str | None


def build_suite(name: str, config: TasksConfig) -> Suite:
    tasks, data = build_tasks(config), fingerprints(config)
    questions = {}
    for task in tasks:
        files = [sha for source, sha in data.items() if source.split("/")[0] == task.name]
        questions[task.name] = json_hash(files, task.headline, task.texts)
    return Suite(name, tasks, data, questions, geometry.sample_texts(tasks))


def json_hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()


def evaluate_models(models: Sequence[Model], suite: Suite, options: Options) -> list[Evaluation]:
    """Evaluate models one after the other; models with one backbone share its encoding.

    An encoding is removed when no later model needs it. Raises InputError as `evaluate_model` does.
    """
    ahead = required_embeddings(models[1:], suite, options)
    known: dict[str, Baselines] = {}
    return [
        evaluate_model(model, suite, options, known, ahead[position:])
        for position, model in enumerate(models)
    ]


def required_embeddings(
    models: Sequence[Model], suite: Suite, options: Options
) -> list[RequiredEmbeddings | None]:
    """What each model needs; None for a model that was evaluated before."""
    required: list[RequiredEmbeddings | None] = []
    untrained: dict[str, str] = {}
    for model in models:
        if (options.to / model.name).exists():
            required.append(None)
            continue
        encoder = load_trained_encoder(model)
        key, baselines = encoding.backbone_key(encoder, json_hash(suite.questions)), None
        if options.baselines:
            dims = check_dims(evaluation_widths(model, encoder.width, options.dims), encoder.width)
            baselines = baseline_key(model, encoder, suite, list(dims))
            if baselines not in untrained and model.config is not None:
                untrained[baselines] = encoding.backbone_key(
                    load_untrained_encoder(model.config), json_hash(suite.questions)
                )
        required.append(
            RequiredEmbeddings(key, baselines, untrained.get(baselines, key) if baselines else None)
        )
    return required


def still_needed(ahead: Sequence[RequiredEmbeddings | None], known: Collection[str]) -> set[str]:
    """The keys of the encodings that models need, whose baselines may be known already."""
    keys = {needs.model for needs in ahead if needs}
    return keys | {
        needs.untrained
        for needs in ahead
        if needs and needs.untrained and needs.baselines not in known
    }


def evaluate_model(
    model: Model,
    suite: Suite,
    options: Options,
    known: dict[str, Baselines],
    ahead: Sequence[RequiredEmbeddings | None] = (),
) -> Evaluation:
    """Evaluate a model and write TO/NAME; or read it, where an earlier call evaluated the same.

    `known` has the baselines of encoders that were measured before, and gets this model's. The
    encoding is removed afterwards, unless a model `ahead` needs it.

    Raises InputError for impossible widths, and where TO/NAME holds something else.
    """
    weights, encoder = weights_hash(model.given), load_trained_encoder(model)
    dims = list(check_dims(evaluation_widths(model, encoder.width, options.dims), encoder.width))
    expected = {"weights": weights, "dims": dims, "tasks": suite.questions}
    folder = options.to / model.name
    if folder.exists():
        return read_earlier(folder, expected, options.baselines, known)
    baselines_key = baseline_key(model, encoder, suite, dims) if options.baselines else None
    start = time.monotonic()
    embeddings = embed_suite(encoder, suite, options, f"encoding {model.name}")
    encoded = time.monotonic()
    with bar(f"scoring {model.name}", len(suite.tasks)) as advance:
        task_results = {}
        for task in suite.tasks:
            task_results[task.name] = task.evaluate(embeddings[task.name], dims)
            advance(1)
    scored = time.monotonic()
    spread = {
        OWN: geometry.geometry_by_width(geometry.suite_moment(embeddings, suite.sample), dims)
    }
    measured = time.monotonic()
    if baselines_key is not None and baselines_key not in known:
        known[baselines_key] = measure_baselines(model, embeddings, suite, dims, options)
    before = known[baselines_key] if baselines_key is not None else Baselines({}, {})
    fitted = training_texts(suite.tasks)
    meta = {
        **expected,
        "model": model.given,
        "width": encoder.width,
        "nested": trained_nested(model, encoder.width),
        "seed": model.config.seed if model.config else None,
        "group": seed_group_key(model, weights),
        "base": baselines_key,
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
        "versions": package_versions(),
        "git_commit": git_commit(),
    }
    evaluated = Evaluation(
        model.name,
        {name: result.scores for name, result in task_results.items()},
        before.results,
        {name: result.items for name, result in task_results.items() if result.items is not None},
        meta,
        {**before.geometry, **spread},
    )
    write_evaluation(folder, evaluated)
    encoding.drop_encodings(options.to, still_needed(ahead, known))
    return evaluated


def read_earlier(
    folder: Path,
    expected: Mapping[str, Any],
    with_baselines: bool,
    known: dict[str, Baselines],
) -> Evaluation:
    """The evaluation that a folder holds, if it is the one that is asked for."""
    if not is_evaluation(folder):
        raise InputError(f"{folder}: exists and is no evaluation; choose another --to")
    evaluated = read_evaluation(folder)
    other = [name for name, value in expected.items() if evaluated.meta.get(name) != value]
    if with_baselines and not evaluated.baselines:
        other.append("baselines")
    if other:
        raise InputError(
            f"{folder}: holds an evaluation with other {', '.join(other)}; choose another --to, or "
            "remove it"
        )
    notice(f"{folder}: has been evaluated already")
    if evaluated.meta.get("base") and evaluated.geometry:  # an older one has none
        of = {name: scores for name, scores in evaluated.geometry.items() if name != OWN}
        known[evaluated.meta["base"]] = Baselines(evaluated.baselines, of)
    return evaluated


def embed_suite(
    encoder: Encoder, suite: Suite, options: Options, label: str
) -> dict[str, Embeddings]:
    """A suite's embeddings; those of an interrupted evaluation are continued, by their key."""
    key = encoding.backbone_key(encoder, json_hash(suite.questions))
    texts = {task.name: task.texts for task in suite.tasks}
    folder = options.to / encoding.ENCODINGS / key
    return encoding.embed_with_head(encoder, texts, options.batch_size, folder, label)


def baseline_key(model: Model, encoder: Encoder, suite: Suite, dims: Sequence[int]) -> str:
    """A key of the encoder whose baselines are shown: a run's untrained one, else the model's.

    Raises InputError where a run's untrained encoder is gone.
    """
    if model.config is None:
        return json_hash(encoder_fingerprint(encoder), dims, suite.questions)
    begun = model.config.encoder
    settings = [begun.pooling, begun.eval_max_length, begun.projection]
    try:
        return json_hash(weights_hash(begun.name), settings, dims, suite.questions)
    except InputError as error:
        raise InputError(
            f"{model.given}: its encoder before training, for the baselines: {error}; or "
            "evaluate it with --no-baselines"
        ) from error


def measure_baselines(
    model: Model,
    embeddings: Mapping[str, Embeddings],
    suite: Suite,
    dims: Sequence[int],
    options: Options,
) -> Baselines:
    """Score a model's baselines: raw truncation of a run's untrained encoder, PCA and rotations."""
    baseline_scores: dict[str, Results] = {}
    baseline_spread: dict[str, TaskScores] = {}
    if model.config is not None:
        encoder = load_untrained_encoder(model.config)
        embeddings = embed_suite(encoder, suite, options, f"encoding {model.name}, untrained")
        baseline_scores[RAW] = score_tasks(suite.tasks, embeddings, dims)
    moment, project = (
        geometry.suite_moment(embeddings, suite.sample),
        fit_baseline_pca(suite.tasks, embeddings),
    )
    if model.config is not None:
        baseline_spread[RAW] = geometry.geometry_by_width(moment, dims)
    baseline_spread |= geometry.baseline_geometry(embeddings, moment, project, suite.sample, dims)
    with bar("scoring baselines", 2) as advance:
        for name, results in score_baselines(suite.tasks, embeddings, project, dims):
            baseline_scores[name] = results
            advance(1)
    return Baselines(baseline_scores, baseline_spread)
