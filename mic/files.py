"""Write files whole or not at all, lock and hash them; find free disk and the user's cache."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mic.errors import RunError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary name beside `file`, renamed to it at the end of the block.

    When the block raises, the temporary file is removed and `file` stays as it was.
    """
    partial = partial_path(file)
    try:
        yield partial
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_path(path: Path) -> Path:
    """The temporary name under which a file or folder is written."""
    return path.with_name(f".{path.name}.partial")


def write_text(file: Path, text: str) -> None:
    """Write a file of text, in UTF-8, whole or not at all."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(json_value(content), indent=2) + "\n")


def json_value(value: Any) -> Any:
    """A value as JSON allows it: text keys, and null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flush(file: Path) -> None:
    """Force a file's content to the disk, so that it is complete after a crash."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, so that renames survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def free_bytes(place: Path) -> int:
    """The bytes free on the disk of a path that may not exist yet."""
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file; it is released when the process ends, however that happens.

    Raises BlockingIOError when another process holds it and `wait` is false.
    """
    with file.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def cache_folder() -> Path:
    """`$MIC_CACHE`, or `mic` in the user's cache."""
    if chosen := os.environ.get("MIC_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mic"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once; it exists complete or not at all.

    Of several processes that start together, as the ranks of a run do, one fills it and the others
    wait. When `make` raises, nothing is left behind.

    Raises RunError where the disk cannot be written.
    """
    if folder.is_dir():
        return folder
    partial = partial_path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                for file in partial.iterdir():
                    flush(file)
                partial.rename(folder)
    except OSError as error:
        raise RunError(
            f"{folder.parent}: cannot be written ({error.strerror or error}); free some space, or "
            "set the environment variable MIC_CACHE to a folder on another disk"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
