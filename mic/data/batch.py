"""Batch, the tokenized rows of a step, and Collate, which makes one of rows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mic.data.indexed import Row
from mic.data.sources.examples import hash_text
from mic.encoder.tokenizer import Tokenize, Tokens

Prepare = Callable[[Sequence[str]], Tokens | Tensor]  # texts to what a teacher takes


class Batch(NamedTuple):
    """Tokenized columns: queries, positives, then hard negatives.

    `ids` [batch, columns] are the hashes of the texts, `groups` [batch] those of the rows' groups.
    `prepared` holds what the teacher takes of each column, `sizes` how many rows each rank has,
    where that is known, `state` the state of a stream after this batch, and `row_numbers` which
    rows of the indexed corpora these are.
    """

    columns: list[Tokens]
    ids: Int[Tensor, "batch columns"] | None = None
    groups: Int[Tensor, " batch"] | None = None
    prepared: list[Tokens | Tensor] | None = None
    sizes: list[int] | None = None
    state: str | None = None
    row_numbers: list[int] | None = None

    @property
    def size(self) -> int:
        return len(self.columns[0]["input_ids"])

    def chunks(self, size: int) -> list["Batch"]:
        """The batch in chunks of `size` rows; the last may have fewer."""
        return [self.slice_rows(slice(start, start + size)) for start in range(0, self.size, size)]

    def slice_rows(self, rows: slice) -> "Batch":
        def cut(tokens: Tokens | Tensor) -> Tokens | Tensor:
            if isinstance(tokens, Tensor):
                return tokens[rows]
            return {name: value[rows] for name, value in tokens.items()}

        return Batch(
            [{name: value[rows] for name, value in tokens.items()} for tokens in self.columns],
            None if self.ids is None else self.ids[rows],
            None if self.groups is None else self.groups[rows],
            None if self.prepared is None else [cut(column) for column in self.prepared],
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
        ids = torch.tensor([[signed(hash_text(text)) for text in row.texts] for row in rows])
        if len(texts) == 1:
            columns, ids = columns * 2, ids.repeat(1, 2)
            prepared = prepared * 2 if prepared else None
        groups = torch.tensor([group_id(row) for row in rows]) if self.grouped else None
        return Batch(columns, ids, groups, prepared, sizes)

    def columns(self, rows: Sequence[Row], texts: Sequence[Sequence[str]]) -> list[Tokens]:
        if any(row.tokens is None for row in rows):
            return [self.tokenize(column) for column in texts]
        tokens = zip(*(row.tokens or () for row in rows), strict=True)
        return [self.tokenize.batch(column) for column in tokens]


def group_id(row: Row) -> int:
    """The hash of a row's group; a row without one has a group that only equal rows share."""
    return signed(hash_text("\0".join(("row", *row.texts))) if row.group is None else row.group)


def signed(number: int) -> int:
    """An unsigned number of 64 bits as the signed one of the same bits, which torch holds."""
    return number - 2**64 if number >= 2**63 else number


def unchanged(batch: Any) -> Any:
    """The `collate_fn` of a DataLoader whose data set gives whole batches."""
    return batch
