"""RowIndex: the texts and tokens of the rows of several corpora, numbered through all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from mic.data.corpus import Corpus, TokenizedCorpus
from mic.data.subset import row_keys

Ids = Int32[np.ndarray, " _"]


class Row(NamedTuple):
    """A row's texts, the hash of its group, and the tokens of its texts, where they are stored."""

    texts: tuple[str, ...]
    group: int | None = None
    tokens: tuple[Ids, ...] | None = None

    def twice(self) -> "Row":
        """The row of one text as a pair of it with itself."""
        return join_rows(self, self)


class RowIndex:
    """Rows by number, counted through all corpora; cheap to send to another process."""

    def __init__(
        self, corpora: Sequence[Corpus], tokenized: Sequence[TokenizedCorpus] | None = None
    ) -> None:
        self.corpora = corpora
        self.tokenized = tokenized
        self.firsts = first_numbers(corpora)

    def rows(self, numbers: Sequence[int], partners: Sequence[int]) -> list[Row]:
        """The rows of the numbers, in their order, each joined with its partner (-1: none)."""
        rows = [Row(())] * len(numbers)
        owners = np.searchsorted(self.firsts, numbers, side="right") - 1
        for owner in np.unique(owners).tolist():
            positions = np.flatnonzero(owners == owner).tolist()
            first = int(self.firsts[owner])
            read = self.read(owner, [numbers[position] - first for position in positions])
            if self.corpora[owner].meta.kind == "labelled":
                others = self.read(owner, [partners[position] - first for position in positions])
                read = [join_rows(*pair) for pair in zip(read, others, strict=True)]
            for position, row in zip(positions, read, strict=True):
                rows[position] = row
        return rows

    def read(self, owner: int, rows: Sequence[int]) -> list[Row]:
        """Rows of one corpus."""
        corpus = self.corpora[owner]
        nothing = [None] * len(rows)
        grouped = corpus.meta.grouped
        groups = row_keys(corpus, np.array(rows))[:, -1].tolist() if grouped else nothing
        tokens = self.tokenized[owner].texts(rows) if self.tokenized else nothing
        return list(map(Row, corpus.texts(rows), groups, tokens))


def join_rows(row: Row, partner: Row) -> Row:
    tokens = row.tokens and partner.tokens and (*row.tokens, *partner.tokens)
    return Row((*row.texts, *partner.texts), row.group, tokens)


def first_numbers(corpora: Sequence[Corpus]) -> Int64[np.ndarray, " firsts"]:
    """Each corpus's first number, and the number of rows in all."""
    return np.cumsum([0, *map(len, corpora)])


def training_columns(corpus: Corpus) -> int:
    """The texts of a training row: a single text stands twice, or beside another of its label."""
    return max(corpus.meta.columns, 2)
