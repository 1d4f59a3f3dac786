"""Rows of text to batches of tokens."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from mic.errors import InputError
from mic.rows import OnBadRow, fingerprint, read_texts
from mic.settings import DataConfig, Source

Tokens = dict[str, Tensor]
Batch = list[Tokens]  # one entry a column: queries, positives, then hard negatives
TextRow = tuple[str, ...]


class PairDataModule(LightningDataModule):
    """Training and validation batches of sentences twice, pairs, or pairs with hard negatives.

    `tokenize` turns texts into a dict of tensors [texts, length]. Without validation sources,
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
    ) -> None:
        super().__init__()
        self.config = config
        self.batch_size = batch_size
        self.collate = partial(collate, tokenize)
        self.generator = torch.Generator().manual_seed(seed)
        self.train_rows, self.skipped = read_sources(config.train, "train", config.on_bad_row)
        if config.validation:
            self.validation_rows, skipped = read_sources(
                config.validation, "validation", config.on_bad_row
            )
            self.skipped += skipped
        else:
            self.train_rows, self.validation_rows = hold_out(
                self.train_rows, config.validation_rows, seed
            )
        for name, rows in (("train", self.train_rows), ("validation", self.validation_rows)):
            if len(rows) < (batch_size if name == "train" else 2):
                raise InputError(
                    f"data.{name}: {len(rows)} rows for trainer.batch_size={batch_size}; "
                    "give more rows or a smaller batch"
                )
        self.hashes = {
            f"{split}/{name}": fingerprint(source)
            for split, sources in (("train", config.train), ("validation", config.validation))
            for name, source in sources.items()
        }

    def train_dataloader(self) -> DataLoader[TextRow]:
        return self._loader(self.train_rows, self.generator)

    def val_dataloader(self) -> DataLoader[TextRow]:
        return self._loader(self.validation_rows, None)

    def _loader(self, rows: list[TextRow], shuffle: torch.Generator | None) -> DataLoader[TextRow]:
        batch_size = min(self.batch_size, len(rows))
        return DataLoader(
            rows,  # type: ignore[arg-type]  # a list is a Dataset in all but name
            batch_size=batch_size,
            shuffle=shuffle is not None,
            generator=shuffle,
            # a smaller last batch would have fewer negatives, and its loss would not compare
            drop_last=True,
            collate_fn=self.collate,
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
        )


def read_sources(
    sources: Mapping[str, Source], split: str, on_bad_row: OnBadRow
) -> tuple[list[TextRow], int]:
    """The rows of all sources of a split, and how many were skipped."""
    if not sources:
        raise InputError(
            f"data.{split}: no source; set data.{split}.NAME.path=FILE "
            f"data.{split}.NAME.columns=[anchor,positive]"
        )
    widths = {name: len(source.columns) for name, source in sources.items()}
    if len(set(widths.values())) > 1:
        raise InputError(f"data.{split}: sources of {widths} columns; give all the same number")
    found = [read_texts(source, on_bad_row) for source in sources.values()]
    return [row for texts in found for row in texts.rows], sum(texts.skipped for texts in found)


def hold_out(rows: list[TextRow], count: int, seed: int) -> tuple[list[TextRow], list[TextRow]]:
    """Split rows into (kept, held out) by the seed; at most a tenth is held out."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(count, len(rows) // 10)
    held = set(order[:count])
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [rows[index] for index in sorted(held)],
    )


def collate(tokenize: Callable[[Sequence[str]], Tokens], rows: Sequence[TextRow]) -> Batch:
    """A batch of rows as tokens per column; a single column stands twice, as in SimCSE.

    Dropout makes the two views of a single column different (Gao et al. 2021, section 3).
    """
    columns = [tokenize(texts) for texts in zip(*rows, strict=True)]
    return columns * 2 if len(columns) == 1 else columns
