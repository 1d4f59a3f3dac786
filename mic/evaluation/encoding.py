"""Every text of a suite encoded once, into a file that is kept until the evaluation is whole.

VECTORS has a row of float32 for each text. It has its full size from the beginning; DONE says how
many rows, in the order in which texts are encoded, were on the disk when it was written.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mic.console import bar
from mic.encoder.embedding_file import NUMBER, Embeddings
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.tasks.relevance import unique
from mic.files import write_json

VECTORS, DONE = "vectors.f32", "done.json"
BLOCK = 8  # batches between two writes


class Block(NamedTuple):
    """Texts that are encoded between two writes, with their rows; `done` rows are, after them."""

    task: str
    texts: list[str]
    rows: list[int]
    done: int


def embed_all(
    encoder: Encoder,
    asked: Mapping[str, Sequence[str]],
    batch_size: int,
    folder: Path,
    label: str,
) -> dict[str, Embeddings]:
    """The full embeddings of every task's texts, by the task's name, on disk.

    A text that several tasks ask for, or one asks for twice, is encoded once. Memory holds a few
    batches at a time. What is encoded is written into `folder` as it comes, so that an evaluation
    that was interrupted goes on where it was.

    Raises RunError for embeddings that are not finite, a full disk, or another process that writes
    the same.
    """
    fresh = fresh_texts(asked)
    texts = [text for added in fresh.values() for text in added]
    file = folder / VECTORS
    folder.mkdir(parents=True, exist_ok=True)
    with opened(file, len(texts) * encoder.width * NUMBER.itemsize) as (stream, begun):
        done = rows_done(folder) if begun else 0
        ahead = [block for block in blocks(fresh, batch_size) if block.done > done]
        left = sum(len(block.rows) for block in ahead)
        with bar(label, len(texts), len(texts) - left) as advance:
            for block in ahead:
                found = encoder.embed(block.texts, batch_size=batch_size, progress=advance)
                if not found.isfinite().all():
                    raise RunError(
                        f"{label}: embeddings of {block.task} are not finite; the model diverged"
                    )
                write(stream, found, block.rows)
                write_json(folder / DONE, {"rows": block.done})
    places = {text: at for at, text in enumerate(texts)}
    return {
        task: Embeddings(file, encoder.width, np.array([places[text] for text in wanted], np.int64))
        for task, wanted in asked.items()
    }


def fresh_texts(asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The texts that every task adds to those before it, each once."""
    seen: set[str] = set()
    found = {}
    for task, wanted in asked.items():
        texts, _ = unique(wanted)
        found[task] = [text for text in texts if text not in seen]
        seen.update(texts)
    return found


def blocks(fresh: Mapping[str, list[str]], batch_size: int) -> Iterator[Block]:
    """All texts, a task's longest first, as `Encoder.embed` would batch them."""
    first = done = 0
    for task, texts in fresh.items():
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(order), BLOCK * batch_size):
            chosen = order[start : start + BLOCK * batch_size]
            done += len(chosen)
            yield Block(task, [texts[i] for i in chosen], [first + i for i in chosen], done)
        first += len(texts)


@contextmanager
def opened(file: Path, size: int) -> Iterator[tuple[BinaryIO, bool]]:
    """The file for this process alone, at its full size, and whether an earlier call began it."""
    with file.open("ab"):
        pass
    with file.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{file}: another process is writing it; wait for its end") from None
        begun = os.fstat(stream.fileno()).st_size == size
        stream.truncate(size)
        yield stream, begun


def rows_done(folder: Path) -> int:
    try:
        return int(json.loads((folder / DONE).read_text(encoding="utf-8"))["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def write(stream: BinaryIO, found: Float[Tensor, "some dim"], rows: Sequence[int]) -> None:
    """Put rows in their places and onto the disk."""
    try:
        for row, at in zip(found.numpy().astype(NUMBER, copy=False), rows, strict=True):
            stream.seek(at * row.nbytes)
            stream.write(row.data)
        stream.flush()
        os.fsync(stream.fileno())
    except OSError as error:
        raise RunError(
            f"{stream.name}: could not be written: {error.strerror}; free some space and start "
            "again: what is written is kept"
        ) from error
