"""Models with one backbone: it encodes a text once, and each model's head is applied to that.

`Encoder.headless` says what the backbone makes of the texts of a suite; it is kept on disk under a
name of all that it depends on. Runs with encoder.frozen=true and the encoder that they began with
share it, as they differ by their heads alone.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from mic.distributed.environment import accelerator
from mic.encoder.embedding_file import Change, Embeddings
from mic.encoder.embedding_store import fingerprint
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.encoding import embed_all

EMBEDDINGS = ".embeddings"  # in TO, until the command is over


def key_of(encoder: Encoder, questions: str) -> str:
    """A name of what the backbone makes of the texts of these questions."""
    return f"{fingerprint(encoder.headless())[:16]}-{questions[:16]}"


def embed(
    encoder: Encoder,
    asked: Mapping[str, Sequence[str]],
    batch_size: int,
    folder: Path,
    label: str,
) -> dict[str, Embeddings]:
    """The full embeddings of every task's texts; the head is applied to rows as they are read.

    What `folder` has of them, be it of another model with this backbone, is not encoded again.

    Raises RunError for embeddings that are not finite, a full disk, or another process that writes
    the same.
    """
    pooled = embed_all(encoder.headless().to(accelerator()), asked, batch_size, folder, label)
    if encoder.projection is None:
        return pooled
    state = [value.detach().float().cpu() for value in encoder.projection.parameters()]
    if not all(value.isfinite().all() for value in state):
        raise RunError(f"{label}: the head's weights are not finite; the model diverged")
    head = head_of(*state)
    return {task: replace(rows, change=head, given=encoder.width) for task, rows in pooled.items()}


def head_of(
    weight: Float[Tensor, "dim hidden"], bias: Float[Tensor, " dim"] | None = None
) -> Change:
    def head(rows: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows dim"]:
        return linear(rows, weight, bias)

    return head


def drop(to: Path, kept: Collection[str]) -> None:
    """Remove what is encoded, but for what goes by these names."""
    for folder in (to / EMBEDDINGS).glob("*"):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    if not kept:
        shutil.rmtree(to / EMBEDDINGS, ignore_errors=True)
