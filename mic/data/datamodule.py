"""PairDataModule: the Lightning data module that turns corpora into batches of tokens."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.batch import Batch, Collate, Prepare, unchanged
from mic.data.corpus import Corpus, open_corpus, tokenize_corpus
from mic.data.indexed import RowIndex, training_columns
from mic.data.mixture import Mixture, corpus_weights
from mic.data.order.batch_order import BatchRequest, BatchSampler, NoBatchError, Order
from mic.data.order.position import next_batch
from mic.data.sources.examples import OnBadRow
from mic.data.splits import Split, all_rows, explain_no_batch, hold_out
from mic.data.streaming.loader import StreamLoader, Streams, open_streams
from mic.data.streaming.state import StreamState
from mic.data.subset import CorpusSubset
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError


class PairDataModule(LightningDataModule):
    """Training and validation batches of sentences twice, pairs, or pairs with hard negatives.

    `tokenize` turns texts into tokens; `prepare` turns the same texts into what a teacher takes,
    and is, unless given, the attribute `prepare` of the trainer's LightningModule, if it has one.
    `batch_size` counts the rows of all ranks. Without validation corpora, `config.validation_rows`
    rows (at most a tenth) are held out by the seed.

    Workers (`config.num_workers`) are new processes, not forks: a script that has any begins with
    `if __name__ == "__main__":`.

    A Trainer with several devices needs `use_distributed_sampler=False`: every rank takes its slice
    of the global batch here already. A run that resumes goes on at the batch it stopped before;
    a checkpoint of other rows is refused, unless `allow_data_change`.

    Raises InputError, at construction, for data that cannot be trained on; at `train` and `order`
    for corpora that stream, which have neither; when a checkpoint is loaded, for other rows.
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
        allow_data_change: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        gpu = torch.accelerator.is_available()
        self.tokenize = replace(tokenize, multiple=config.pad_multiple or (8 if gpu else 1))
        self.prepare = prepare
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.allow_data_change = allow_data_change
        self.streams: Streams | None = open_streams(config, batch_size, batch_tokens, seed)
        self.stream_state = StreamState(self.streams) if self.streams else None
        train = [] if self.streams else open_corpora(config.train, "train", config.on_bad_row)
        if config.validation:
            validation_corpora = open_corpora(config.validation, "validation", config.on_bad_row)
            training, validation = all_rows(train), all_rows(validation_corpora)
        else:
            training, validation = hold_out(train, config.validation_rows, seed)
        self.indexed: tuple[Split, Order] | None = None
        if self.streams is None:
            split = self.split("train", training)
            try:
                self.indexed = split, self.order_of(split)
            except NoBatchError:
                raise InputError(explain_no_batch(split)) from None
        self.validation = self.split("validation", validation)
        self.validation_order = self.order_of_all(self.validation)

    @property
    def train(self) -> Split:
        return self.indexed_training[0]

    @property
    def order(self) -> Order:
        return self.indexed_training[1]

    @property
    def indexed_training(self) -> tuple[Split, Order]:
        if self.indexed is None:
            raise InputError(
                "data.train: corpora that stream have no index, which a cached teacher and `mic "
                "data` need; set data.train.NAME.streaming=false, or teacher.kind=frozen"
            )
        return self.indexed

    def split(self, name: str, subsets: Sequence[CorpusSubset]) -> Split:
        """The rows of a split, their shares and, with data.tokenize=ahead, their tokens."""
        training = name == "train"
        corpora = [subset.corpus for subset in subsets]
        rows = sum(map(len, subsets))
        if rows < (self.batch_size if training and self.batch_tokens is None else 2):
            raise InputError(
                f"data.{name}: {rows} rows for trainer.batch_size={self.batch_size}; "
                "give more rows or a smaller batch"
            )
        columns = {corpus.name: training_columns(corpus) for corpus in corpora}
        if self.config.batches == "mixed" and len(set(columns.values())) > 1:
            raise InputError(
                f"data.{name}: corpora of {columns} columns in one batch; give all the same "
                "number, or set data.batches=single"
            )
        tokenized = None
        if self.config.tokenize == "ahead":
            tokenized = [tokenize_corpus(corpus, self.tokenize) for corpus in corpora]
        weights = None
        if training:
            given = [self.config.train[corpus.name].weight for corpus in corpora]
            weights = corpus_weights(subsets, given, self.config.temperature)
        mixture = Mixture(
            subsets,
            self.seed,
            batch_size=self.batch_size if training else even_batch_size(rows, self.batch_size),
            weights=weights,
            single=self.config.batches == "single",
            keep_apart=self.config.keep_apart,
            lengths=[tokens.lengths for tokens in tokenized] if tokenized else None,
            batch_tokens=self.batch_tokens,
        )
        return Split(name, mixture, RowIndex(corpora, tokenized))

    def order_of(self, split: Split) -> Order:
        mixture = split.mixture
        return Order(mixture.draw, mixture.sections, self.seed, self.config.window)

    def order_of_all(self, split: Split) -> Order:
        """An order that leaves out less than a batch, as validation should: where rows that share a
        text or a group cannot all be kept apart they may meet, and the loss masks them."""
        try:
            order = self.order_of(split)
            if order.left_out(0) < split.mixture.batch_size:
                return order
        except NoBatchError:
            pass
        split.mixture.keep_apart = False
        return self.order_of(split)

    def texts(self) -> Iterator[str]:
        """Every text that a batch may hold, some of them several times.

        Raises InputError for corpora that stream.
        """
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
        dropped = (Counter(corpus.meta.dropped) for corpus in self.corpora.values())
        return sum(dropped, Counter())

    @property
    def skipped(self) -> int | None:
        """Rows that were read and are not used; None for streams."""
        return None if self.dropped is None else self.dropped.total()

    @property
    def corpora(self) -> dict[str, Corpus]:
        """Every corpus, by "split/name"; a split that is held out of another has no corpora."""
        splits = [] if self.streams else [self.train]
        splits += [self.validation] if self.config.validation else []
        return {
            f"{split.name}/{subset.corpus.name}": subset.corpus
            for split in splits
            for subset in split.mixture.subsets
        }

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each corpus's files by "split/name"; of streams their number and size."""
        streamed = self.streams.described if self.streams else {}
        return streamed | {name: corpus.meta.fingerprint for name, corpus in self.corpora.items()}

    def state_dict(self) -> dict[str, Any]:
        """The rows' hashes and, of streams, where every rank stands: all ranks have to ask."""
        state: dict[str, Any] = {"data": self.hashes}
        if self.stream_state is not None and self.trainer is not None:
            batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
            state |= self.stream_state.state_dict(in_step=batches.ready != batches.processed)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the rows of a checkpoint.

        Raises InputError where they are others, unless `allow_data_change`, and for streams where
        corpora are indexed.
        """
        self.refuse_other(state_dict.get("data", self.hashes))
        if "identity" not in state_dict:
            return
        if self.stream_state is None or self.trainer is None:
            raise InputError(
                "data.train: the checkpoint is one of streams; set data.train.NAME.streaming=true"
            )
        self.stream_state.load_state_dict(state_dict, *self.rank_and_ranks())

    def refuse_other(self, saved: Mapping[str, str]) -> None:
        """Raise an InputError where the hashes of a checkpoint's rows differ from `hashes`.

        A checkpoint that is loaded is compared already; this allows to compare before.
        """
        current = self.hashes
        changed = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
        if changed and not self.allow_data_change:
            raise InputError(
                f"data.{changed[0].replace('/', '.')}: holds other rows than when the run began; "
                "give it those, begin anew, or go on all the same with --allow-change data"
            )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Lightning calls this when a batch is about to be used."""
        if self.stream_state is not None and isinstance(batch, Batch) and batch.state is not None:
            self.stream_state.advance(batch.state)
        return batch

    def collate(self, split: Split) -> Collate:
        """What makes batches of a split's rows, with what the teacher takes of their texts."""
        return self.collate_rows(any(corpus.meta.grouped for corpus in split.row_index.corpora))

    def collate_rows(self, grouped: bool) -> Collate:
        prepare, trainer = self.prepare, self.trainer
        if prepare is None and trainer is not None:
            prepare = getattr(trainer.lightning_module, "prepare", None)
        return Collate(self.tokenize, prepare, grouped)

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.streams is not None and self.stream_state is not None:
            return self.stream_loader(self.streams, self.stream_state)
        sampler = self.sampler(self.order)
        if self.trainer is not None:  # Lightning asks for the loader when its progress is restored
            sampler.start_at(*next_batch(self.trainer, self.order), announced=True)
        return self.loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        sampler = self.sampler(self.validation_order, fixed=True)
        return self.loader(self.validation, sampler)

    def stream_loader(self, streams: Streams, state: StreamState) -> StreamLoader:
        """The batches from the first on, or from the loaded checkpoint's position on."""
        grouped = any(stream.source.group for stream in streams.streams)
        rank, ranks = self.rank_and_ranks()
        resuming = self.trainer is not None and self.trainer.fit_loop.restarting
        return streams.loader(self.collate_rows(grouped), rank, ranks, state.start(resuming))

    def sampler(self, order: Order, fixed: bool = False) -> BatchSampler:
        """This rank's slices of an order."""
        rank, ranks = self.rank_and_ranks()
        return BatchSampler(order, rank, ranks, fixed=fixed)

    def rank_and_ranks(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def loader(self, split: Split, sampler: BatchSampler) -> DataLoader[Batch]:
        workers = self.config.num_workers
        return DataLoader(
            BatchDataset(split.row_index, self.collate(split)),
            batch_sampler=sampler,  # type: ignore[arg-type]  # a request is more than row numbers
            collate_fn=unchanged,
            num_workers=workers,
            # a forked worker could wait for ever for a lock that a tokenizer's thread holds
            multiprocessing_context="forkserver" if workers else None,
            persistent_workers=workers > 0,
            # of the workers' seeds: torch's own would be drawn from at every epoch, or with workers
            # (they stay) only once, and again by a run that goes on
            generator=torch.Generator().manual_seed(self.seed),
        )


class BatchDataset(Dataset[Batch]):
    """Batches, by the request that names their rows."""

    def __init__(self, row_index: RowIndex, collate: Collate) -> None:
        self.row_index = row_index
        self.collate = collate

    def __getitems__(self, request: BatchRequest) -> Batch:
        rows = self.row_index.rows(request.numbers, request.partners)
        return self.collate(rows, request.sizes)._replace(row_numbers=request.numbers)

    def __getitem__(self, request: Any) -> Batch:
        return self.__getitems__(request)

    def __len__(self) -> int:
        return int(self.row_index.firsts[-1])


def even_batch_size(rows: int, most: int) -> int:
    """The batch size, from half of `most` to `most`, that leaves out the fewest rows.

    >>> even_batch_size(500, 64), even_batch_size(41, 16), even_batch_size(10, 64)
    (50, 10, 10)
    """
    most = min(rows, most)
    return min(range(most, max(most // 2, 2) - 1, -1), key=lambda size: rows % size)


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
