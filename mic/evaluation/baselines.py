"""What needs no training: cut as it is, rotated by a PCA, or rotated at random."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mic.encoder.embedding_file import Change, Vectors, apply_change
from mic.evaluation.scoring import PCA, Results, fit_pca, score_tasks
from mic.evaluation.tasks.tasks import Task

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


def pca(tasks: Sequence[Task], embeddings: Mapping[str, Vectors]) -> Change | None:
    """A PCA of a model's embeddings of the training texts.

    None where there are fewer training texts than coordinates to fit it on.
    """
    chosen = set(training_texts(tasks).texts)
    rows: dict[str, Tensor] = {}
    for task in tasks:
        found_at = [at for at, text in enumerate(task.texts) if text in chosen]
        texts = (task.texts[at] for at in found_at)
        rows |= zip(texts, embeddings[task.name][found_at], strict=True)
    full = next(iter(embeddings.values())).shape[1]
    if len(rows) <= full:
        return None
    return fit_pca(torch.stack([rows[text] for text in sorted(rows)]))


def baselines(
    tasks: Sequence[Task],
    embeddings: Mapping[str, Vectors],
    project: Change | None,
    dims: Sequence[int],
) -> Iterator[tuple[str, Results]]:
    """PCA, if there is one, and random rotation of a model's embeddings, one after the other as
    they are scored."""
    full = next(iter(embeddings.values())).shape[1]
    if project is not None:
        projected = {name: apply_change(x, project) for name, x in embeddings.items()}
        yield PCA, score_tasks(tasks, projected, dims)
    found = []
    for seed in range(ROTATIONS):
        turned = partial(torch.matmul, other=rotation(full, seed))
        rotated = {name: apply_change(x, turned) for name, x in embeddings.items()}
        found.append(score_tasks(tasks, rotated, dims))
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
