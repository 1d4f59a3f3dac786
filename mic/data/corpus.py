"""Read, filter and hash a corpus once, tokenize it once, and memory-map both from the user's cache.

The folder of a corpus holds texts.arrow (the text columns), keys.u64 (a hash of each text and of
the group or label), lengths.i32 (characters of each text) and meta.json (what was read and what was
dropped); its name is a hash of what the files held and how they were read. The folder of its tokens
holds ids.i32 (the token ids of all texts) and ends.i64 (where each text ends).
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
from jaxtyping import Int32, Int64, UInt64

from mic.config.schema_data import CorpusConfig
from mic.console import bar
from mic.data.sources.examples import Example, Kind, OnBadRow, hash_text, kind_of, read_examples
from mic.data.sources.files import source_fingerprint
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError
from mic.files import cache_folder, made_once

# raise them whenever an older mic would misread the files, or the rows would differ
CORPUS_FORMAT, TOKENS_FORMAT = 1, 1
TEXTS, KEYS, LENGTHS, META = "texts.arrow", "keys.u64", "lengths.i32", "meta.json"
TOKEN_IDS, TOKEN_ENDS = "ids.i32", "ends.i64"
BLOCK = 10_000  # rows written at a time


@dataclass(frozen=True)
class CorpusMeta:
    """The content of meta.json: rows read and used, rows dropped by reason, a hash of the files."""

    kind: Kind
    columns: int
    grouped: bool
    rows: int
    read: int
    dropped: dict[str, int]
    fingerprint: str


class Corpus:
    """The rows of a source, by number.

    `keys` [rows, columns (+ 1)] are the hashes of the texts, and of the group or label where there
    is one; `lengths` [rows, columns] are the texts' characters.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.meta = CorpusMeta(**json.loads((folder / META).read_text(encoding="utf-8")))

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
        texts = self.table[list(rows)]
        return list(zip(*(texts[str(column)] for column in range(self.meta.columns)), strict=True))

    def all_texts(self) -> Iterator[tuple[str, ...]]:
        """The texts of every row, in order."""
        for start in range(0, len(self), BLOCK):
            yield from self.texts(range(start, min(start + BLOCK, len(self))))


def open_corpus(name: str, source: CorpusConfig, on_bad_row: OnBadRow = "raise") -> Corpus:
    """The corpus of a source, from the cache or else read into it.

    Raises InputError for rows that cannot be used, naming file, row and cure, and RunError for a
    disk that does not take them.
    """
    fingerprint = source_fingerprint(source)
    unread = ("path", "split", "subset", "revision", "weight", "streaming")
    settings = {key: value for key, value in asdict(source).items() if key not in unread}
    key = json.dumps([CORPUS_FORMAT, settings, on_bad_row, fingerprint], sort_keys=True)
    folder = cache_folder() / "corpora" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def make(partial: Path) -> None:
        counts: Counter[str] = Counter()
        with bar(f"reading {name}", None) as advance:
            examples = read_examples(source, on_bad_row, counts)
            rows = write_rows(partial, examples, len(source.columns), advance)
        if not rows:
            dropped = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            raise InputError(f"{source.path}: no row is left to train on ({dropped})")
        grouped = bool(source.group or source.label)
        meta = CorpusMeta(
            kind=kind_of(source),
            columns=len(source.columns),
            grouped=grouped,
            rows=rows,
            read=counts.pop("read"),
            dropped=dict(counts),
            fingerprint=fingerprint,
        )
        (partial / META).write_text(json.dumps(asdict(meta)), encoding="utf-8")

    return Corpus(name, made_once(folder, make))


def write_rows(folder: Path, examples: Iterable[Example], columns: int, advance: Any) -> int:
    """Write examples block by block, and return how many there were."""
    schema = pyarrow.schema([(str(column), pyarrow.large_string()) for column in range(columns)])
    rows, remaining = 0, iter(examples)
    with ExitStack() as stack:
        texts = stack.enter_context(pyarrow.ipc.new_stream(str(folder / TEXTS), schema))
        keys = stack.enter_context((folder / KEYS).open("wb"))
        lengths = stack.enter_context((folder / LENGTHS).open("wb"))
        while block := list(islice(remaining, BLOCK)):
            rows_of_texts = [example.texts for example in block]
            columns_of_texts = [*zip(*rows_of_texts, strict=True)]
            texts.write_batch(pyarrow.record_batch(columns_of_texts, schema=schema))
            keys.write(np.array([example_keys(example) for example in block], np.uint64).tobytes())
            lengths.write(np.array([[*map(len, row)] for row in rows_of_texts], np.int32).tobytes())
            rows += len(block)
            advance(len(block))
    return rows


def example_keys(example: Example) -> list[int]:
    """The hashes of a row's texts, and of its group."""
    group = [] if example.group is None else [example.group]
    return [*map(hash_text, example.texts), *group]


class TokenizedCorpus:
    """The tokens of every text of a corpus, by row and column, memory-mapped."""

    def __init__(self, folder: Path, columns: int) -> None:
        self.folder = folder
        self.columns = columns

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenizedCorpus, (self.folder, self.columns)

    @cached_property
    def flat(self) -> Int32[np.ndarray, " tokens"]:
        return np.memmap(self.folder / TOKEN_IDS, np.int32, "r")

    @cached_property
    def ends(self) -> Int64[np.ndarray, " texts"]:
        return np.memmap(self.folder / TOKEN_ENDS, np.int64, "r")

    def texts(self, rows: Sequence[int]) -> list[tuple[Int32[np.ndarray, " _"], ...]]:
        """The tokens of some rows, a sequence a column."""
        return [
            tuple(self.sequence(row * self.columns + column) for column in range(self.columns))
            for row in rows
        ]

    def sequence(self, text: int) -> Int32[np.ndarray, " tokens"]:
        start = self.ends[text - 1] if text else 0
        return self.flat[start : self.ends[text]]

    @cached_property
    def lengths(self) -> Int32[np.ndarray, "rows columns"]:
        """The tokens of each text."""
        counts = np.diff(self.ends, prepend=0).reshape(-1, self.columns)
        return counts.astype(np.int32)


def tokenize_corpus(corpus: Corpus, tokenize: Tokenize) -> TokenizedCorpus:
    """The tokens of a corpus, from the cache or else computed and stored there."""
    folder = (
        cache_folder() / "tokens" / f"{TOKENS_FORMAT}-{corpus.folder.name}-{tokenize.fingerprint}"
    )

    def make(partial: Path) -> None:
        end = 0
        with (
            (partial / TOKEN_IDS).open("wb") as flat,
            (partial / TOKEN_ENDS).open("wb") as ends,
            bar(f"tokenizing {corpus.name}", len(corpus)) as advance,
        ):
            for start in range(0, len(corpus), BLOCK):
                rows = corpus.texts(range(start, min(start + BLOCK, len(corpus))))
                tokens = tokenize.ids([text for row in rows for text in row])
                counts = np.array(list(map(len, tokens)))
                flat.write(np.concatenate([np.array(ids, np.int32) for ids in tokens]).tobytes())
                ends.write((end + np.cumsum(counts)).astype(np.int64).tobytes())
                end += int(counts.sum())
                advance(len(rows))

    return TokenizedCorpus(made_once(folder, make), corpus.meta.columns)
