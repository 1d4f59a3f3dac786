"""Every text of a suite encoded once, kept on disk until the evaluation is whole."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mic.encoder import Encoder
from mic.errors import RunError
from mic.progress import bar
from mic.tasks import Task, unique

Progress = Callable[[int], None]


def embed_suite(
    encoder: Encoder, tasks: Sequence[Task], batch_size: int, folder: Path, label: str
) -> dict[str, Float[Tensor, "texts dim"]]:
    """The full embeddings of every task's texts, by the task's name.

    A text that several tasks ask for, or one asks for twice, is encoded once. What one task adds is
    written into `folder` when it is encoded, so that an evaluation that was interrupted goes on at
    the task where it was.

    Raises RunError for embeddings that are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = fresh_texts(tasks)
    rows: dict[str, Tensor] = {}
    with bar(label, sum(map(len, fresh.values()))) as advance:
        for task, texts in fresh.items():
            file = folder / f"{task}.safetensors"
            found = read(file, len(texts))
            if found is None:
                found = encoder.embed(texts, batch_size=batch_size, progress=advance)
                write(file, found)
            else:
                advance(len(texts))
            if not found.isfinite().all():
                raise RunError(f"{label}: embeddings of {task} are not finite; the model diverged")
            rows[task] = found
    return gathered(tasks, fresh, torch.cat(list(rows.values())))


def fresh_texts(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """The texts that every task adds to those before it, each once."""
    seen: set[str] = set()
    found = {}
    for task in tasks:
        texts, _ = unique(task.texts)
        found[task.name] = [text for text in texts if text not in seen]
        seen.update(texts)
    return found


def gathered(
    tasks: Sequence[Task], fresh: Mapping[str, list[str]], rows: Float[Tensor, "all dim"]
) -> dict[str, Tensor]:
    texts = (text for added in fresh.values() for text in added)
    places = {text: at for at, text in enumerate(texts)}
    return {task.name: rows[[places[text] for text in task.texts]] for task in tasks}


def read(file: Path, count: int) -> Tensor | None:
    """The embeddings that `write` wrote; None where they are not there whole."""
    try:
        found = load_file(file)["embeddings"]
    except (OSError, SafetensorError, KeyError):
        return None
    return found if len(found) == count else None


def write(file: Path, embeddings: Float[Tensor, "texts dim"]) -> None:
    partial = file.with_name(f".{file.name}.partial")
    save_file({"embeddings": embeddings.contiguous()}, partial)
    partial.replace(file)
