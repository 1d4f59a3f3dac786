"""Measure the geometry of a suite's embeddings at every width, and show it as tables."""

import random
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mic.encoder.embedding_file import Change, Vectors, apply_change
from mic.evaluation.baselines import ROTATION, ROTATIONS, mean_results, rotation
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import PCA
from mic.evaluation.significance import EvaluationGroup, bases_of
from mic.evaluation.tasks.tasks import Task, TaskScores
from mic.metrics.geometry import correlation_summary, effective_rank
from mic.metrics.moments import Moment, Moments
from mic.nested import unit
from mic.report.tables import Table
from mic.tracking.reader import OWN
from mic.tracking.seed_groups import Interval, interval

TEXTS = 20_000
SEED = 42
BLOCK = 4096  # rows at a time
RANK, EXCESS = "effective_rank", "correlation_excess"
Sample = Mapping[str, Sequence[int]]  # task -> which of its texts


def sample_texts(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """The texts to measure, as rows by task: each once, at most 20,000, drawn with a fixed seed."""
    first: dict[str, tuple[str, int]] = {}
    for task in tasks:
        for number, text in enumerate(task.texts):
            first.setdefault(text, (task.name, number))
    rows: dict[str, list[int]] = {task.name: [] for task in tasks}
    for text in random.Random(SEED).sample(sorted(first), min(TEXTS, len(first))):
        name, number = first[text]
        rows[name].append(number)
    return {name: sorted(rows) for name, rows in rows.items()}


def suite_moment(embeddings: Mapping[str, Vectors], rows: Sample) -> Moment:
    """The second moment of these rows, scaled to length 1 at the full width."""
    moments = Moments(next(iter(embeddings.values())).shape[1])
    for task, wanted in rows.items():
        for start in range(0, len(wanted), BLOCK):
            some = embeddings[task][wanted[start : start + BLOCK]]
            moments.update(unit(some.double()))
    return moments.compute()


def rotated_moment(of: Moment, turn: Float[Tensor, "dim dim"]) -> Moment:
    """The moment of rotated rows, `R^T C R`, computed without the rows."""
    whole = torch.eye(1 + of.width, dtype=torch.double)
    whole[1:, 1:] = turn
    return Moment(whole.T @ of.total @ whole, of.width)


def geometry_by_width(of: Moment, dims: Sequence[int]) -> TaskScores:
    """Effective rank of every prefix, and the excess of its correlations with the residual.

    The excess is the mean squared correlation minus that of independent coordinates; the full
    width has no residual.
    """
    covariance, rows = of.covariance, of.rows
    return {
        RANK: {dim: float(effective_rank(covariance[:dim, :dim])) for dim in dims},
        EXCESS: {
            dim: correlation_summary(covariance, dim, rows)["excess"]
            for dim in dims
            if dim < of.width
        },
    }


def baseline_geometry(
    embeddings: Mapping[str, Vectors],
    full_moment: Moment,
    project: Change | None,
    rows: Sample,
    dims: Sequence[int],
) -> dict[str, TaskScores]:
    """Geometry of a PCA, if `project` is given, and the mean over random rotations.

    `full_moment` is that of the embeddings. A projection centres rows before they are scaled to
    length 1, so that it reads them again.
    """
    geometry = {}
    if project is not None:
        projected = {name: apply_change(x, project) for name, x in embeddings.items()}
        geometry[PCA] = geometry_by_width(suite_moment(projected, rows), dims)
    turns = [rotation(full_moment.width, seed) for seed in range(ROTATIONS)]
    each = [
        {ROTATION: geometry_by_width(rotated_moment(full_moment, turn), dims)} for turn in turns
    ]
    return {**geometry, **mean_results(each)}


SHOWN = {RANK: ("effective rank", 1, 1), EXCESS: ("correlation excess x 1000", 1000, 2)}
IntervalRows = dict[str, dict[int, Interval]]  # label -> width -> over seeds


def geometry_tables(groups: Sequence[EvaluationGroup], baselines: bool) -> list[Table]:
    """A table a measure; none where no evaluation has its geometry, as in older ones."""
    tables = []
    for measure, (title, scale, digits) in SHOWN.items():
        rows = baseline_rows(groups, measure, scale) if baselines else {}
        for group in groups:
            if over := geometry_over_seeds(group.members, OWN, measure, scale):
                rows[group.label] = over
        dims = sorted({dim for row in rows.values() for dim in row})
        cells = [
            [label, *(row[dim].shown(digits) if dim in row else "-" for dim in dims)]
            for label, row in rows.items()
        ]
        if dims:
            tables.append(Table(f"geometry: {title}", ["", *map(str, dims)], cells))
    return tables


def baseline_rows(groups: Sequence[EvaluationGroup], measure: str, scale: float) -> IntervalRows:
    return {
        f"{name}{of}": geometry_over_seeds(starts, name, measure, scale)
        for starts, of in bases_of(groups)
        for name in starts[0].baselines
        if all(name in start.geometry for start in starts)
    }


def geometry_over_seeds(
    members: Sequence[Evaluation], method: str, measure: str, scale: float
) -> dict[int, Interval]:
    """Mean and interval over seeds; nothing unless all of them were measured."""
    if not all(method in values.geometry for values in members):
        return {}
    members_values = [values.geometry[method][measure] for values in members]
    return {
        dim: interval([scale * values[dim] for values in members_values])
        for dim in members_values[0]
        if all(dim in values for values in members_values)
    }


def explain_geometry(groups: Sequence[EvaluationGroup]) -> str:
    """Say which texts the geometry is of, and what its two measures are."""
    known = [
        member.meta["texts"] for group in groups for member in group.members if member.geometry
    ]
    texts = min(TEXTS, *known)
    return (
        f"Geometry is of unit vectors of {texts:,} of the suite's texts: the effective rank of the "
        "first dimensions, and the mean squared correlation of the first dimensions with the "
        "others, minus what is expected by chance."
    )
