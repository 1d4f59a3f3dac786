"""Checkpoints on disk: written whole, named by what they hold, found again even if one is damaged.

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
        """What it holds; tensors stay on the disk until they are looked at."""
        found: dict[str, Any] = torch.load(self.path, "cpu", weights_only=True, mmap=True)
        return found


class WholeFile(TorchCheckpointIO):
    """Writes a checkpoint through to the disk and takes its hash on the way.

    What goes wrong is kept in `error` and not raised: the other ranks wait until this one comes.
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
    """Give a file that `io` (or another) has written its name, point latest.json to it, drop all
    but `keep`.

    Raises RunError when it could not be written; the checkpoints before it are as they were.
    """
    folder = partial.parent
    if io is not None and io.error is not None:
        partial.unlink(missing_ok=True)
        raise RunError(unwritten(folder, step, io.error))
    content = sha256(partial) if io is None else io.sha256
    path = folder / f"step-{step:08d}-{content[:DIGITS]}.ckpt"
    found = Checkpoint(path, content, step)
    try:
        partial.replace(path)
        flush_folder(folder)
        write_json(folder / LATEST, {"path": path.name, "sha256": found.sha256, "step": step})
        flush_folder(folder)
    except OSError as error:
        raise RunError(unwritten(folder, step, error)) from error
    for old in [*candidates(folder)][keep:]:
        old.path.unlink()
    return found


def unwritten(folder: Path, step: int, error: Exception) -> str:
    before = next(iter(candidates(folder)), None)
    kept = f"that of step {before.step} is whole" if before else "there is none before it"
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return (
        f"{folder}: the checkpoint of step {step} could not be written: {why}; {kept}. "
        f"Make room, then: mic resume {folder.parent}"
    )


def candidates(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints by their names, newest first; their hashes are the names' digits."""
    named = [(NAME.fullmatch(file.name), file) for file in folder.glob("step-*.ckpt")]
    found = [(int(name[1]), name[2], file) for name, file in named if name]
    for step, digits, file in sorted(found, key=lambda one: (one[0], one[2].stat().st_mtime))[::-1]:
        yield Checkpoint(file, digits, step)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; None where there is none.

    A damaged one is said, set aside under another name, and passed over for the one before.
    """
    latest = pointed(folder)
    ahead = [*candidates(folder)]
    if latest is not None and latest.path in {one.path for one in ahead}:
        first = next(one for one in ahead if one.path == latest.path)
        ahead.remove(first)
        ahead.insert(0, latest)
    for one in ahead:
        found = sha256(one.path)
        if found.startswith(one.sha256):
            return Checkpoint(one.path, found, one.step)
        notice(
            f"{one.path}: damaged: its SHA-256 begins with {found[:DIGITS]}; set aside as "
            f"damaged-{one.path.name}, going on from the one before"
        )
        one.path.rename(one.path.with_name(f"damaged-{one.path.name}"))
    return None


def pointed(folder: Path) -> Checkpoint | None:
    """What latest.json says; None where it is not there or damaged: the files' names say enough."""
    try:
        said = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        return Checkpoint(folder / said["path"], str(said["sha256"]), int(said["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
