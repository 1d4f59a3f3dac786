"""Score an encoder at every width from one encoding, beside the baselines that need no training."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mic.collectives import gather, rank, world_size
from mic.console import bar
from mic.encoder.embedding_file import Vectors
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.tasks.tasks import Scores, Task
from mic.metrics.geometry import covariance
from mic.nested import unit
from mic.report.tables import Table

RAW = "raw truncation"
PCA = "PCA"
ROUNDING = 1e-12  # a variance of rows of length 1 that fp32 rounding may be: deviation 1e-6
BLOCK = 32  # batches between two looks at whether to break off
Results = dict[str, Scores]  # task -> metric -> width -> value


def embed_tasks(
    encoder: Encoder,
    tasks: Sequence[Task],
    batch_size: int,
    label: str,
    check: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """The full embeddings of every task's texts, by the task's name, all in memory."""
    return {
        task.name: found for task, found in embed_each(encoder, tasks, batch_size, label, check)
    }


def embed_each(
    encoder: Encoder,
    tasks: Sequence[Task],
    batch_size: int,
    label: str,
    check: Callable[[], None] | None = None,
) -> Iterator[tuple[Task, Float[Tensor, "texts dim"]]]:
    """The full embeddings of one task's texts after the other's; each rank encodes its share.

    `check` is called now and then, on all ranks as often, for whoever wants to break off.

    Raises RunError when an embedding is not finite, as those of a diverged model are.
    """
    if not tasks:
        return
    shares = {task.name: share(task.texts) for task in tasks}
    with bar(label, sum(map(len, shares.values()))) as advance:
        for task in tasks:
            own, parts = shares[task.name], []
            block = BLOCK * batch_size if check else len(own)
            for start in range(0, len(own), block):
                texts = own[start : start + block]
                parts.append(encoder.embed(texts, batch_size=batch_size, progress=advance))
                if check:
                    check()
            joined = from_all_ranks(torch.cat(parts), encoder.backbone.device)
            found = joined[: len(task.texts)]
            if not found.isfinite().all():
                raise RunError(
                    f"{label}: embeddings of {task.name} are not finite; lower "
                    "trainer.learning_rate"
                )
            yield task, found


def share(texts: Sequence[str]) -> list[str]:
    """This rank's texts, each W-th from its own on; all ranks have as many, if need be the last
    text once more, so that they do the same number of forward passes."""
    own = list(texts[rank() :: world_size()])
    return own if len(own) == -(-len(texts) // world_size()) else [*own, texts[-1]]


def from_all_ranks(
    own: Float[Tensor, "own dim"], device: torch.device
) -> Float[Tensor, "texts dim"]:
    """All ranks' rows in the texts' order, of which rank r embedded each W-th from the r-th on."""
    if world_size() == 1:
        return own
    parts = gather(own.to(device), [len(own)] * world_size()).cpu().view(world_size(), *own.shape)
    return parts.transpose(0, 1).reshape(-1, own.shape[1])


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
    """One task's headline metric: a row a method, a column a width."""
    dims = next(iter(methods.values()))[task.name][task.headline]
    rows = [
        [method, *(f"{value:.1f}" for value in results[task.name][task.headline].values())]
        for method, results in methods.items()
    ]
    return Table(f"{task.name}: {task.headline}", ["", *map(str, dims)], rows)
