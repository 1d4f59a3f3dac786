"""Encode every text of an evaluation once, on disk, and apply each model's head to the rows.

`Encoder.headless` gives the output of the backbone for the texts of a suite; it stays on disk under
a name of all that it depends on, until the evaluation is whole. Runs with encoder.frozen=true and
the encoder that they began with share it, as they differ by their heads alone.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from mic.console import bar
from mic.distributed.environment import accelerator
from mic.encoder.embedding_file import Change, Embeddings
from mic.encoder.embedding_store import EncodedBlock, StoreMeta, fill_store
from mic.encoder.encoder import Encoder, encoder_fingerprint
from mic.errors import RunError
from mic.evaluation.tasks.relevance import unique

ENCODINGS = ".embeddings"  # in TO, until the command is over
BLOCK_BATCHES = 8  # between two writes


def backbone_key(encoder: Encoder, questions: str) -> str:
    """A name of the backbone's output for the texts of these questions."""
    return f"{encoder_fingerprint(encoder.headless())[:16]}-{questions[:16]}"


def embed_with_head(
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
    pooled = embed_texts(encoder.headless().to(accelerator()), asked, batch_size, folder, label)
    if encoder.projection is None:
        return pooled
    state = [
        value.detach().float().cpu()[: encoder.width] for value in encoder.projection.parameters()
    ]
    if not all(value.isfinite().all() for value in state):
        raise RunError(f"{label}: the head's weights are not finite; the model diverged")
    head = linear_change(*state)
    return {
        task: replace(rows, change=head, changed_width=encoder.width)
        for task, rows in pooled.items()
    }


def linear_change(
    weight: Float[Tensor, "dim hidden"], bias: Float[Tensor, " dim"] | None = None
) -> Change:
    """A linear head as a change of rows."""

    def head(rows: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows dim"]:
        return linear(rows, weight, bias)

    return head


def drop_encodings(to: Path, needed: Collection[str]) -> None:
    """Remove what is encoded, but for the folders with these names."""
    for folder in (to / ENCODINGS).glob("*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)
    if not needed:
        shutil.rmtree(to / ENCODINGS, ignore_errors=True)


def embed_texts(
    encoder: Encoder,
    asked: Mapping[str, Sequence[str]],
    batch_size: int,
    folder: Path,
    label: str,
) -> dict[str, Embeddings]:
    """The full embeddings of every task's texts, by the task's name, on disk.

    A text that several tasks ask for, or one asks for twice, is encoded once. Memory holds a few
    batches at a time. What is encoded is written into `folder` as it comes, so that an evaluation
    that was interrupted goes on where it was. The folder's name must name all that decides an
    embedding but its text; anything else that it holds is written over.

    Raises RunError for embeddings that are not finite, a full disk, or another process that writes
    the same.
    """
    fresh = fresh_texts(asked)
    texts = [text for added in fresh.values() for text in added]

    def encode(missing: list[str]) -> Iterator[EncodedBlock]:
        left = set(missing)
        with bar(label, len(texts), len(texts) - len(missing)) as advance:
            for task, added in fresh.items():
                for block in blocks_of_texts([t for t in added if t in left], batch_size):
                    rows = encoder.embed(block, batch_size=batch_size, progress=advance)
                    if not rows.isfinite().all():
                        raise RunError(
                            f"{label}: embeddings of {task} are not finite; the model diverged"
                        )
                    yield EncodedBlock(block, rows.numpy())

    meta = StoreMeta(folder.name, encoder.width, "float32")
    store = fill_store(folder, meta, texts, encode, replace=True)
    return {task: store.embeddings(wanted) for task, wanted in asked.items()}


def fresh_texts(asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The texts that every task adds to those before it, each once."""
    seen: set[str] = set()
    fresh = {}
    for task, wanted in asked.items():
        texts, _ = unique(wanted)
        fresh[task] = [text for text in texts if text not in seen]
        seen.update(texts)
    return fresh


def blocks_of_texts(texts: Sequence[str], batch_size: int) -> Iterator[list[str]]:
    """A task's texts, the longest first, as `Encoder.embed` would batch them."""
    texts = sorted(texts, key=len, reverse=True)
    for start in range(0, len(texts), BLOCK_BATCHES * batch_size):
        yield texts[start : start + BLOCK_BATCHES * batch_size]
