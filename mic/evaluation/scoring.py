"""Score an encoder at every width from one encoding, and fit the PCA of its baselines."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mic.collectives import gather, rank, world_size
from mic.console import bar
from mic.encoder.embedding_file import Vectors
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.tasks.tasks import Task, TaskScores
from mic.metrics.geometry import covariance
from mic.nested import unit
from mic.report.tables import Table

RAW = "raw truncation"
PCA = "PCA"
ROUNDING = 1e-12  # a variance of rows of length 1 that fp32 rounding may be: deviation 1e-6
BLOCK = 32  # batches between two calls of `check`
Results = dict[str, TaskScores]  # task -> metric -> width -> value


def embed_tasks(
    encoder: Encoder,
    tasks: Sequence[Task],
    batch_size: int,
    label: str,
    check: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """The full embeddings of every task's texts, by the task's name, all in memory."""
    return {
        task.name: embeddings
        for task, embeddings in embed_each(encoder, tasks, batch_size, label, check)
    }


def embed_each(
    encoder: Encoder,
    tasks: Sequence[Task],
    batch_size: int,
    label: str,
    check: Callable[[], None] | None = None,
) -> Iterator[tuple[Task, Float[Tensor, "texts dim"]]]:
    """Yield the full embeddings of each task's texts; each rank encodes its share.

    `check` is called after every few batches, equally often on all ranks; it may raise to stop.

    Raises RunError when an embedding is not finite, as those of a diverged model are.
    """
    if not tasks:
        return
    shares = {task.name: rank_share(task.texts) for task in tasks}
    with bar(label, sum(map(len, shares.values()))) as advance:
        for task in tasks:
            rank_texts, blocks = shares[task.name], []
            block = BLOCK * batch_size if check else len(rank_texts)
            for start in range(0, len(rank_texts), block):
                texts = rank_texts[start : start + block]
                blocks.append(encoder.embed(texts, batch_size=batch_size, progress=advance))
                if check:
                    check()
            joined = from_all_ranks(torch.cat(blocks), encoder.device)
            embeddings = joined[: len(task.texts)]
            if not embeddings.isfinite().all():
                raise RunError(
                    f"{label}: embeddings of {task.name} are not finite; lower "
                    "trainer.learning_rate"
                )
            yield task, embeddings


def rank_share(texts: Sequence[str]) -> list[str]:
    """This rank's texts: every W-th, from its rank on, of W ranks.

    All ranks have equally many, if need be with the last text again, so that they do the same
    number of forward passes.
    """
    rank_texts = list(texts[rank() :: world_size()])
    return (
        rank_texts
        if len(rank_texts) == -(-len(texts) // world_size())
        else [*rank_texts, texts[-1]]
    )


def from_all_ranks(
    rows: Float[Tensor, "own dim"], device: torch.device
) -> Float[Tensor, "texts dim"]:
    """All ranks' rows in the texts' order, of which rank r embedded each W-th from the r-th on."""
    if world_size() == 1:
        return rows
    gathered = (
        gather(rows.to(device), [len(rows)] * world_size()).cpu().view(world_size(), *rows.shape)
    )
    return gathered.transpose(0, 1).reshape(-1, rows.shape[1])


def score_tasks(
    tasks: Sequence[Task], embeddings: Mapping[str, Vectors], dims: Sequence[int]
) -> Results:
    """Every metric of every task at every width."""
    return {task.name: task.score(embeddings[task.name], dims) for task in tasks}


def fit_pca(
    embeddings: Float[Tensor, "texts dim"],
) -> Callable[[Float[Tensor, "rows dim"]], Float[Tensor, "rows dim"]]:
    """Principal components of unit-length embeddings, the largest first, as a projection.

    The baseline that needs no training: cut its result to d for the best d-dimensional linear
    reconstruction of the embeddings it was fitted on. The result is as long, in the mean, as they
    were, so that a classifier with a penalty on its weights treats both alike.
    """
    rows = unit(embeddings)
    mean, directions = rows.mean(0), principal_directions(rows)
    length = embeddings.norm(dim=1).mean()
    return lambda others: length * (unit(others) - mean) @ directions


def principal_directions(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "dim dim"]:
    """A column for each direction of the variance of rows of length 1, the largest first.

    Directions whose deviation is within the rounding of fp32 rows have no order of their own: their
    eigenvectors would be those of the CPU's rounding errors. They are the eigenvectors of a fixed
    diagonal matrix within the space that they span, so that every machine has the same.
    """
    values, ascending = torch.linalg.eigh(covariance(rows))
    unordered = ascending[:, values <= ROUNDING]
    fixed = torch.arange(len(ascending), 0, -1, dtype=values.dtype, device=values.device)
    order = torch.linalg.eigh(unordered.T @ (fixed[:, None] * unordered)).eigenvectors
    directions: Tensor = torch.cat([unordered @ order, ascending[:, values > ROUNDING]], dim=1)
    return directions.flip(1).to(rows.dtype)


def results_table(task: Task, methods: Mapping[str, Results]) -> Table:
    """One task's headline metric: a row for each method, a column for each width."""
    dims = next(iter(methods.values()))[task.name][task.headline]
    rows = [
        [method, *(f"{value:.1f}" for value in results[task.name][task.headline].values())]
        for method, results in methods.items()
    ]
    return Table(f"{task.name}: {task.headline}", ["", *map(str, dims)], rows)
