"""Rows of text to batches of tokens."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from mic.errors import InputError
from mic.rows import OnBadRow, fingerprint, read_texts
from mic.settings import DataConfig, Source

Tokens = dict[str, Tensor]
TextRow = tuple[str, ...]
Prepare = Callable[[Sequence[str]], Tokens | Tensor]  # texts to what a teacher wants of them


class Row(NamedTuple):
    """A row of a source: its texts, and the group it belongs to, where it has one."""

    texts: TextRow
    group: str | None = None


class Batch(NamedTuple):
    """Tokenized columns: queries, positives, then hard negatives.

    `ids` [batch, columns] number the texts, equal texts equally; `groups` [batch] number the rows'
    groups. `prepared` holds what the teacher wants of each column, and `sizes` every rank's number
    of rows, where they are known.
    """

    columns: list[Tokens]
    ids: Int[Tensor, "batch columns"] | None = None
    groups: Int[Tensor, " batch"] | None = None
    prepared: list[Tokens | Tensor] | None = None
    sizes: list[int] | None = None

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


class PairDataModule(LightningDataModule):
    """Training and validation batches of sentences twice, pairs, or pairs with hard negatives.

    `tokenize` turns texts into a dict of tensors [texts, length]; `prepare`, which may be set
    later, makes of the same texts what a teacher wants. Without validation sources,
    `config.validation_rows` rows (at most a tenth) are held out by the seed. The order of the
    training rows depends on the seed alone; the rows left over by the last whole batch of an
    epoch are other ones in every epoch.

    Raises InputError, at construction, for data that cannot be trained on.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenize: Callable[[Sequence[str]], Tokens],
        *,
        batch_size: int,
        seed: int = 0,
        prepare: Prepare | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.batch_size = batch_size
        self.tokenize = tokenize
        self.prepare = prepare
        self.generator = torch.Generator().manual_seed(seed)
        train, self.skipped = read_sources(config.train, "train", config.on_bad_row)
        if config.validation:
            validation, skipped = read_sources(config.validation, "validation", config.on_bad_row)
            self.skipped += skipped
        else:
            train, validation = hold_out(train, config.validation_rows, seed)
        for name, rows in (("train", train), ("validation", validation)):
            if len(rows) < (batch_size if name == "train" else 2):
                raise InputError(
                    f"data.{name}: {len(rows)} rows for trainer.batch_size={batch_size}; "
                    "give more rows or a smaller batch"
                )
        self.rows = {"train": train, "validation": validation}
        self.train_rows = [row.texts for row in train]
        self.validation_rows = [row.texts for row in validation]
        self.hashes = {
            f"{split}/{name}": fingerprint(source)
            for split, sources in (("train", config.train), ("validation", config.validation))
            for name, source in sources.items()
        }

    def texts(self) -> Iterator[str]:
        """Every text that a batch may hold; some come more than once."""
        for rows in self.rows.values():
            for row in rows:
                yield from row.texts

    def collate(self) -> "Collate":
        grouped = any(row.group is not None for rows in self.rows.values() for row in rows)
        # every batch is whole (drop_last below), so every rank has as many rows
        ranks = None if self.trainer is None else self.trainer.world_size
        return Collate(self.tokenize, self.prepare, grouped, ranks)

    def train_dataloader(self) -> DataLoader[Row]:
        return self._loader(self.rows["train"], self.generator)

    def val_dataloader(self) -> DataLoader[Row]:
        return self._loader(self.rows["validation"], None)

    def _loader(self, rows: list[Row], shuffle: torch.Generator | None) -> DataLoader[Row]:
        batch_size = min(self.batch_size, len(rows))
        return DataLoader(
            rows,  # type: ignore[arg-type]  # a list is a Dataset in all but name
            batch_size=batch_size,
            shuffle=shuffle is not None,
            generator=shuffle,
            # a smaller last batch would have fewer negatives, and its loss would not compare
            drop_last=True,
            collate_fn=self.collate(),  # type: ignore[arg-type]  # a list is a Sequence
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
        )


def read_sources(
    sources: Mapping[str, Source], split: str, on_bad_row: OnBadRow
) -> tuple[list[Row], int]:
    """The rows of all sources of a split, and how many were skipped."""
    if not sources:
        raise InputError(
            f"data.{split}: no source; set data.{split}.NAME.path=FILE "
            f"data.{split}.NAME.columns=[anchor,positive]"
        )
    widths = {name: len(source.columns) for name, source in sources.items()}
    if len(set(widths.values())) > 1:
        raise InputError(f"data.{split}: sources of {widths} columns; give all the same number")
    found = {name: read_texts(source, on_bad_row) for name, source in sources.items()}
    rows: list[Row] = []
    for name, texts in found.items():
        # sources number their groups each for itself
        groups = [f"{name}:{group}" for group in texts.groups] if texts.groups else repeat(None)
        rows += [Row(*row) for row in zip(texts.rows, groups, strict=False)]
    return rows, sum(texts.skipped for texts in found.values())


def hold_out(rows: list[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into (kept, held out) by the seed; at most a tenth is held out."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(count, len(rows) // 10)
    held = set(order[:count])
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [rows[index] for index in sorted(held)],
    )


class Collate(NamedTuple):
    """Rows to a batch; a single column stands twice, as in SimCSE.

    Dropout makes the two views of a single column different (Gao et al. 2021, section 3).
    """

    tokenize: Callable[[Sequence[str]], Tokens]
    prepare: Prepare | None = None
    grouped: bool = False
    ranks: int | None = None

    def __call__(self, rows: Sequence[Row]) -> Batch:
        texts = list(zip(*(row.texts for row in rows), strict=True))
        columns = [self.tokenize(column) for column in texts]
        prepared = [self.prepare(column) for column in texts] if self.prepare else None
        ids = torch.tensor([[number(text) for text in row.texts] for row in rows])
        if len(texts) == 1:
            columns, ids = columns * 2, ids.repeat(1, 2)
            prepared = prepared * 2 if prepared else None
        groups = torch.tensor([number(group_of(row)) for row in rows]) if self.grouped else None
        sizes = None if self.ranks is None else [len(rows)] * self.ranks
        return Batch(columns, ids, groups, prepared, sizes)


def group_of(row: Row) -> str:
    """A row's group, or one of its own."""
    named = ("row", *row.texts) if row.group is None else ("group", row.group)
    return "\0".join(named)


def number(text: str) -> int:
    """A text's number of 64 bits; different texts have different ones but for 1 pair in 2^64."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
