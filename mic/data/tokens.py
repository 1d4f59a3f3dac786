"""The tokens of a whole corpus, made once and kept on disk."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from mic.console import bar
from mic.data.corpus import BLOCK, Corpus
from mic.encoder.tokenizer import Tokenize
from mic.files import cache_folder, made_once

FORMAT = 1  # raise it whenever an older mic would misread the files
IDS, ENDS = "ids.i32", "ends.i64"


class TokenizedCorpus:
    """The tokens of every text of a corpus, by row and column, memory-mapped."""

    def __init__(self, folder: Path, columns: int) -> None:
        self.folder = folder
        self.columns = columns

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenizedCorpus, (self.folder, self.columns)

    @cached_property
    def flat(self) -> Int32[np.ndarray, " tokens"]:
        return np.memmap(self.folder / IDS, np.int32, "r")

    @cached_property
    def ends(self) -> Int64[np.ndarray, " texts"]:
        return np.memmap(self.folder / ENDS, np.int64, "r")

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
    """The tokens of a corpus: found in the cache, or made and kept there."""
    folder = cache_folder() / "tokens" / f"{FORMAT}-{corpus.folder.name}-{tokenize.fingerprint}"

    def make(partial: Path) -> None:
        end = 0
        with (
            (partial / IDS).open("wb") as flat,
            (partial / ENDS).open("wb") as ends,
            bar(f"tokenizing {corpus.name}", len(corpus)) as advance,
        ):
            for start in range(0, len(corpus), BLOCK):
                rows = corpus.texts(range(start, min(start + BLOCK, len(corpus))))
                found = tokenize.ids([text for row in rows for text in row])
                counts = np.array(list(map(len, found)))
                flat.write(np.concatenate([np.array(ids, np.int32) for ids in found]).tobytes())
                ends.write((end + np.cumsum(counts)).astype(np.int64).tobytes())
                end += int(counts.sum())
                advance(len(rows))

    return TokenizedCorpus(made_once(folder, make), corpus.meta.columns)
