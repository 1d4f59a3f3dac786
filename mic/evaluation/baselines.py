"""Score the baselines that need no training: raw truncation, PCA and random rotation."""

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


class PCATexts(NamedTuple):
    """The texts that a PCA is fitted on, and the tasks that they are the training texts of."""

    texts: list[str]
    tasks: list[str]


def training_texts(tasks: Sequence[Task]) -> PCATexts:
    """The suite's training texts: what classifiers and thresholds are fitted on.

    Without every text that a task evaluates; at most 10,000 of them, drawn with a fixed seed.
    """
    evaluated = {text for task in tasks for text in task.evaluated}
    texts = sorted({text for task in tasks for text in task.fitted} - evaluated)
    chosen = random.Random(SEED).sample(texts, min(PCA_TEXTS, len(texts)))
    return PCATexts(chosen, [task.name for task in tasks if task.fitted])


def fit_baseline_pca(tasks: Sequence[Task], embeddings: Mapping[str, Vectors]) -> Change | None:
    """A PCA of a model's embeddings of the training texts.

    None where there are no more training texts than dimensions.
    """
    chosen = set(training_texts(tasks).texts)
    rows: dict[str, Tensor] = {}
    for task in tasks:
        chosen_rows = [number for number, text in enumerate(task.texts) if text in chosen]
        texts = (task.texts[number] for number in chosen_rows)
        rows |= zip(texts, embeddings[task.name][chosen_rows], strict=True)
    full = next(iter(embeddings.values())).shape[1]
    if len(rows) <= full:
        return None
    return fit_pca(torch.stack([rows[text] for text in sorted(rows)]))


def score_baselines(
    tasks: Sequence[Task],
    embeddings: Mapping[str, Vectors],
    project: Change | None,
    dims: Sequence[int],
) -> Iterator[tuple[str, Results]]:
    """Yield the scores of PCA, if `project` is given, and of random rotations of embeddings."""
    full = next(iter(embeddings.values())).shape[1]
    if project is not None:
        projected = {name: apply_change(x, project) for name, x in embeddings.items()}
        yield PCA, score_tasks(tasks, projected, dims)
    rotated_scores = []
    for seed in range(ROTATIONS):
        turned = partial(torch.matmul, other=rotation(full, seed))
        rotated = {name: apply_change(x, turned) for name, x in embeddings.items()}
        rotated_scores.append(score_tasks(tasks, rotated, dims))
    yield ROTATION, mean_results(rotated_scores)


def rotation(full: int, seed: int) -> Float[Tensor, "full full"]:
    """A rotation drawn evenly from all of them: Q of a Gaussian matrix, R's diagonal positive."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(full, full, generator=generator, dtype=torch.double)
    q, r = torch.linalg.qr(gaussian)
    turned: Tensor = q * r.diagonal().sign()
    return turned.float()


def mean_results(results: Sequence[Results]) -> Results:
    """The means of results of the same tasks, metrics and widths."""
    return {
        task: {
            metric: {
                dim: sum(scores[task][metric][dim] for scores in results) / len(results)
                for dim in values
            }
            for metric, values in metrics.items()
        }
        for task, metrics in results[0].items()
    }
