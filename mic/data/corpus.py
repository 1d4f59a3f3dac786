"""A corpus on disk: read, filtered and hashed once, then memory-mapped.

A folder in the user's cache holds texts.arrow (the text columns), keys.u64 (a number for each text
and for the group or label), lengths.i32 (their characters) and meta.json (what
was read and what was dropped). It is found again by what the files held and how they were read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from jaxtyping import Int32, UInt64

from mic.config.schema_data import CorpusConfig
from mic.console import bar
from mic.data.sources.examples import Example, Kind, OnBadRow, kind_of, number, read_examples
from mic.data.sources.files import fingerprint
from mic.errors import InputError
from mic.files import cache_folder, made_once

FORMAT = 1  # raise it whenever an older mic would misread the files, or the rows would differ
TEXTS, KEYS, LENGTHS, META = "texts.arrow", "keys.u64", "lengths.i32", "meta.json"
BLOCK = 10_000  # rows written at a time


@dataclass(frozen=True)
class Meta:
    """What meta.json says: rows read and kept, rows dropped by reason, what the files held."""

    kind: Kind
    columns: int
    grouped: bool
    rows: int
    read: int
    dropped: dict[str, int]
    fingerprint: str


class Corpus:
    """The rows of a source, by number.

    `keys` [rows, columns (+ 1)] number the texts, equal texts equally, and the group or label where
    there is one; `lengths` [rows, columns] are the texts' characters.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.meta = Meta(**json.loads((folder / META).read_text(encoding="utf-8")))

    def __len__(self) -> int:
        return self.meta.rows

    def __reduce__(self) -> tuple[type["Corpus"], tuple[str, Path]]:
        return Corpus, (self.name, self.folder)  # another process maps the files anew

    @cached_property
    def table(self) -> Any:
        from datasets import Dataset

        return Dataset.from_file(str(self.folder / TEXTS))

    @cached_property
    def keys(self) -> UInt64[np.ndarray, "rows keys"]:
        shape = (self.meta.rows, self.meta.columns + self.meta.grouped)
        return np.memmap(self.folder / KEYS, np.uint64, "r", shape=shape)

    @cached_property
    def lengths(self) -> Int32[np.ndarray, "rows columns"]:
        shape = (self.meta.rows, self.meta.columns)
        return np.memmap(self.folder / LENGTHS, np.int32, "r", shape=shape)

    def texts(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """The texts of some rows, in their order."""
        found = self.table[list(rows)]
        return list(zip(*(found[str(column)] for column in range(self.meta.columns)), strict=True))

    def all_texts(self) -> Iterator[tuple[str, ...]]:
        """The texts of every row, in order."""
        for start in range(0, len(self), BLOCK):
            yield from self.texts(range(start, min(start + BLOCK, len(self))))


def open_corpus(name: str, source: CorpusConfig, on_bad_row: OnBadRow = "raise") -> Corpus:
    """The corpus of a source: found in the cache, or read into it.

    Raises InputError for rows that cannot be used, naming file, row and cure, and RunError for a
    disk that does not take them.
    """
    digest = fingerprint(source)
    unread = ("path", "split", "subset", "revision", "weight", "streaming")
    read = {key: value for key, value in asdict(source).items() if key not in unread}
    named = json.dumps([FORMAT, read, on_bad_row, digest], sort_keys=True)
    folder = cache_folder() / "corpora" / hashlib.sha256(named.encode()).hexdigest()[:32]

    def make(partial: Path) -> None:
        counts: Counter[str] = Counter()
        with bar(f"reading {name}", None) as advance:
            examples = read_examples(source, on_bad_row, counts)
            rows = write_rows(partial, examples, len(source.columns), advance)
        if not rows:
            dropped = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            raise InputError(f"{source.path}: no row is left to train on ({dropped})")
        grouped = bool(source.group or source.label)
        read = counts.pop("read")
        meta = Meta(kind_of(source), len(source.columns), grouped, rows, read, dict(counts), digest)
        (partial / META).write_text(json.dumps(asdict(meta)), encoding="utf-8")

    return Corpus(name, made_once(folder, make))


def write_rows(folder: Path, examples: Iterable[Example], columns: int, advance: Any) -> int:
    """Write examples block by block, and return how many there were."""
    schema = pyarrow.schema([(str(column), pyarrow.large_string()) for column in range(columns)])
    rows, ahead = 0, iter(examples)
    with ExitStack() as stack:
        texts = stack.enter_context(pyarrow.ipc.new_stream(str(folder / TEXTS), schema))
        keys = stack.enter_context((folder / KEYS).open("wb"))
        lengths = stack.enter_context((folder / LENGTHS).open("wb"))
        while block := list(islice(ahead, BLOCK)):
            found = [example.texts for example in block]
            texts.write_batch(pyarrow.record_batch([*zip(*found, strict=True)], schema=schema))
            keys.write(np.array([keys_of(example) for example in block], np.uint64).tobytes())
            lengths.write(np.array([[*map(len, row)] for row in found], np.int32).tobytes())
            rows += len(block)
            advance(len(block))
    return rows


def keys_of(example: Example) -> list[int]:
    """The numbers of a row's texts, and of its group."""
    group = [] if example.group is None else [example.group]
    return [*map(number, example.texts), *group]
