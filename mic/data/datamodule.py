"""Corpora to loaders of tokenized batches, in an order that is a formula (data.order)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.batch import Batch, Collate, Prepare
from mic.data.corpus import Corpus, open_corpus
from mic.data.indexed import Numbered, columns_of
from mic.data.mixture import Mixture, shares
from mic.data.order.batch_order import Asked, BatchSampler, NoBatchError, Order
from mic.data.sources.examples import OnBadRow
from mic.data.splits import Split, hold_out, impossible, whole
from mic.data.streaming.state import StreamModule, open_streams
from mic.data.subset import Part
from mic.data.tokens import tokenize_corpus
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError
from mic.train.resume.loop_state import place_of


class PairDataModule(StreamModule):
    """Training and validation batches of sentences twice, pairs, or pairs with hard negatives.

    `tokenize` turns texts into tokens; `prepare`, which may be set later, makes of the same texts
    what a teacher wants. `batch_size` counts the rows of all ranks. Without validation corpora,
    `config.validation_rows` rows (at most a tenth) are held out by the seed.

    Workers (`config.num_workers`) are new processes, not forks: a script that has any begins with
    `if __name__ == "__main__":`.

    A Trainer with several devices needs `use_distributed_sampler=False`: every rank takes its slice
    of the global batch here already. A run that resumes goes on at the batch it stopped before.

    Raises InputError, at construction, for data that cannot be trained on; and where `train` or
    `order` are asked for, which corpora that are read on the fly do not have.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenize: Tokenize,
        *,
        batch_size: int,
        batch_tokens: int | None = None,
        seed: int = 0,
        prepare: Prepare | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        gpu = torch.accelerator.is_available()
        self.tokenize = replace(tokenize, multiple=config.pad_multiple or (8 if gpu else 1))
        self.prepare = prepare
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.may_differ = False  # the rows, from those of a checkpoint
        self.streams = open_streams(config, batch_size, batch_tokens, seed)
        train = [] if self.streams else open_corpora(config.train, "train", config.on_bad_row)
        if config.validation:
            held = whole(open_corpora(config.validation, "validation", config.on_bad_row))
            kept = whole(train)
        else:
            kept, held = hold_out(train, config.validation_rows, seed)
        self.indexed: tuple[Split, Order] | None = None
        if self.streams is None:
            split = self.split("train", kept)
            try:
                self.indexed = split, self.order_of(split)
            except NoBatchError:
                raise InputError(impossible(split)) from None
        self.validation = self.split("validation", held)
        self.validation_order = self.order_of_all(self.validation)

    @property
    def train(self) -> Split:
        return self.index[0]

    @property
    def order(self) -> Order:
        return self.index[1]

    @property
    def index(self) -> tuple[Split, Order]:
        if self.indexed is None:
            raise InputError(
                "data.train: corpora that stream have no index, which a cached teacher and `mic "
                "data` need; set data.train.NAME.streaming=false, or teacher.kind=frozen"
            )
        return self.indexed

    def split(self, name: str, parts: Sequence[Part]) -> Split:
        """The rows of a split, their shares and, where asked, their tokens."""
        training = name == "train"
        corpora = [part.corpus for part in parts]
        rows = sum(map(len, parts))
        if rows < (self.batch_size if training and self.batch_tokens is None else 2):
            raise InputError(
                f"data.{name}: {rows} rows for trainer.batch_size={self.batch_size}; "
                "give more rows or a smaller batch"
            )
        columns = {corpus.name: columns_of(corpus) for corpus in corpora}
        if self.config.batches == "mixed" and len(set(columns.values())) > 1:
            raise InputError(
                f"data.{name}: corpora of {columns} columns in one batch; give all the same "
                "number, or set data.batches=single"
            )
        tokenized = None
        if self.config.tokenize == "ahead":
            tokenized = [tokenize_corpus(corpus, self.tokenize) for corpus in corpora]
        wanted = self.config.train
        weights = [wanted[corpus.name].weight for corpus in corpora] if training else None
        mixture = Mixture(
            parts,
            self.seed,
            batch_size=self.batch_size if training else even(rows, self.batch_size),
            weights=shares(parts, weights, self.config.temperature) if weights else None,
            single=self.config.batches == "single",
            keep_apart=self.config.keep_apart,
            lengths=[one.lengths for one in tokenized] if tokenized else None,
            batch_tokens=self.batch_tokens,
        )
        return Split(name, mixture, Numbered(corpora, tokenized))

    def order_of(self, split: Split) -> Order:
        mixture = split.mixture
        return Order(mixture.draw, mixture.sections, self.seed, self.config.window)

    def order_of_all(self, split: Split) -> Order:
        """An order that leaves out less than a batch, as validation should: rows that cannot all be
        kept apart may meet, and the loss masks them."""
        try:
            apart = self.order_of(split)
            if apart.left_out(0) < split.mixture.batch_size:
                return apart
        except NoBatchError:
            pass
        split.mixture.keep_apart = False
        return self.order_of(split)

    def texts(self) -> Iterator[str]:
        """Every text that a batch may hold; some come more than once."""
        for split in (self.train, self.validation):
            for texts in split.texts():
                yield from texts

    def sample(self, count: int, seed: int) -> list[tuple[str, ...]]:
        """The texts of `count` training rows: chosen by the seed, or a stream's first ones."""
        return self.streams.sample(count) if self.streams else self.train.sample(count, seed)

    @property
    def rows(self) -> dict[str, int | None]:
        """The rows of each split; None for streams, which nobody has counted."""
        train = None if self.streams else len(self.train)
        return {"train": train, "validation": len(self.validation)}

    @property
    def dropped(self) -> Counter[str] | None:
        """Rows that were read and are not used, by reason; None for streams."""
        if self.streams:
            return None
        return sum((Counter(one.meta.dropped) for one in self.corpora.values()), Counter())

    @property
    def skipped(self) -> int | None:
        """Rows that were read and are not used; None for streams."""
        return None if self.dropped is None else self.dropped.total()

    @property
    def corpora(self) -> dict[str, Corpus]:
        """Every corpus by split and name; a split held out of another has none of its own."""
        splits = [] if self.streams else [self.train]
        splits += [self.validation] if self.config.validation else []
        return {
            f"{s.name}/{part.corpus.name}": part.corpus for s in splits for part in s.mixture.parts
        }

    @property
    def hashes(self) -> dict[str, str]:
        """What every corpus's files held; how many and large they are, where they stream."""
        streamed = self.streams.described if self.streams else {}
        return streamed | {name: one.meta.fingerprint for name, one in self.corpora.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"data": self.hashes, **super().state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the rows of a checkpoint.

        Raises InputError where they are not the same, unless they `may_differ`.
        """
        self.refuse_other(state_dict.get("data", self.hashes))
        if "identity" in state_dict:
            super().load_state_dict(state_dict)

    def refuse_other(self, saved: Mapping[str, str]) -> None:
        """Raise an InputError where the hashes of a checkpoint's rows are others."""
        here = self.hashes
        other = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
        if other and not self.may_differ:
            raise InputError(
                f"data.{other[0].replace('/', '.')}: holds other rows than when the run began; "
                "give it those, begin anew, or go on all the same with --allow-change data"
            )

    def collate(self, split: Split) -> Collate:
        grouped = any(corpus.meta.grouped for corpus in split.numbered.corpora)
        return Collate(self.tokenize, self.prepare, grouped)

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.streams:
            return self.stream_loader(self.streams, self.tokenize, self.prepare)
        sampler = self.sampler(self.order)
        if self.trainer is not None:  # Lightning asks for the loader when its progress is restored
            sampler.start_at(*place_of(self.trainer, self.order), announced=True)
        return self.loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        sampler = self.sampler(self.validation_order, fixed=True)
        return self.loader(self.validation, sampler)

    def sampler(self, order: Order, fixed: bool = False) -> BatchSampler:
        """This rank's slices of an order."""
        if self.trainer is None:
            return BatchSampler(order, fixed=fixed)
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return BatchSampler(order, rank, ranks, fixed=fixed)

    def loader(self, split: Split, sampler: BatchSampler) -> DataLoader[Batch]:
        workers = self.config.num_workers
        return DataLoader(
            Batches(split.numbered, self.collate(split)),
            batch_sampler=sampler,  # type: ignore[arg-type]  # it asks for rows by more than numbers
            collate_fn=whole_batch,  # type: ignore[arg-type]
            num_workers=workers,
            # a forked worker could wait for ever for a lock that a tokenizer's thread held
            multiprocessing_context="forkserver" if workers else None,
            persistent_workers=workers > 0,
            # of the workers' seeds: torch's own would be drawn from at every epoch, or with workers
            # (they stay) only once, and again by a run that goes on
            generator=torch.Generator().manual_seed(self.seed),
        )


class Batches(Dataset[Batch]):
    """Batches by the rows that they ask for."""

    def __init__(self, numbered: Numbered, collate: Collate) -> None:
        self.numbered = numbered
        self.collate = collate

    def __getitems__(self, asked: Asked) -> Batch:
        rows = self.numbered.rows(asked.numbers, asked.partners)
        return self.collate(rows, asked.sizes)._replace(numbers=asked.numbers)

    def __getitem__(self, asked: Any) -> Batch:
        return self.__getitems__(asked)

    def __len__(self) -> int:
        return int(self.numbered.firsts[-1])


def even(rows: int, most: int) -> int:
    """A batch size that leaves out as few rows as can be: from half of `most` to it.

    >>> even(500, 64), even(41, 16), even(10, 64)
    (50, 10, 10)
    """
    most = min(rows, most)
    return min(range(most, max(most // 2, 2) - 1, -1), key=lambda size: rows % size)


def whole_batch(batch: Batch) -> Batch:
    """What a loader hands on: the batch, which is whole already."""
    return batch


def open_corpora(
    sources: Mapping[str, CorpusConfig], split: str, on_bad_row: OnBadRow
) -> list[Corpus]:
    """The corpora of a split. Raises InputError where there is none."""
    if not sources:
        raise InputError(
            f"data.{split}: no source; set data.{split}.NAME.path=FILE "
            f"data.{split}.NAME.columns=[anchor,positive]"
        )
    return [open_corpus(name, source, on_bad_row) for name, source in sources.items()]
