"""A frozen teacher's embeddings on disk: computed once, found again by text and by weights.

A folder holds meta.json (which teacher wrote it), keys.bin (a digest of each text) and vectors.f16
(a row of float16 for each text, as the teacher gave it, not scaled to length 1). The two files only
grow at their ends, the vectors first, and each write is flushed to the disk before the next one
begins. So whenever the writing process was killed, the whole rows that both files hold are valid.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64, Shaped
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mic.console import bar
from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError
from mic.files import cache_folder, write_json

FORMAT = 1  # raise it whenever an older mic would misread the files
META, KEYS, VECTORS, LOCK = "meta.json", "keys.bin", "vectors.f16", "lock"
KEY, NUMBER = np.dtype("S16"), np.dtype("<f2")
LARGEST = float(np.finfo(np.float16).max)
BLOCK, SECONDS = 1024, 30.0  # texts, and time, between two writes, whichever is sooner
CURE = "remove the folder, or set teacher.folder to another"


class Meta(NamedTuple):
    """What meta.json says."""

    format: int
    fingerprint: str
    width: int
    dtype: str


class Opened(NamedTuple):
    """The files of a cache: sorted keys, the row of each, and the rows."""

    keys: Shaped[np.ndarray, " texts"]
    rows: Int64[np.ndarray, " texts"]
    vectors: Float16[np.ndarray, "texts dim"]


class TeacherCache:
    """The embeddings in a folder that `fill` wrote, looked up by text.

    Made for data loader workers: a pickle holds the path alone, and each process maps the files
    into its memory at its first look-up.

    Raises InputError when the folder holds no cache, or that of another version of mic.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.width = read_meta(folder).width

    def __reduce__(self) -> tuple[type["TeacherCache"], tuple[Path]]:
        return TeacherCache, (self.folder,)

    def __len__(self) -> int:
        return len(self._opened.keys)

    def __call__(self, texts: Sequence[str]) -> Float16[Tensor, "texts dim"]:
        """The texts' embeddings, in their order.

        Raises InputError for a text that the cache was not filled with.
        """
        rows = self.find(texts)
        if (rows < 0).any():
            text = texts[int(np.argmin(rows))]
            raise InputError(
                f"{self.folder}: no embedding of the text {text[:60]!r}; start again, so that the "
                "cache is filled for the present data, or set teacher.kind=frozen"
            )
        return torch.from_numpy(np.asarray(self._opened.vectors[rows]))

    def find(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """The row of each text, -1 where there is none."""
        wanted, (keys, rows, _) = digests(texts), self._opened
        if not len(keys):
            return np.full(len(wanted), -1)
        places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[places] == wanted, rows[places], -1)

    @cached_property
    def _opened(self) -> Opened:
        count = whole_rows(self.folder, self.width)
        if not count:  # an empty file cannot be mapped
            return Opened(np.empty(0, KEY), np.empty(0, int), np.empty((0, self.width), NUMBER))
        keys = np.fromfile(self.folder / KEYS, KEY, count)
        rows = np.argsort(keys, kind="stable")
        shape = (count, self.width)
        return Opened(keys[rows], rows, np.memmap(self.folder / VECTORS, NUMBER, "r", shape=shape))


def fill(
    folder: Path | None, encoder: Encoder, texts: Iterable[str], batch_size: int = 64
) -> TeacherCache:
    """A cache of `encoder` with every one of `texts`, in `folder` or, for None, the user's cache.

    Only the texts that are not there yet are encoded; a fill that was interrupted goes on where it
    stopped. Needs no right to write when nothing is missing.

    Raises InputError for a folder of another teacher or of other files, and RunError for an
    embedding that float16 cannot hold, a full disk, or another process that is filling the folder.
    """
    if batch_size < 1:
        raise InputError(f"teacher.batch_size={batch_size}: must be at least 1")
    meta = Meta(FORMAT, fingerprint(encoder), encoder.width, "float16")
    if folder is None:
        folder = cache_folder() / "teachers" / meta.fingerprint[:16]
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of strings")
    wanted = list(dict.fromkeys(texts))
    if is_owned(folder, meta) and not missing(folder, wanted):
        return TeacherCache(folder)
    with locked(folder):
        if not is_owned(folder, meta):  # asked again: another process may have begun it meanwhile
            with writing(folder):
                write_json(folder / META, meta._asdict())
        cut(folder, meta.width)
        encode(folder, encoder, missing(folder, wanted), batch_size)
    return TeacherCache(folder)


def encode(folder: Path, encoder: Encoder, texts: Sequence[str], batch_size: int) -> None:
    """Append the embeddings of texts that the folder does not hold."""
    texts = sorted(texts, key=len, reverse=True)  # little padding, and memory runs out at once
    keys, vectors = digests(texts), []
    written, last = 0, time.monotonic()
    with bar("embedding every text once", len(texts)) as advance:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            embeddings = encoder.embed(batch, batch_size=batch_size, progress=advance)
            vectors.append(to_half(embeddings, batch))
            done, now = start + len(batch), time.monotonic()
            if done - written >= BLOCK or now - last >= SECONDS or done == len(texts):
                append(folder, keys[written:done], np.concatenate(vectors))
                vectors, written, last = [], done, now


def append(
    folder: Path, keys: Shaped[np.ndarray, " texts"], vectors: Float16[np.ndarray, "texts dim"]
) -> None:
    """Write rows to the ends of both files: a key says that its vector is whole."""
    with writing(folder):
        for name, rows in ((VECTORS, vectors.astype(NUMBER, copy=False)), (KEYS, keys)):
            with (folder / name).open("ab") as file:
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())


def cut(folder: Path, width: int) -> None:
    """Take away what a killed process left half written, so that rows begin where they should."""
    count = whole_rows(folder, width)
    with writing(folder):
        for name, size in row_sizes(width).items():
            with (folder / name).open("ab") as file:
                file.truncate(count * size)


def whole_rows(folder: Path, width: int) -> int:
    """How many rows both files hold."""
    files = [(folder / name, size) for name, size in row_sizes(width).items()]
    return min(file.stat().st_size // size if file.is_file() else 0 for file, size in files)


def row_sizes(width: int) -> dict[str, int]:
    """The bytes of a row in each file."""
    return {KEYS: KEY.itemsize, VECTORS: width * NUMBER.itemsize}


def missing(folder: Path, texts: Sequence[str]) -> list[str]:
    """Those texts whose embeddings a cache does not hold."""
    rows = TeacherCache(folder).find(texts)
    return [text for text, row in zip(texts, rows, strict=True) if row < 0]


def digests(texts: Sequence[str]) -> Shaped[np.ndarray, " texts"]:
    """A 16-byte key for each text: among 10^12 texts, two alike have a chance of 10^-15."""
    found = [hashlib.blake2b(text.encode(), digest_size=KEY.itemsize) for text in texts]
    return np.array([one.digest() for one in found], KEY)


def to_half(
    embeddings: Float32[Tensor, "texts dim"], texts: Sequence[str]
) -> Float16[np.ndarray, "texts dim"]:
    """Embeddings as float16, or a RunError that names a text whose embedding it cannot hold."""
    broken = ~(embeddings.abs() <= LARGEST).all(1)  # true for NaN, too
    if broken.any():
        row = int(broken.nonzero()[0])
        largest = embeddings[row].abs().max().item()
        raise RunError(
            f"teacher: its embedding of {texts[row][:60]!r} holds {largest:g}, which float16 "
            "cannot hold; take another teacher.name or teacher.pooling"
        )
    return np.asarray(embeddings.half())


def is_owned(folder: Path, meta: Meta) -> bool:
    """Whether the folder is a cache of this teacher; false when it is still to be made.

    Raises InputError when it is something else.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; set teacher.folder to another")
    if {file.name for file in folder.iterdir()} <= {LOCK, f".{META}.partial"}:
        return False
    found = read_meta(folder)
    if found.fingerprint != meta.fingerprint:
        raise InputError(
            f"{folder}: written by the teacher {found.fingerprint[:16]}, and this one is "
            f"{meta.fingerprint[:16]} (other weights, pooling, max_length or tokenizer); {CURE}"
        )
    return True


def read_meta(folder: Path) -> Meta:
    """What a cache says of itself.

    Raises InputError when the folder holds none, or that of another version of mic.
    """
    try:
        found = Meta(**json.loads((folder / META).read_text(encoding="utf-8")))
        if found.format == FORMAT:
            return found
        reason = f"format {found.format} and not {FORMAT}"
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
    raise InputError(f"{folder}: no {META} of this version of mic ({reason}); {CURE}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one to write to a folder; the lock ends with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; set teacher.folder to another") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is filling it; wait for its end") from None
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's errors into a RunError; what was written before stays valid."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: the teacher's embeddings could not be written: {error.strerror}; free "
            "some space or set teacher.folder, then start again: what is written is kept"
        ) from error


def fingerprint(encoder: Encoder) -> str:
    """A SHA-256 of all that decides an embedding: weights, architecture, pooling and tokens.

    The folder that the encoder came from and what was done with it since make no difference.
    """
    shape = encoder.backbone.config.to_diff_dict() | {"_name_or_path": 0, "transformers_version": 0}
    settings = [shape, encoder.pooling, encoder.max_length, describe(encoder.tokenizer)]
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        # no embedding passes through BERT's own pooler, which begins at random if the file has none
        if not name.startswith("backbone.pooler."):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def describe(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What a tokenizer does to a text, as JSON knows it."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        state = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    else:
        state = json.loads(backend.to_str()) | {"truncation": 0, "padding": 0}  # of the last call
    return [tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.truncation_side, state]
