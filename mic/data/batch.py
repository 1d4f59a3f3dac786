"""A tokenized batch, and how rows become one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mic.data.indexed import Row
from mic.data.sources.examples import number
from mic.encoder.tokenizer import Tokenize, Tokens

Prepare = Callable[[Sequence[str]], Tokens | Tensor]  # texts to what a teacher wants of them


class Batch(NamedTuple):
    """Tokenized columns: queries, positives, then hard negatives.

    `ids` [batch, columns] number the texts, equal texts equally; `groups` [batch] number the rows'
    groups. `prepared` holds what the teacher wants of each column, `sizes` every rank's number of
    rows, where they are known, `state` where a stream stands after this batch, and `numbers` which
    rows of an indexed corpus these are.
    """

    columns: list[Tokens]
    ids: Int[Tensor, "batch columns"] | None = None
    groups: Int[Tensor, " batch"] | None = None
    prepared: list[Tokens | Tensor] | None = None
    sizes: list[int] | None = None
    state: str | None = None
    numbers: list[int] | None = None

    @property
    def size(self) -> int:
        return len(self.columns[0]["input_ids"])

    def chunks(self, size: int) -> list["Batch"]:
        """The batch in parts of `size` rows; the last may have fewer."""
        return [self.part(slice(start, start + size)) for start in range(0, self.size, size)]

    def part(self, rows: slice) -> "Batch":
        def cut(tokens: Tokens | Tensor) -> Tokens | Tensor:
            if isinstance(tokens, Tensor):
                return tokens[rows]
            return {name: value[rows] for name, value in tokens.items()}

        return Batch(
            [{name: value[rows] for name, value in tokens.items()} for tokens in self.columns],
            None if self.ids is None else self.ids[rows],
            None if self.groups is None else self.groups[rows],
            None if self.prepared is None else [cut(one) for one in self.prepared],
        )


class Collate(NamedTuple):
    """Rows to a batch; a single column stands twice, as in SimCSE.

    Dropout makes the two views of a single column different (Gao et al. 2021, section 3).
    """

    tokenize: Tokenize
    prepare: Prepare | None = None
    grouped: bool = False

    def __call__(self, rows: Sequence[Row], sizes: list[int] | None = None) -> Batch:
        if len({len(row.texts) for row in rows}) > 1:  # sentences among pairs
            rows = [row.twice() if len(row.texts) == 1 else row for row in rows]
        texts = list(zip(*(row.texts for row in rows), strict=True))
        columns = self.columns(rows, texts)
        prepared = [self.prepare(column) for column in texts] if self.prepare else None
        ids = torch.tensor([[signed(number(text)) for text in row.texts] for row in rows])
        if len(texts) == 1:
            columns, ids = columns * 2, ids.repeat(1, 2)
            prepared = prepared * 2 if prepared else None
        groups = torch.tensor([group_of(row) for row in rows]) if self.grouped else None
        return Batch(columns, ids, groups, prepared, sizes)

    def columns(self, rows: Sequence[Row], texts: Sequence[Sequence[str]]) -> list[Tokens]:
        if any(row.tokens is None for row in rows):
            return [self.tokenize(column) for column in texts]
        tokens = zip(*(row.tokens or () for row in rows), strict=True)
        return [self.tokenize.batch(column) for column in tokens]


def group_of(row: Row) -> int:
    """The number of a row's group, or of one of its own."""
    return signed(number("\0".join(("row", *row.texts))) if row.group is None else row.group)


def signed(number: int) -> int:
    """A number of 64 bits as torch holds it."""
    return number - 2**64 if number >= 2**63 else number
