"""Full embeddings on disk, each found again by its text as it was encoded, prompt included."""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mic.encoder.embedding_store import KEY, digests
from mic.errors import RunError
from mic.files import cache_folder

BOUND = 8 * 10**9  # bytes of all encoders' embeddings together
PART = 4096  # texts of a file, and what an interruption may lose
SUFFIX = ".npy"


class Kept:
    """The embeddings of one encoder: a text is encoded once, and read from then on.

    `encode` gives [texts, width] of a part's texts. A file is a table of keys and embeddings,
    written whole or not at all and read as a memory map. When the files of all encoders exceed
    `bound` bytes, those that were not used for longest go; those used since `begin` stay.
    """

    def __init__(
        self,
        encoder: str,
        width: int,
        encode: Callable[[Sequence[str]], Float32[np.ndarray, "part width"]],
        bound: int = BOUND,
    ) -> None:
        self.folder = cache_folder() / "embeddings" / encoder
        self.encode, self.width, self.bound = encode, width, bound
        self.row = np.dtype([("key", KEY), ("embedding", "<f4", (width,))])
        self.places: dict[bytes, tuple[Path, int]] = {}
        self.in_use: set[Path] = set()
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            table = self.table(file)
            if table is not None:
                self.remember(file, table["key"].tolist())

    def begin(self) -> None:
        """From now on what was used before may be removed."""
        self.in_use.clear()

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        """The full embeddings of texts, in their order; the longest of the new ones come first.

        Raises RunError for embeddings that are not finite, and where the disk is full.
        """
        keys: list[bytes] = digests(texts).tolist()
        found = np.empty((len(texts), self.width), np.float32)
        places: dict[bytes, list[int]] = {}
        for at, key in enumerate(keys):
            places.setdefault(key, []).append(at)
        missing = sorted(self.fill(found, places), key=lambda key: -len(texts[places[key][0]]))
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            rows = self.encode([texts[places[key][0]] for key in part])
            if not np.isfinite(rows).all():
                raise RunError("embeddings are not finite; the model diverged")
            self.write(part, rows)
            for key, row in zip(part, rows, strict=True):
                found[places[key]] = row
        return found

    def fill(
        self, found: Float32[np.ndarray, "texts width"], places: dict[bytes, list[int]]
    ) -> list[bytes]:
        """Put in what is on disk; the keys of what is not."""
        wanted: dict[Path, list[bytes]] = {}
        missing = []
        for key in places:
            if key in self.places:
                wanted.setdefault(self.places[key][0], []).append(key)
            else:
                missing.append(key)
        for file, keys in wanted.items():
            table = self.table(file)
            if table is None:  # another process needed the room
                missing += keys
                continue
            rows = table["embedding"][[self.places[key][1] for key in keys]]
            for key, row in zip(keys, rows, strict=True):
                found[places[key]] = row
            self.in_use.add(file)
            with suppress(FileNotFoundError):
                os.utime(file)
        return missing

    def table(self, file: Path) -> np.ndarray | None:
        """What a file holds; None where it is not there whole."""
        try:
            found = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return found if found.dtype == self.row else None

    def write(self, keys: Sequence[bytes], rows: Float32[np.ndarray, "part width"]) -> None:
        table = np.empty(len(keys), self.row)
        table["key"], table["embedding"] = np.array(keys, KEY), rows
        file = (
            self.folder / f"{blake2b(table['key'].tobytes(), digest_size=16).hexdigest()}{SUFFIX}"
        )
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                np.save(stream, table, allow_pickle=False)
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            cure = "free some space, or" if error.errno == errno.ENOSPC else "mend that, or"
            raise RunError(
                f"{self.folder}: cannot be written ({error.strerror or error}); {cure} set the "
                "environment variable MIC_CACHE to a folder on another disk"
            ) from error
        self.in_use.add(file)
        self.remember(file, keys)
        make_room(self.folder.parent, self.bound, self.in_use)

    def remember(self, file: Path, keys: Iterable[bytes]) -> None:
        self.places |= {key: (file, row) for row, key in enumerate(keys)}


def make_room(folder: Path, bound: int, stay: set[Path]) -> None:
    """Remove files below a folder, those that were not used for longest first, down to `bound`."""
    files = []
    for file in folder.glob(f"*/*{SUFFIX}*"):
        try:
            about = file.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        files.append((about.st_mtime_ns, about.st_size, file))
    excess = sum(size for _, size, _ in files) - bound
    for _, size, file in sorted(files):
        if excess <= 0:
            return
        if file not in stay:
            file.unlink(missing_ok=True)
            excess -= size
