"""How the embeddings of a suite's texts fill their space at every width, from one moment."""

import random
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mic.encoder.embedding_file import Change, Vectors, apply_change
from mic.evaluation.baselines import ROTATION, ROTATIONS, mean, rotation
from mic.evaluation.scoring import PCA
from mic.evaluation.tasks.tasks import Scores, Task
from mic.metrics.geometry import correlation_summary, effective_rank
from mic.metrics.moments import Moment, Moments
from mic.nested import unit

TEXTS = 20_000
SEED = 42
BLOCK = 4096  # rows at a time
RANK, EXCESS = "effective_rank", "correlation_excess"
Sample = Mapping[str, Sequence[int]]  # task -> which of its texts


def sample(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """The texts that are measured: each once, at most 20,000 of them, chosen by a fixed seed."""
    first: dict[str, tuple[str, int]] = {}
    for task in tasks:
        for at, text in enumerate(task.texts):
            first.setdefault(text, (task.name, at))
    found: dict[str, list[int]] = {task.name: [] for task in tasks}
    for text in random.Random(SEED).sample(sorted(first), min(TEXTS, len(first))):
        name, at = first[text]
        found[name].append(at)
    return {name: sorted(rows) for name, rows in found.items()}


def moment(embeddings: Mapping[str, Vectors], rows: Sample) -> Moment:
    """The second moment of these rows, scaled to length 1 at the full width."""
    moments = Moments(next(iter(embeddings.values())).shape[1])
    for task, wanted in rows.items():
        for start in range(0, len(wanted), BLOCK):
            some = embeddings[task][wanted[start : start + BLOCK]]
            moments.update(unit(some.double()))
    return moments.compute()


def turned(of: Moment, turn: Float[Tensor, "dim dim"]) -> Moment:
    """The moment of rows that are rotated: `R^T C R`, without a second look at them."""
    whole = torch.eye(1 + of.width, dtype=torch.double)
    whole[1:, 1:] = turn
    return Moment(whole.T @ of.total @ whole, of.width)


def measures(of: Moment, dims: Sequence[int]) -> Scores:
    """Effective rank of every prefix, and what its correlations with the residual have in excess.

    The excess is the mean squared correlation less that of independent coordinates; the full width
    has no residual.
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


def of_baselines(
    embeddings: Mapping[str, Vectors],
    found: Moment,
    project: Change | None,
    rows: Sample,
    dims: Sequence[int],
) -> dict[str, Scores]:
    """The same of a PCA, if there is one, and in the mean of random rotations of embeddings.

    `found` is the embeddings' own moment. A projection centres before rows are scaled to length 1,
    so that it needs them once more.
    """
    geometry = {}
    if project is not None:
        projected = {name: apply_change(x, project) for name, x in embeddings.items()}
        geometry[PCA] = measures(moment(projected, rows), dims)
    turns = [rotation(found.width, seed) for seed in range(ROTATIONS)]
    each = [{ROTATION: measures(turned(found, turn), dims)} for turn in turns]
    return {**geometry, **mean(each)}
