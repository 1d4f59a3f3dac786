"""Where what was computed once is kept for all runs of a user."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mic.errors import RunError


def cache_folder() -> Path:
    """`$MIC_CACHE`, or `mic` in the user's cache."""
    if own := os.environ.get("MIC_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mic"


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once for all: it is there whole, or not at all.

    Of several processes that begin together, as the ranks of a run do, one makes it and the others
    wait. What `make` raises leaves nothing behind.

    Raises RunError where the disk does not take it.
    """
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
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


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; one that dies lets go of it."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def flush(file: Path) -> None:
    """To the disk itself, so that a name that is there after a crash has its content."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
