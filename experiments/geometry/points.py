"""What was evaluated, as points: quality and geometry of one model at one width.

A setting is a folder that `mic evaluate --to` wrote: models of one backbone, and one suite.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from mic.errors import InputError
from mic.evaluation.results import Evaluation, is_evaluation, read_evaluation
from mic.evaluation.run import evaluations_in
from mic.evaluation.scoring import Results
from mic.evaluation.significance import (
    ALL,
    EvaluationGroup,
    compare_methods,
    group_evaluations,
    mean_of,
)
from mic.evaluation.tasks.tasks import TaskScores
from mic.tracking.reader import OWN, parse_scores

MEAN = "all tasks"
KINDS = {  # of a task, by its headline
    "spearman": "STS",
    "accuracy": "classification",
    "ndcg@10": "retrieval",
    "ap": "pair classification",
    "v_measure": "clustering",
}
RANK, EXCESS = "effective rank / d", "correlation excess"
PREDICTORS = (RANK, EXCESS)
SAME = 1e-6  # points of quality; baselines that agree are one


class Point(NamedTuple):
    """One model, or one baseline, at one width; `quality` by kind of task, in per cent.

    `trained` is what a run of mic made, whose seed is known.
    """

    setting: str
    model: str
    method: str
    seed: int | None
    trained: bool
    width: int
    quality: dict[str, float]
    predictors: dict[str, float]


class Setting(NamedTuple):
    """Points of one folder, and its kinds of tasks with their numbers, all tasks first."""

    name: str
    tasks: dict[str, int]
    points: list[Point]

    @property
    def widths(self) -> list[int]:
        return sorted({point.width for point in self.points})

    def at(self, width: int) -> list[Point]:
        return [point for point in self.points if point.width == width]


class Scored(NamedTuple):
    """A model or a baseline with what is known of it."""

    model: str
    method: str
    seed: int | None
    results: Results
    geometry: TaskScores


def read_settings(folders: Sequence[Path]) -> list[Setting]:
    """Every folder's points at the widths, below the full one, that all its models have.

    Raises InputError for a folder named twice, without evaluations, or without their geometry.
    """
    places = [folder.resolve() for folder in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{folder}: named {places.count(place)} times; once is enough")
    names = [place.name for place in places]
    distinct = [
        place.name if names.count(place.name) == 1 else f"{place.parent.name}/{place.name}"
        for place in places
    ]
    return [read_setting(*one) for one in zip(distinct, folders, strict=True)]


def read_setting(name: str, folder: Path) -> Setting:
    if is_evaluation(folder):
        raise InputError(f"{folder}: is one model's evaluation; name the folder that it lies in")
    found = [read_evaluation(one) for one in evaluations_in(folder) if one.name[0] != "."]
    if not found:
        raise InputError(f"{folder}: holds no evaluation; name one that `mic evaluate --to` wrote")
    for one in found:
        if not geometry_of(one):
            raise InputError(
                f"{folder / one.name}: says nothing of geometry, as an older mic wrote it; remove "
                "it and evaluate anew"
            )
    groups = without_shared(group_evaluations(found))
    shown = compare_methods(groups, baselines=False).headlines  # of the tasks that all have
    headlines = {task: metric for task, metric in shown.items() if task != ALL}
    tasks = kinds(headlines)
    widths = common_widths(found, headlines)
    if not widths:
        raise InputError(
            f"{folder}: its models share no width below their full one; evaluate all at the same "
            "--dims"
        )
    points = [
        Point(
            name,
            one.model,
            one.method,
            one.seed,
            one.seed is not None,
            width,
            {kind: mean_of(one.results, of)[width] for kind, of in tasks.items()},
            predictors(folder / one.model, one.geometry, width),
        )
        for one in [*untrained(groups), *models(groups)]
        for width in widths
    ]
    return Setting(name, {kind: len(of) for kind, of in tasks.items()}, points)


def kinds(headlines: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The tasks with their headlines, all of them, then kind by kind where there are several."""
    found: dict[str, dict[str, str]] = {}
    for task, metric in headlines.items():
        found.setdefault(KINDS.get(metric, metric), {})[task] = metric
    return {MEAN: dict(headlines), **found} if len(found) > 1 else {MEAN: dict(headlines)}


def common_widths(found: Sequence[Evaluation], headlines: Mapping[str, str]) -> list[int]:
    """The widths that all models have, of all tasks, less full ones."""
    columns = [mean_of(one.results, headlines).keys() for one in found]
    full = min(one.meta["width"] for one in found)
    return sorted(width for width in set.intersection(*map(set, columns)) if width < full)


def without_shared(groups: Sequence[EvaluationGroup]) -> list[EvaluationGroup]:
    """Groups of runs without the words that all their names begin with, as that of the backbone.

    So a method has one name, and one colour, in all settings.
    """
    runs = [group for group in groups if group.members[0].meta["seed"] is not None]
    if len(runs) < 2:
        return list(groups)
    words = [group.label.split("-")[:-1] for group in runs]
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*words, strict=False))))
    return [
        group._replace(label="-".join(group.label.split("-")[shared:])) if group in runs else group
        for group in groups
    ]


def models(groups: Sequence[EvaluationGroup]) -> Iterator[Scored]:
    for group in groups:
        for one in group.members:
            known = geometry_of(one).get(OWN, {})
            yield Scored(one.name, group.label, one.meta["seed"], one.results, known)


def untrained(groups: Sequence[EvaluationGroup]) -> list[Scored]:
    """The baselines of every base once.

    One that scores as an earlier one, or as a model that was evaluated as it is, is no other point.
    """
    bases: dict[Any, tuple[Evaluation, str]] = {}
    for group in groups:
        for one in group.members:
            if one.baselines:
                bases.setdefault(one.meta["base"], (one, group.label))
    as_they_are = [one for one in models(groups) if one.seed is None]
    found: list[Scored] = []
    for one, label in bases.values():
        for name, results in one.baselines.items():
            if any(alike(results, other.results) for other in [*as_they_are, *found]):
                continue
            method = f"{name} ({label})" if name in {other.model for other in found} else name
            known = geometry_of(one).get(name, {})
            found.append(Scored(name, method, None, results, known))
    return found


def alike(one: Results, other: Results) -> bool:
    """Whether two have the same scores, wherever both have some."""
    return all(
        abs(value - other[task][metric][width]) <= SAME
        for task, metrics in one.items()
        for metric, values in metrics.items()
        for width, value in values.items()
        if width in other.get(task, {}).get(metric, {})
    )


def geometry_of(one: Evaluation) -> dict[str, TaskScores]:
    """What is known of a model's geometry and its baselines': method -> measure -> width."""
    return getattr(one, "geometry", None) or parse_scores(one.meta.get("geometry", {}))


def predictors(of: Path, geometry: TaskScores, width: int) -> dict[str, float]:
    """The predictors at a width; NaN where the embeddings had none, as those of one point."""
    try:
        rank, excess = geometry["effective_rank"][width], geometry["correlation_excess"][width]
    except KeyError:
        raise InputError(
            f"{of}: says nothing of its geometry at {width}; remove it and evaluate anew"
        ) from None
    return {RANK: rank / width, EXCESS: excess}
