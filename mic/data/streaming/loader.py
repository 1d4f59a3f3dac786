"""Open the streams of a config, and load a rank's batches of them from any position on.

Every worker of every rank reads its own share of the corpora (reader.py) and makes its own batches
of it (windows.py), so no worker waits for another and none runs out: `trainer.max_steps` ends
training. Rows that share a text or a group are kept apart within a rank's batch; those that meet
across ranks are masked in the loss (objective.mask_equal).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mic.config.schema_data import DataConfig
from mic.data.batch import Batch, Collate, unchanged
from mic.data.indexed import Row
from mic.data.mixture import given_weights
from mic.data.order.batch_order import turn
from mic.data.order.permutation import derive_key
from mic.data.sources.examples import Example
from mic.data.streaming.reader import Reader, Stream, WorkerShare, open_stream
from mic.data.streaming.windows import CYCLE, MixedRows, Windows, weighted_turns
from mic.errors import InputError, RunError

BATCHES = 32  # what a key is for


@dataclass(frozen=True)
class Streams:
    """The streams that are trained on, and how they are mixed."""

    streams: Sequence[Stream]
    weights: Sequence[float]
    config: DataConfig
    batch_size: int
    seed: int

    def rows(
        self, share: WorkerShare, owners: Sequence[int], state: Mapping[str, Any] | None = None
    ) -> MixedRows:
        """The rows of some of the streams on one worker, from the first or from a state on."""
        chosen = [self.streams[owner] for owner in owners]
        begun = state["readers"] if state else [None] * len(chosen)
        return MixedRows(
            [
                Reader(stream, share, self.seed, self.config.on_bad_row, reader_state)
                for stream, reader_state in zip(chosen, begun, strict=True)
            ],
            [self.weights[owner] for owner in owners],
            width=max(len(stream.source.columns) for stream in chosen),
            position=state["position"] if state else 0,
        )

    @property
    def sections(self) -> list[list[int]]:
        """The streams that share batches: all of them, or with data.batches=single each alone."""
        owners = list(range(len(self.streams)))
        return [[owner] for owner in owners] if self.config.batches == "single" else [owners]

    def sample(self, count: int) -> list[tuple[str, ...]]:
        """The texts of the first `count` different rows, at most those of one pass."""
        rows = self.rows(WorkerShare(), range(len(self.streams)))
        texts: dict[tuple[str, ...], None] = {}
        while len(texts) < count and not all(reader.passes for reader in rows.readers):
            texts[rows.take().texts] = None
        return list(texts)

    @property
    def workers(self) -> int:
        return max(self.config.num_workers, 1)

    @property
    def described(self) -> dict[str, str]:
        return {f"train/{stream.name}": stream.described for stream in self.streams}

    def loader(
        self, collate: Collate, rank: int, ranks: int, position: "Position"
    ) -> "StreamLoader":
        """A rank's batches after a position. Raises InputError for more workers than files."""
        if self.batch_size < ranks:
            raise InputError(
                f"trainer.batch_size={self.batch_size}: a row for each of {ranks} ranks at least"
            )
        for stream in self.streams:
            stream.dataset(WorkerShare(rank, ranks, 0, self.workers))
        return StreamLoader(
            StreamBatches(self, collate, rank, ranks, position),
            batch_size=None,
            collate_fn=unchanged,
            num_workers=self.config.num_workers,
            # as in mic.data.datamodule
            multiprocessing_context="forkserver" if self.config.num_workers else None,
        )

    def identity(self, ranks: int) -> dict[str, Any]:
        """The settings in which a run and the checkpoint that it resumes from must agree."""
        return {
            "ranks": ranks,
            "data.num_workers": self.workers,
            "trainer.batch_size": self.batch_size,
            "seed": self.seed,
            "data.window": self.config.window,
            "data.batches": self.config.batches,
            "data.train": self.described,
        }


class Position(NamedTuple):
    """Each worker's state after its last batch, and which worker's batch is next."""

    states: list[str | None]
    next: int = 0

    def after(self, state: str) -> "Position":
        """The position after a batch whose `state` this is."""
        worker = json.loads(state)["worker"]
        states = [*self.states[:worker], state, *self.states[worker + 1 :]]
        return Position(states, (worker + 1) % len(states))


class WorkerBatches:
    """A worker's batches. A batch's section depends on the batch's number alone, and so is the same
    on all ranks."""

    def __init__(self, streams: Streams, share: WorkerShare, size: int, state: str | None) -> None:
        sections = streams.sections
        fresh: dict[str, Any] = {"given": 0, "sections": [None] * len(sections)}
        begun = json.loads(state) if state else fresh
        self.share = share
        self.given: int = begun["given"]
        weights = [sum(streams.weights[owner] for owner in owners) for owners in sections]
        self.turns = weighted_turns(weights)
        self.windows = [
            Windows(
                streams.rows(share, owners, window["start"]["rows"] if window else None),
                size,
                key=derive_key(streams.seed, BATCHES, share.worker, section),
                window=streams.config.window,
                keep_apart=streams.config.keep_apart,
                begun=window,
            )
            for section, (owners, window) in enumerate(
                zip(sections, begun["sections"], strict=True)
            )
        ]

    def __next__(self) -> list[Example]:
        number = self.given * self.share.workers + self.share.worker
        section, _ = turn(number % CYCLE, self.turns, [0] * len(self.turns))
        self.given += 1
        return next(self.windows[section])

    @property
    def state(self) -> str:
        sections = ", ".join(windows.state for windows in self.windows)
        worker = self.share.worker
        return f'{{"worker": {worker}, "given": {self.given}, "sections": [{sections}]}}'


class StreamBatches(IterableDataset[Any]):
    """A rank's batches, for a DataLoader whose workers each give their own.

    A DataLoader asks worker 0 first. After a position where it is another's turn, the workers
    before that one give None. An error about the input is given as an item, since a DataLoader
    would wrap a worker's exception in its traceback.
    """

    def __init__(
        self, streams: Streams, collate: Collate, rank: int, ranks: int, position: Position
    ) -> None:
        self.streams = streams
        self.collate = collate
        self.rank = rank
        self.position = position
        self.sizes = [len(range(first, streams.batch_size, ranks)) for first in range(ranks)]

    def __iter__(self) -> Iterator[Batch | InputError | RunError | None]:
        info = get_worker_info()
        worker = info.id if info else 0
        if worker < self.position.next:
            yield None
        share = WorkerShare(self.rank, len(self.sizes), worker, self.streams.workers)
        state = self.position.states[worker]
        try:
            batches = WorkerBatches(self.streams, share, self.sizes[self.rank], state)
            while True:
                rows = [Row(texts, group) for texts, group in next(batches)]
                yield self.collate(rows, self.sizes)._replace(state=batches.state)
        except (InputError, RunError) as error:
            yield error


class StreamLoader(DataLoader[Any]):
    """The batches of the workers without the Nones; raises the errors among them."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for item in super().__iter__():
            if isinstance(item, InputError | RunError):
                raise item
            if item is not None:
                yield item


def open_streams(
    config: DataConfig, batch_size: int, batch_tokens: int | None, seed: int
) -> Streams | None:
    """The streams of `config.train`; None where its corpora are to be indexed.

    Raises InputError for settings that need an index, and for streams that cannot be read.
    """
    for name, source in config.validation.items():
        if source.streaming:
            raise InputError(
                f"data.validation.{name}.streaming=true: the validation loss is that of the same "
                "rows every time; set it to false, and `limit` where there are many"
            )
    wanted = [name for name, source in config.train.items() if source.streaming]
    if not wanted:
        return None
    refuse_settings(config, f"data.train.{wanted[0]}.streaming=true", batch_tokens)
    streams = [open_stream(name, source) for name, source in config.train.items()]
    refuse_columns(streams, config)
    given = given_weights({name: source.weight for name, source in config.train.items()})
    weights = given or [1.0] * len(streams)
    for stream, turns in zip(streams, weighted_turns(weights), strict=True):
        if not turns:
            raise InputError(f"data.train.{stream.name}.weight: its share is no row; raise it")
    opened = Streams(streams, weights, config, batch_size, seed)
    # errors in the first rows are raised before a run begins
    for reader in opened.rows(WorkerShare(), range(len(streams))).readers:
        reader.take()
    for windows in WorkerBatches(opened, WorkerShare(), batch_size, None).windows:
        next(windows)
    return opened


def refuse_settings(config: DataConfig, key: str, batch_tokens: int | None) -> None:
    """Raise InputError for settings that need an index; `key` is the setting that streams."""
    name = key.split(".")[2]
    indexed = [other for other, source in config.train.items() if not source.streaming]
    if indexed:
        raise InputError(
            f"{key}, but data.train.{indexed[0]}.streaming=false: all training corpora stream, or "
            "none; set it to true"
        )
    if not config.validation:
        raise InputError(
            f"{key}: no rows can be held out of a stream; set data.validation.{name}.path=FILE and "
            ".columns"
        )
    if batch_tokens is not None:
        raise InputError(
            f"{key}: trainer.batch_tokens={batch_tokens} needs the lengths of all rows; set it to "
            "null, and trainer.batch_size"
        )
    if config.temperature != 1:
        raise InputError(
            f"{key}: data.temperature={config.temperature} needs the corpora's rows to be counted; "
            f"set data.train.{name}.weight, and those of the others"
        )


def refuse_columns(streams: Sequence[Stream], config: DataConfig) -> None:
    """Raise InputError for mixed batches of rows with different numbers of texts."""
    columns = {stream.name: max(len(stream.source.columns), 2) for stream in streams}
    if config.batches == "mixed" and len(set(columns.values())) > 1:
        raise InputError(
            f"data.train: corpora of {columns} columns in one batch; give all the same number, or "
            "set data.batches=single"
        )
