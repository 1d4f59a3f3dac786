"""What needs no training: cut as it is, rotated by a PCA, or rotated at random."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mic.evaluate import PCA, Results, fit_pca, score_tasks
from mic.tasks import Task

ROTATION = "random rotation"
ROTATIONS = 3
PCA_TEXTS = 10_000
SEED = 42


class Fitted(NamedTuple):
    """The texts that a PCA is fitted on, and the tasks that they are the training texts of."""

    texts: list[str]
    tasks: list[str]


def training_texts(tasks: Sequence[Task]) -> Fitted:
    """The suite's training texts: what classifiers and thresholds are fitted on.

    Less every text that any task judges; at most 10,000 of them, chosen by a fixed seed.
    """
    judged = {text for task in tasks for text in task.judged}
    texts = sorted({text for task in tasks for text in task.fitted} - judged)
    chosen = random.Random(SEED).sample(texts, min(PCA_TEXTS, len(texts)))
    return Fitted(chosen, [task.name for task in tasks if task.fitted])


def baselines(
    tasks: Sequence[Task], embeddings: Mapping[str, Tensor], dims: Sequence[int]
) -> Iterator[tuple[str, Results]]:
    """PCA and random rotation of a model's embeddings, one after the other as they are scored.

    No PCA where fewer training texts than coordinates are there to fit it on.
    """
    chosen = set(training_texts(tasks).texts)
    rows = {
        text: row
        for task in tasks
        for text, row in zip(task.texts, embeddings[task.name], strict=True)
        if text in chosen
    }
    full = next(iter(embeddings.values())).shape[1]
    if len(rows) > full:
        project = fit_pca(torch.stack([rows[text] for text in sorted(rows)]))
        yield PCA, score_tasks(tasks, {name: project(x) for name, x in embeddings.items()}, dims)
    found = []
    for seed in range(ROTATIONS):
        turn = rotation(full, seed)
        found.append(score_tasks(tasks, {name: x @ turn for name, x in embeddings.items()}, dims))
    yield ROTATION, mean(found)


def rotation(full: int, seed: int) -> Float[Tensor, "full full"]:
    """A rotation drawn evenly from all of them: Q of a Gaussian matrix, R's diagonal positive."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(full, full, generator=generator, dtype=torch.double)
    q, r = torch.linalg.qr(gaussian)
    turned: Tensor = q * r.diagonal().sign()
    return turned.float()


def mean(found: Sequence[Results]) -> Results:
    """The means of results of the same tasks, metrics and widths."""
    return {
        task: {
            metric: {
                dim: sum(one[task][metric][dim] for one in found) / len(found) for dim in values
            }
            for metric, values in metrics.items()
        }
        for task, metrics in found[0].items()
    }
