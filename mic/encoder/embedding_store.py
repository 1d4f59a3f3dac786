"""Embeddings on disk, each computed once and found again by its text.

A store is a folder with the embeddings of one model:

meta.json    the format, the model's fingerprint, the width and the dtype
vectors.f16  a row for each text, as the model gave it, not scaled to length 1 (or vectors.f32)
keys.bin     an entry for each row that is whole: a digest of its text, and the number of the row

Rows are flushed to the disk before the entries that name them are appended. So whenever the writing
process was killed, the rows of all whole entries are valid, and a later call goes on from there. A
row's place follows the order in which texts are asked for, not that in which they are encoded:
who reads the texts in order reads the file in order.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from mic.encoder.embedding_file import Embeddings
from mic.errors import InputError, RunError
from mic.files import cache_folder, flush, flush_folder, locked, partial_path, replacing, write_json

FORMAT = 2  # raise it whenever another version of mic would misread the files
META, KEYS, LOCK = "meta.json", "keys.bin", "lock"
KEY = np.dtype("S16")
ENTRY = np.dtype([("key", KEY), ("row", "<i8")])
NUMBERS: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
CURE = "remove the folder, or set teacher.folder to another"
BOUND = 8 * 10**9  # bytes of all models' stores in the user's cache together
SEGMENT_TEXTS = 4096  # texts of a segment, and what an interruption may lose


class StoreMeta(NamedTuple):
    """What meta.json holds; `fingerprint` names all that decides an embedding but its text."""

    fingerprint: str
    width: int
    dtype: str
    format: int = FORMAT

    @property
    def number(self) -> np.dtype[Any]:
        return NUMBERS[self.dtype]

    @property
    def row_bytes(self) -> int:
        return self.width * self.number.itemsize

    @property
    def vectors_file(self) -> str:
        """The name of the file of rows."""
        return f"vectors.f{8 * self.number.itemsize}"


class EncodedBlock(NamedTuple):
    """Texts that are written together, and their embeddings in the store's dtype."""

    texts: Sequence[str]
    vectors: Float[np.ndarray, "texts width"]


Encode = Callable[[list[str]], Iterator[EncodedBlock]]


class StoreIndex(NamedTuple):
    """The files of a store: sorted keys, the row of each, and the rows, which stay on disk."""

    keys: Shaped[np.ndarray, " texts"]
    rows: Int64[np.ndarray, " texts"]
    vectors: Float[np.ndarray, "rows width"]


class EmbeddingStore:
    """The embeddings in a folder that `fill_store` wrote, looked up by text.

    Made for data loader workers: a pickle holds the path alone, and each process reads the keys
    and maps the rows into its memory at its first look-up.

    Raises InputError when the folder holds no store, or that of another version of mic.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = read_meta(folder)

    def __reduce__(self) -> tuple[type["EmbeddingStore"], tuple[Path]]:
        return EmbeddingStore, (self.folder,)

    def __len__(self) -> int:
        return len(self._index.keys)

    @property
    def width(self) -> int:
        return self.meta.width

    @property
    def keys(self) -> Shaped[np.ndarray, " texts"]:
        """The digests of all texts in the store, sorted."""
        return self._index.keys

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """The texts' embeddings in their order, in the store's dtype.

        Raises InputError for a text that is not in the store.
        """
        return torch.from_numpy(self.vectors(self.find(texts)))

    def embeddings(self, texts: Sequence[str]) -> Embeddings:
        """The texts' embeddings in their order, read from the disk when rows are asked for.

        Of a store of float32. Raises InputError for a text that is not in the store.
        """
        file = self.folder / self.meta.vectors_file
        return Embeddings(file, self.width, self.find(texts))

    def find(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """The row of each text.

        Raises InputError for a text that is not in the store.
        """
        rows = self.rows_of(digests(texts))
        if (rows < 0).any():
            text = texts[int(np.argmin(rows))]
            raise InputError(
                f"{self.folder}: no embedding of the text {text[:60]!r}; start again, so that the "
                "store is filled for the present data, or set teacher.kind=frozen"
            )
        return rows

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Those texts that are not in the store, in their order."""
        rows = self.rows_of(digests(texts))
        return [text for text, row in zip(texts, rows, strict=True) if row < 0]

    def rows_of(self, keys: Shaped[np.ndarray, " texts"]) -> Int64[np.ndarray, " texts"]:
        """The row of each digest, -1 where there is none."""
        known, rows, _ = self._index
        if not len(known):
            return np.full(len(keys), -1)
        places = np.searchsorted(known, keys).clip(max=len(known) - 1)
        return np.where(known[places] == keys, rows[places], -1)

    def vectors(self, rows: Int64[np.ndarray, " some"]) -> Float[np.ndarray, "some width"]:
        """Rows by number."""
        return np.asarray(self._index.vectors[rows])

    @cached_property
    def _index(self) -> StoreIndex:
        entries = valid_entries(self.folder, self.meta)
        file, number = self.folder / self.meta.vectors_file, self.meta.number
        if not len(entries):  # an empty file cannot be mapped
            return StoreIndex(entries["key"], entries["row"], np.empty((0, self.width), number))
        shape = (file.stat().st_size // self.meta.row_bytes, self.width)
        order = np.argsort(entries["key"], kind="stable")
        keys, rows = entries["key"][order], entries["row"][order]
        return StoreIndex(keys, rows, np.memmap(file, number, "r", shape=shape))


def fill_store(
    folder: Path,
    meta: StoreMeta,
    texts: Iterable[str],
    encode: Encode,
    elsewhere: str = "use another folder",
    replace: bool = False,
) -> EmbeddingStore:
    """The store in `folder` with every one of `texts`, each encoded once.

    `encode` gets the texts that are missing, in their order, and gives them back in blocks, in any
    order; each block is on the disk before the next one is asked for, so that a call that was
    interrupted goes on after its last block. Needs no right to write when nothing is missing.
    `elsewhere` tells, in error messages, how another folder is chosen. With `replace`, what the
    folder holds of another model or format is written over, else refused.

    Raises InputError for a folder of another model or of other files, and RunError for a full disk
    or when another process is filling the folder.
    """
    wanted = list(dict.fromkeys(texts))
    if is_store_of(folder, meta, replace):
        store = EmbeddingStore(folder)
        if not store.missing(wanted):
            return store
    with filling(folder, elsewhere):
        with writing(folder, elsewhere):
            if not is_store_of(folder, meta, replace):  # asked again: another process may have
                (folder / KEYS).unlink(missing_ok=True)  # begun it meanwhile
                write_json(folder / META, meta._asdict())
            entries = mend(folder, meta)
        missing = EmbeddingStore(folder).missing(wanted)
        rows = dict(zip(missing, free_rows(entries["row"], len(missing)), strict=True))
        for block in encode(missing) if missing else ():
            with writing(folder, elsewhere):
                append(folder, meta, np.array([rows[text] for text in block.texts]), block)
    return EmbeddingStore(folder)


def append(
    folder: Path, meta: StoreMeta, rows: Int64[np.ndarray, " texts"], block: EncodedBlock
) -> None:
    """Write a block into its rows of the vectors, and then its entries to the end of the keys."""
    order = np.argsort(rows)
    vectors = block.vectors.astype(meta.number, copy=False)
    with (folder / meta.vectors_file).open("r+b") as file:
        for run in np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1):
            file.seek(int(rows[run[0]]) * meta.row_bytes)
            file.write(vectors[run].tobytes())
        file.flush()
        os.fsync(file.fileno())
    entries = np.empty(len(rows), ENTRY)
    entries["key"], entries["row"] = digests(block.texts), rows
    with (folder / KEYS).open("ab") as file:
        file.write(entries.tobytes())
        file.flush()
        os.fsync(file.fileno())


def mend(folder: Path, meta: StoreMeta) -> Shaped[np.ndarray, " texts"]:
    """Remove what a killed process left half written; the entries whose rows are whole."""
    entries, keys = valid_entries(folder, meta), folder / KEYS
    keys.touch()
    if keys.stat().st_size != entries.nbytes:
        with replacing(keys) as partial:
            entries.tofile(partial)
            flush(partial)
        flush_folder(folder)
    size = meta.row_bytes * (int(entries["row"].max()) + 1 if len(entries) else 0)
    with (folder / meta.vectors_file).open("ab") as file:
        file.truncate(size)
    return entries


def valid_entries(folder: Path, meta: StoreMeta) -> Shaped[np.ndarray, " texts"]:
    """The whole entries of a store whose rows are in the file of vectors."""
    keys, vectors = folder / KEYS, folder / meta.vectors_file
    if not keys.is_file() or not vectors.is_file():
        return np.empty(0, ENTRY)
    entries = np.fromfile(keys, ENTRY, keys.stat().st_size // ENTRY.itemsize)
    # asked after the keys were read: another process may append, the vectors first
    rows = vectors.stat().st_size // meta.row_bytes
    return entries[(entries["row"] >= 0) & (entries["row"] < rows)]


def free_rows(used: Int64[np.ndarray, " texts"], count: int) -> Int64[np.ndarray, " count"]:
    """The first `count` numbers of rows that are not used."""
    return np.setdiff1d(np.arange(len(used) + count), used)[:count]


def digests(texts: Sequence[str]) -> Shaped[np.ndarray, " texts"]:
    """A 16-byte key for each text: among 10^12 texts, two alike have a chance of 10^-15."""
    hashes = (hashlib.blake2b(text.encode(), digest_size=KEY.itemsize) for text in texts)
    return np.fromiter((hashed.digest() for hashed in hashes), KEY, len(texts))


def is_store_of(folder: Path, meta: StoreMeta, replace: bool = False) -> bool:
    """Whether the folder is a store of this model; false when it is still to be begun.

    Raises InputError when it is something else, unless that is to be replaced.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; set teacher.folder to another")
    if {file.name for file in folder.iterdir()} <= {LOCK, partial_path(folder / META).name}:
        return False
    try:
        stored = read_meta(folder)
    except InputError:
        if replace:
            return False
        raise
    if stored == meta or replace:
        return stored == meta
    raise InputError(
        f"{folder}: holds {stored.dtype} embeddings of the model {stored.fingerprint[:16]}, and "
        f"this one is {meta.fingerprint[:16]} (other weights, pooling, max_length or tokenizer); "
        f"{CURE}"
    )


def read_meta(folder: Path) -> StoreMeta:
    """What meta.json holds.

    Raises InputError when the folder has none, or that of another version of mic.
    """
    try:
        stored = StoreMeta(**json.loads((folder / META).read_text(encoding="utf-8")))
        if stored.format == FORMAT and stored.dtype in NUMBERS:
            return stored
        reason = f"format {stored.format} and not {FORMAT}"
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
    raise InputError(f"{folder}: no {META} of this version of mic ({reason}); {CURE}")


@contextmanager
def filling(folder: Path, elsewhere: str) -> Iterator[None]:
    """Make the folder, and be the only process that writes to it."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LOCK, wait=False))
        except BlockingIOError:
            raise RunError(f"{folder}: another process is filling it; wait for its end") from None
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}; {elsewhere}") from None
        yield


@contextmanager
def writing(folder: Path, elsewhere: str) -> Iterator[None]:
    """Turn the system's errors into a RunError; what was written before stays valid."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: the embeddings could not be written: {error.strerror}; free some space or "
            f"{elsewhere}, then start again: what is written is kept"
        ) from error


class BoundedStore:
    """The embeddings of one model in the user's cache, which hold no more than a given size.

    `encode` gives [texts, width] for the new texts of a segment. A segment is a store of float32
    that is written whole or not at all, by any number of processes at once. When the segments of
    all models exceed `bound` bytes, those that were not used for longest are removed; those used
    since `begin_task` stay.
    """

    def __init__(
        self,
        fingerprint: str,
        width: int,
        encode: Callable[[Sequence[str]], Float32[np.ndarray, "segment width"]],
        bound: int = BOUND,
    ) -> None:
        self.folder = cache_folder() / "embeddings" / fingerprint
        self.encode, self.bound = encode, bound
        self.meta = StoreMeta(fingerprint, width, "float32")
        self.segments: dict[bytes, Path] = {}  # by the digest of a text
        self.in_use: set[Path] = set()
        for segment in sorted(self.folder.glob("[!.]*")):
            with suppress(InputError, OSError):  # damaged, or removed by another process
                self.remember(segment, self.open(segment).keys)

    def begin_task(self) -> None:
        """From now on what was used before may be removed."""
        self.in_use.clear()

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        """The full embeddings of texts, in their order; the longest of the new ones come first.

        Raises RunError for embeddings that are not finite, and where the disk is full.
        """
        keys: list[bytes] = digests(texts).tolist()
        embeddings = np.empty((len(texts), self.meta.width), np.float32)
        places: dict[bytes, list[int]] = {}  # in `texts`, of each digest
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        missing = sorted(self.read(embeddings, places), key=lambda key: -len(texts[places[key][0]]))
        for start in range(0, len(missing), SEGMENT_TEXTS):
            chosen = missing[start : start + SEGMENT_TEXTS]
            block = [texts[places[key][0]] for key in chosen]
            rows = self.encode(block)
            if not np.isfinite(rows).all():
                raise RunError("embeddings are not finite; the model diverged")
            self.write(block, rows)
            for key, row in zip(chosen, rows, strict=True):
                embeddings[places[key]] = row
        return embeddings

    def read(
        self, embeddings: Float32[np.ndarray, "texts width"], places: dict[bytes, list[int]]
    ) -> list[bytes]:
        """Fill in the embeddings that are on disk; the digests of those that are not."""
        by_segment: dict[Path, list[bytes]] = {}
        missing = []
        for key in places:
            if key in self.segments:
                by_segment.setdefault(self.segments[key], []).append(key)
            else:
                missing.append(key)
        for segment, keys in by_segment.items():
            try:
                # where its rows are is read again: another process may have removed the segment
                store = self.open(segment)
                numbers = store.rows_of(np.array(keys, KEY))
                rows = iter(store.vectors(numbers[numbers >= 0]))
            except (InputError, OSError):
                missing += keys
                continue
            for key, number in zip(keys, numbers, strict=True):
                if number < 0:
                    missing.append(key)
                else:
                    embeddings[places[key]] = next(rows)
            self.in_use.add(segment)
            with suppress(FileNotFoundError):
                os.utime(segment)
        return missing

    def open(self, segment: Path) -> EmbeddingStore:
        """A segment's store; an InputError where it is damaged or not of this model."""
        store = EmbeddingStore(segment)
        if store.meta != self.meta:
            raise InputError(f"{segment}: holds other embeddings; remove the folder")
        return store

    def write(self, texts: Sequence[str], rows: Float32[np.ndarray, "segment width"]) -> None:
        """Write a segment of new texts, and remove others where there is no room."""
        keys = digests(texts)
        name = hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()
        segment = self.folder / name
        partial = partial_path(self.folder / f"{name}.{os.getpid()}")
        elsewhere = "set the environment variable MIC_CACHE to a folder on another disk"
        whole = EncodedBlock(texts, rows)
        try:
            with writing(self.folder, elsewhere):
                self.folder.mkdir(parents=True, exist_ok=True)
            fill_store(partial, self.meta, texts, lambda _: iter([whole]), elsewhere, replace=True)
            with writing(self.folder, elsewhere):
                remove(segment)  # a damaged one
                name_segment(partial, segment)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.in_use.add(segment)
        self.remember(segment, keys)
        make_room(self.folder.parent, self.bound, self.in_use)

    def remember(self, segment: Path, keys: Shaped[np.ndarray, " texts"]) -> None:
        self.segments |= dict.fromkeys(keys.tolist(), segment)


def make_room(folder: Path, bound: int, in_use: set[Path]) -> None:
    """Remove segments below a folder, those that were not used for longest first, down to `bound`.

    Also what killed processes and older versions of mic left there.
    """
    segments = []
    for segment in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # another process was quicker
            files = [segment, *segment.iterdir()] if segment.is_dir() else [segment]
            size = sum(file.stat().st_size for file in files if not file.is_dir())
            segments.append((segment.stat().st_mtime_ns, size, segment))
    excess = sum(size for _, size, _ in segments) - bound
    for _, size, segment in sorted(segments):
        if excess <= 0:
            return
        if segment not in in_use:
            remove(segment)
            excess -= size


def name_segment(partial: Path, segment: Path) -> None:
    """Give a segment its name, unless another process wrote the same meanwhile."""
    try:
        partial.rename(segment)
    except OSError:
        if not segment.is_dir():
            raise


def remove(segment: Path) -> None:
    """Remove a segment from the sight of all processes at once, and then from the disk."""
    removed = partial_path(segment.with_name(f"{segment.name}.{os.getpid()}.removed"))
    try:
        segment.rename(removed)
    except FileNotFoundError:
        return
    if removed.is_dir():
        shutil.rmtree(removed, ignore_errors=True)
    else:
        removed.unlink(missing_ok=True)
