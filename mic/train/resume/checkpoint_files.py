"""Write checkpoints whole, name them by step and SHA-256, and find the newest undamaged one.

RUN/checkpoints/step-00000045-<SHA-256, 16 digits>.ckpt, and latest.json, which names the newest
with its whole hash and step. They hold tensors, numbers and text only.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from mic.console import notice
from mic.errors import RunError
from mic.files import flush_folder, sha256, write_json

CHECKPOINTS = "checkpoints"
LATEST = "latest.json"
DIGITS = 16
NAME = re.compile(rf"step-(\d+)-([0-9a-f]{{{DIGITS}}})\.ckpt")


class Checkpoint(NamedTuple):
    """A whole checkpoint: its file, the SHA-256 of its bytes, the optimiser steps before it."""

    path: Path
    sha256: str
    step: int

    def read(self) -> dict[str, Any]:
        """Its content; tensors are read from the disk when they are used."""
        content: dict[str, Any] = torch.load(self.path, "cpu", weights_only=True, mmap=True)
        return content


class WholeFile(TorchCheckpointIO):
    """Writes a checkpoint through to the disk and computes its SHA-256 on the way.

    A failure is stored in `error` and not raised, since the other ranks wait for this one.
    """

    def __init__(self) -> None:
        self.sha256 = ""
        self.error: Exception | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: Any,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        self.error = None
        try:
            with Path(path).open("wb") as stream:
                hashed = Hashed(stream)
                torch.save(checkpoint, hashed)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            self.sha256 = hashed.sha256.hexdigest()
        except (OSError, RuntimeError) as error:  # torch's own of a write that failed
            self.error = error


class Hashed:
    """A file that is written from front to back, and its hash."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()


def publish(partial: Path, io: WholeFile | None, step: int, keep: int) -> Checkpoint:
    """Rename a file that `io` (or another plugin) has written, point latest.json to it, and remove
    all but the newest `keep`.

    Raises RunError when it could not be written; the checkpoints before it are as they were.
    """
    folder = partial.parent
    if io is not None and io.error is not None:
        partial.unlink(missing_ok=True)
        raise RunError(write_failure(folder, step, io.error))
    digest = sha256(partial) if io is None else io.sha256
    path = folder / f"step-{step:08d}-{digest[:DIGITS]}.ckpt"
    checkpoint = Checkpoint(path, digest, step)
    try:
        partial.replace(path)
        flush_folder(folder)
        write_json(folder / LATEST, {"path": path.name, "sha256": digest, "step": step})
        flush_folder(folder)
    except OSError as error:
        raise RunError(write_failure(folder, step, error)) from error
    for old in [*candidates(folder)][keep:]:
        old.path.unlink()
    return checkpoint


def write_failure(folder: Path, step: int, error: Exception) -> str:
    before = next(iter(candidates(folder)), None)
    fallback = f"that of step {before.step} is whole" if before else "there is none before it"
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return (
        f"{folder}: the checkpoint of step {step} could not be written: {why}; {fallback}. "
        f"Make room, then: mic resume {folder.parent}"
    )


def candidates(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints by their names, newest first; their hashes are the names' digits."""
    named = [(NAME.fullmatch(file.name), file) for file in folder.glob("step-*.ckpt")]
    files = [(int(name[1]), name[2], file) for name, file in named if name]
    files.sort(key=lambda item: (item[0], item[2].stat().st_mtime), reverse=True)
    for step, digits, file in files:
        yield Checkpoint(file, digits, step)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; None where there is none.

    A damaged one is reported, renamed, and passed over for the one before it.
    """
    latest = read_latest(folder)
    checkpoints = [*candidates(folder)]
    if latest is not None and latest.path in {checkpoint.path for checkpoint in checkpoints}:
        others = [checkpoint for checkpoint in checkpoints if checkpoint.path != latest.path]
        checkpoints = [latest, *others]
    for path, expected, step in checkpoints:
        digest = sha256(path)
        if digest.startswith(expected):
            return Checkpoint(path, digest, step)
        notice(
            f"{path}: damaged: its SHA-256 begins with {digest[:DIGITS]}; set aside as "
            f"damaged-{path.name}, going on from the one before"
        )
        path.rename(path.with_name(f"damaged-{path.name}"))
    return None


def read_latest(folder: Path) -> Checkpoint | None:
    """The checkpoint in latest.json; None if that is missing or damaged: file names suffice."""
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        return Checkpoint(folder / latest["path"], str(latest["sha256"]), int(latest["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
