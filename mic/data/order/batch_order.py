"""Compute which rows are in a batch, as a pure function of (seed, epoch, position).

The global batch at a position depends on nothing else: not on the number of ranks, which each take
a slice of it, nor on workers, prefetching, or where a run began. A keyed permutation shuffles an
epoch's rows; windows of its places are cut into batches of rows of like length, no two of which
share a text or a group; the batches of a window are shuffled. To know a batch, its window has to be
read and nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt64
from torch.utils.data import Sampler

from mic.data.order.packing import pack
from mic.data.order.permutation import derive_key, permute
from mic.errors import InputError

WINDOW = 2**16  # rows
PLACES, BATCHES, PHASE = range(3)  # what a key is for


class NoBatchError(InputError):
    """An epoch without a batch."""


class Drawn(NamedTuple):
    """Rows as the order sees them.

    `numbers` are through all sources; `partners` the row that a labelled text is paired with, or
    -1; rows that share one of `keys` never meet in a batch; `lengths` of their texts are in any one
    unit.
    """

    numbers: Int64[np.ndarray, " rows"]
    partners: Int64[np.ndarray, " rows"]
    keys: UInt64[np.ndarray, "rows keys"]
    lengths: Int32[np.ndarray, "rows columns"]

    def take(self, rows: Int64[np.ndarray, " taken"] | slice) -> "Drawn":
        return Drawn(*(column[rows] for column in self))


Draw = Callable[[int, Int64[np.ndarray, " places"]], Drawn]


@dataclass(frozen=True)
class Section:
    """Places of an epoch whose rows share batches of `size`: those from `start`, or those listed.

    `conflicts` bounds the other rows of the section that any row shares a key with.
    """

    rows: int
    size: int
    conflicts: int
    start: int = 0
    listed: Int64[np.ndarray, " rows"] | None = None

    def places(self, within: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        return within + self.start if self.listed is None else self.listed[within]


class SectionBatches:
    """One section's batches in one epoch, in order; one window of them is in memory at a time.

    A window has so many batches that its rows can always be packed (`packing` has the proof),
    unless that takes the whole epoch: then it is packed as well as can be, and what does not fit
    is left out of this epoch.
    """

    def __init__(self, section: Section, draw: Draw, epoch: int, key: int, window: int) -> None:
        self.section = section
        self.draw = draw
        self.epoch = epoch
        self.key = key
        self.most = section.rows // section.size  # batches, if all rows find a place
        self.sorted = window > 0
        enough = max(-(-window // section.size), 2 * section.conflicts, 1)
        self.windows = max(1, self.most // enough)
        self.sure = self.most >= 2 * section.conflicts
        self.packed_window = -1
        self.packed: tuple[Drawn, Int64[np.ndarray, "batches size"]] | None = None

    @cached_property
    def batches(self) -> int:
        """Their number: known at once, unless keys repeat so often that packing has to be tried."""
        return self.most if self.sure else len(self.window(0)[1])

    def batch(self, number: int) -> Drawn:
        window = ((number + 1) * self.windows - 1) // self.most
        drawn, packed = self.window(window)
        return drawn.take(packed[number - self.first(window)])

    def first(self, window: int) -> int:
        """The first batch of a window; windows differ by one batch at most."""
        return window * self.most // self.windows

    def window(self, window: int) -> tuple[Drawn, Int64[np.ndarray, "batches size"]]:
        if self.packed is None or self.packed_window != window:
            self.packed = None  # before the next is packed: one in memory at a time
            self.packed, self.packed_window = self.pack(window), window
        return self.packed

    def pack(self, window: int) -> tuple[Drawn, Int64[np.ndarray, "batches size"]]:
        size, rows = self.section.size, self.section.rows
        stop = rows if self.windows == 1 else self.first(window + 1) * size
        within = np.arange(self.first(window) * size, stop)
        shuffled = permute(within, rows, derive_key(self.key, PLACES))
        drawn = self.draw(self.epoch, self.section.places(shuffled))
        lengths = drawn.lengths if self.sorted else np.zeros_like(drawn.lengths[:, :1])
        packed = pack(drawn.keys, lengths, size)
        key = derive_key(self.key, BATCHES, window)
        order = permute(np.arange(len(packed)), max(len(packed), 1), key)
        return drawn, packed[order]


class Order:
    """The global batch at every position of every epoch.

    `draw(epoch, places)` says which rows stand at places of an epoch, `sections(epoch)` which
    places share batches. Sections take turns in proportion to their batches, evenly spread.

    Raises NoBatchError, at construction, where an epoch has none.
    """

    def __init__(
        self,
        draw: Draw,
        sections: Callable[[int], Sequence[Section]],
        seed: int,
        window: int = WINDOW,
    ) -> None:
        self.draw = draw
        self.sections = sections
        self.seed = seed
        self.window = window
        self.epoch = -1
        self.current: list[SectionBatches] = []  # the sections of the epoch begun last
        self.phases: list[int] = []
        self.most = sum(section.batches for section in self.begin(0))

    def begin(self, epoch: int) -> list[SectionBatches]:
        """The sections' batches of an epoch."""
        if epoch != self.epoch:
            sections = [
                SectionBatches(
                    section, self.draw, epoch, derive_key(self.seed, epoch, number), self.window
                )
                for number, section in enumerate(self.sections(epoch))
            ]
            counts = [section.batches for section in sections]
            if not sum(counts):
                raise NoBatchError(
                    f"epoch {epoch}: no batch can be filled with rows that share neither text nor "
                    "group"
                )
            remaining = [sum(counts[number:]) for number in range(len(counts))]
            self.phases = [
                derive_key(self.seed, epoch, number, PHASE) % max(left, 1)
                for number, left in enumerate(remaining)
            ]
            self.current, self.epoch = sections, epoch
        return self.current

    def length(self, epoch: int) -> int:
        """Batches in an epoch, on every rank: as many as in epoch 0.

        Fewer only where keys repeat so often, or lengths change so much from epoch to epoch, that
        this one has fewer.
        """
        return min(self.most, sum(section.batches for section in self.begin(epoch)))

    def left_out(self, epoch: int) -> int:
        """Rows that this epoch leaves out, since they fill no batch; other ones in every epoch."""
        sections = self.begin(epoch)
        counts = [section.batches for section in sections]
        rows = sum(entry.section.rows - entry.batches * entry.section.size for entry in sections)
        cut = [turn(place, counts, self.phases)[0] for place in range(self.most, sum(counts))]
        return rows + sum(sections[owner].section.size for owner in cut)

    def batch(self, epoch: int, position: int) -> Drawn:
        """The global batch at a position.

        Raises IndexError for a position outside the epoch.
        """
        sections = self.begin(epoch)
        counts = [section.batches for section in sections]
        length = self.length(epoch)
        if not 0 <= position < length:
            raise IndexError(f"position {position}: epoch {epoch} has {length} batches")
        owner, number = turn(position, counts, self.phases)
        return sections[owner].batch(number)


def turn(position: int, counts: Sequence[int], phases: Sequence[int]) -> tuple[int, int]:
    """Who has the turn at a position, and how many it had before: counts[i] turns, evenly spread.

    Bresenham's line between the first and all others, then among the others: exact in whole
    numbers, and nothing is stored.

    >>> [turn(position, [2, 4], [0, 0]) for position in range(6)]
    [(1, 0), (1, 1), (0, 0), (1, 2), (1, 3), (0, 1)]
    """
    left = sum(counts)
    for owner, (count, phase) in enumerate(zip(counts, phases, strict=True)):
        before = (position * count + phase) // left
        if ((position + 1) * count + phase) // left > before:
            return owner, before
        position -= before
        left -= count
    raise IndexError(f"position {position}: there are {sum(counts)} turns")


class BatchRequest(NamedTuple):
    """A rank's rows of a global batch, and how many rows of it each rank has."""

    numbers: list[int]
    partners: list[int]
    sizes: list[int]


class BatchSampler(Sampler[BatchRequest]):
    """A rank's slices of the global batches of an epoch, for a DataLoader's `batch_sampler`.

    Of a batch in order of length, a rank takes every W-th row, so that all have as much to do.
    `set_epoch` chooses the epoch, which Lightning calls by way of `sampler`. The first iteration
    after `start_at` begins in the middle of an epoch; the length stays that of the whole.
    """

    def __init__(self, order: Order, rank: int = 0, ranks: int = 1, fixed: bool = False) -> None:
        self.order = order
        self.rank = rank
        self.ranks = ranks
        self.fixed = fixed
        self.epoch = 0
        self.start = 0
        self.shift = 0
        self.announced = self.lasting = False

    @property
    def sampler(self) -> "BatchSampler":
        return self

    def set_epoch(self, epoch: int) -> None:
        if self.fixed:
            return
        if self.announced:
            self.shift, self.announced = self.epoch - epoch, False
        else:  # the one before may have had no batch left, and so never begun
            self.start = 0
        self.epoch = epoch + self.shift

    def start_at(self, epoch: int, position: int, announced: bool = False) -> None:
        """Begin at a batch of an epoch.

        With `announced`, as under Lightning, the next call of `set_epoch` is about this epoch,
        whatever it calls it, and the length stays that of epoch 0, which no epoch exceeds.
        """
        self.epoch, self.start = epoch, position
        self.shift, self.announced, self.lasting = 0, announced, announced

    def __len__(self) -> int:
        # Lightning asks once, in whichever epoch a run begins or resumes
        return self.order.most if self.lasting else self.order.length(self.epoch)

    def __iter__(self) -> Iterator[BatchRequest]:
        epoch, start, self.start = self.epoch, self.start, 0
        for position in range(start, self.order.length(epoch)):
            yield self.request(self.order.batch(epoch, position))

    def request(self, batch: Drawn) -> BatchRequest:
        rows = len(batch.numbers)
        share = slice(self.rank, None, self.ranks)
        return BatchRequest(
            batch.numbers[share].tolist(),
            batch.partners[share].tolist(),
            [len(range(rank, rows, self.ranks)) for rank in range(self.ranks)],
        )
