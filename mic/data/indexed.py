"""The rows of several corpora under one numbering: texts and tokens by number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from mic.data.corpus import Corpus
from mic.data.subset import keys_of
from mic.data.tokens import TokenizedCorpus

Ids = Int32[np.ndarray, " _"]


class Row(NamedTuple):
    """A row's texts, the number of its group, and its texts' tokens, where they are kept."""

    texts: tuple[str, ...]
    group: int | None = None
    tokens: tuple[Ids, ...] | None = None

    def twice(self) -> "Row":
        """The row of one text as a pair of it with itself."""
        return joined(self, self)


class Numbered:
    """Rows by number, through all corpora; small to send to another process."""

    def __init__(
        self, corpora: Sequence[Corpus], tokenized: Sequence[TokenizedCorpus] | None = None
    ) -> None:
        self.corpora = corpora
        self.tokenized = tokenized
        self.firsts = first_numbers(corpora)

    def rows(self, numbers: Sequence[int], partners: Sequence[int]) -> list[Row]:
        """The rows of the numbers, in their order, each joined with its partner (-1: none)."""
        found = [Row(())] * len(numbers)
        owners = np.searchsorted(self.firsts, numbers, side="right") - 1
        for owner in np.unique(owners).tolist():
            at = np.flatnonzero(owners == owner).tolist()
            rows = [numbers[i] - int(self.firsts[owner]) for i in at]
            read = self.read(owner, rows)
            if self.corpora[owner].meta.kind == "labelled":
                others = self.read(owner, [partners[i] - int(self.firsts[owner]) for i in at])
                read = [joined(*pair) for pair in zip(read, others, strict=True)]
            for i, row in zip(at, read, strict=True):
                found[i] = row
        return found

    def read(self, owner: int, rows: Sequence[int]) -> list[Row]:
        """Rows of one corpus."""
        corpus = self.corpora[owner]
        nothing = [None] * len(rows)
        grouped = corpus.meta.grouped
        groups = keys_of(corpus, np.array(rows))[:, -1].tolist() if grouped else nothing
        tokens = self.tokenized[owner].texts(rows) if self.tokenized else nothing
        return list(map(Row, corpus.texts(rows), groups, tokens))


def joined(row: Row, partner: Row) -> Row:
    tokens = row.tokens and partner.tokens and (*row.tokens, *partner.tokens)
    return Row((*row.texts, *partner.texts), row.group, tokens)


def first_numbers(corpora: Sequence[Corpus]) -> Int64[np.ndarray, " firsts"]:
    """Each corpus's first number, and the number of rows in all."""
    return np.cumsum([0, *map(len, corpora)])


def columns_of(corpus: Corpus) -> int:
    """The texts of a training row: a single text stands twice, or beside another of its label."""
    return max(corpus.meta.columns, 2)
