"""Streams of rows as a rank's batches, over the workers of a loader, from any position on.

Every worker of every rank reads its own part of the corpora (reader.py) and makes its own batches
of it (windows.py), so nobody waits for anybody and nobody ever runs out: `trainer.max_steps` ends
training. Rows that share a text or a group are kept apart within a rank's batch; those that meet
across ranks are masked in the loss (objective.mask_equal).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mic.config.schema_data import DataConfig
from mic.data.batch import Batch, Collate
from mic.data.indexed import Row
from mic.data.order.batch_order import turn
from mic.data.order.permutation import key_of
from mic.data.streaming.reader import Reader, Share, Stream
from mic.data.streaming.windows import CYCLE, Rows, Taken, Windows, shares
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
        self, share: Share, owners: Sequence[int], state: Mapping[str, Any] | None = None
    ) -> Rows:
        """The rows of some of the streams on one worker; one that goes on has a state."""
        chosen = [self.streams[owner] for owner in owners]
        begun = state["readers"] if state else [None] * len(chosen)
        return Rows(
            [
                Reader(stream, share, self.seed, self.config.on_bad_row, at)
                for stream, at in zip(chosen, begun, strict=True)
            ],
            [self.weights[owner] for owner in owners],
            width=max(len(stream.source.columns) for stream in chosen),
            position=state["position"] if state else 0,
        )

    @property
    def sections(self) -> list[list[int]]:
        """The streams that share batches: all of them, or with data.batches=single each alone."""
        whole = list(range(len(self.streams)))
        return [[owner] for owner in whole] if self.config.batches == "single" else [whole]

    def sample(self, count: int) -> list[tuple[str, ...]]:
        """The texts of the first `count` different rows, at most those of one pass."""
        rows = self.rows(Share(), range(len(self.streams)))
        found: dict[tuple[str, ...], None] = {}
        while len(found) < count and not all(reader.passes for reader in rows.readers):
            found[rows.take().texts] = None
        return list(found)

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
            stream.dataset(Share(rank, ranks, 0, self.workers))
        return StreamLoader(
            StreamBatches(self, collate, rank, ranks, position),
            batch_size=None,
            collate_fn=whole,
            num_workers=self.config.num_workers,
            # as in mic.data.datamodule
            multiprocessing_context="forkserver" if self.config.num_workers else None,
        )

    def identity(self, ranks: int) -> dict[str, Any]:
        """What a run must have in common with one that it goes on with."""
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
    """Where a rank stands: each worker's state after its last batch, and whose batch is next."""

    states: list[str | None]
    next: int = 0

    def after(self, state: str) -> "Position":
        """The position after a batch that says `state`."""
        worker = json.loads(state)["worker"]
        states = [*self.states[:worker], state, *self.states[worker + 1 :]]
        return Position(states, (worker + 1) % len(states))


class WorkerBatches:
    """A worker's batches. Which section has its turn depends on the number of the batch alone,
    so that on all ranks it is the same."""

    def __init__(self, streams: Streams, share: Share, size: int, state: str | None) -> None:
        sections = streams.sections
        fresh: dict[str, Any] = {"given": 0, "sections": [None] * len(sections)}
        begun = json.loads(state) if state else fresh
        self.share = share
        self.given: int = begun["given"]
        self.turns = shares([sum(streams.weights[one] for one in owners) for owners in sections])
        self.windows = [
            Windows(
                streams.rows(share, owners, at["start"]["rows"] if at else None),
                size,
                key=key_of(streams.seed, BATCHES, share.worker, section),
                window=streams.config.window,
                keep_apart=streams.config.keep_apart,
                begun=at,
            )
            for section, (owners, at) in enumerate(zip(sections, begun["sections"], strict=True))
        ]

    def __next__(self) -> list[Taken]:
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
    before that one answer None. Bad input is handed over as the error it is, since a DataLoader
    would wrap a worker's in its traceback.
    """

    def __init__(
        self, streams: Streams, collate: Collate, rank: int, ranks: int, position: Position
    ) -> None:
        self.streams = streams
        self.collate = collate
        self.rank = rank
        self.position = position
        self.sizes = [len(range(one, streams.batch_size, ranks)) for one in range(ranks)]

    def __iter__(self) -> Iterator[Batch | InputError | RunError | None]:
        info = get_worker_info()
        worker = info.id if info else 0
        if worker < self.position.next:
            yield None
        share = Share(self.rank, len(self.sizes), worker, self.streams.workers)
        state = self.position.states[worker]
        try:
            batches = WorkerBatches(self.streams, share, self.sizes[self.rank], state)
            while True:
                rows = [Row(texts, group) for texts, group in next(batches)]
                yield self.collate(rows, self.sizes)._replace(state=batches.state)
        except (InputError, RunError) as error:
            yield error


class StreamLoader(DataLoader[Any]):
    """The batches of the workers, without what stands for none; raises the errors among them."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for item in super().__iter__():
            if isinstance(item, InputError | RunError):
                raise item
            if item is not None:
                yield item


def whole(batch: Any) -> Any:
    """What a loader hands on: the batch, which is whole already."""
    return batch
