"""Make endless batches of endless rows, one window of rows after the other.

A stream has no order that could be computed, so batches are made of the rows at hand: the rows of a
window are shuffled and packed (order/packing.py), like lengths together and no text or group twice
in a batch, and the batches shuffled. The size of a window is a trade-off: with two columns padding
falls with the root of the number of batches in a window, yet the first batch has to wait for the
first window. So that one has `FIRST` batches, each next one twice as many, up to the rows of
`data.window`; and a window is read while the batches of the one before are handed out. A window
also ends with a pass, so that no row comes again before all others have come, except for those that
wait.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mic.data.mixture import quotas
from mic.data.order.batch_order import WINDOW, turn
from mic.data.order.packing import Batches, pack
from mic.data.order.permutation import derive_key, permute
from mic.data.sources.examples import Example, hash_text
from mic.data.streaming.reader import Reader
from mic.errors import InputError

FIRST = 64  # batches
CYCLE = 2**20  # turns after which the corpora's turns repeat
PLACES, ORDER = range(2)  # what a key is for


class MixedRows:
    """Rows of several readers in turn, in proportion to weights; `width` texts each, at least."""

    def __init__(
        self, readers: Sequence[Reader], weights: Sequence[float], width: int, position: int = 0
    ) -> None:
        self.readers = readers
        self.turns = weighted_turns(weights)
        self.width = width
        self.position = position

    def take(self) -> Example:
        owner, _ = turn(self.position % CYCLE, self.turns, [0] * len(self.turns))
        self.position += 1
        texts, group = self.readers[owner].take()
        return Example(texts if len(texts) >= self.width else texts * self.width, group)

    @property
    def passes(self) -> int:
        """Passes that have ended, those of all readers together."""
        return sum(reader.passes for reader in self.readers)

    def state(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "readers": [reader.state() for reader in self.readers],
        }


def weighted_turns(weights: Sequence[float]) -> list[int]:
    """How many of a cycle's turns each has, by weight.

    >>> [turns / CYCLE for turns in weighted_turns([3, 1])]
    [0.75, 0.25]
    """
    return quotas([CYCLE] + [0] * (len(weights) - 1), weights)


class Window:
    """Rows to be packed together; `over` has the first row of the next pass, which ends it."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self.rows = list(rows)
        self.over: list[Example] = []


class Windows:
    """Endless batches of `size` rows, no two rows of a batch with a text or a group in common.

    `state` holds, in JSON, the start of the last batch's window and how many batches that window
    has given; windows begun with it go on after that batch. `key` shuffles batches: where ranks
    have the same key and windows of as many batches, their batches at a step are of like length.

    Raises InputError where even the largest window has no batch.
    """

    def __init__(
        self,
        rows: MixedRows,
        size: int,
        *,
        key: int,
        window: int,
        keep_apart: bool = True,
        begun: Mapping[str, Any] | None = None,
    ) -> None:
        self.rows = rows
        self.size = size
        self.key = key
        self.alike = window > 0
        self.most = max(window or WINDOW, size)
        self.keep_apart = keep_apart
        start = begun["start"] if begun else self.after([], 0)
        self.start = json.dumps(start)
        self.given: int = begun["given"] if begun else 0
        self.batches = self.run(start, skip=self.given)

    def __next__(self) -> list[Example]:
        return next(self.batches)

    @property
    def state(self) -> str:
        return f'{{"given": {self.given}, "start": {self.start}}}'

    def after(self, left: Sequence[Example], number: int) -> dict[str, Any]:
        """The state at the start of a window: its number, the rows left over, and the readers'."""
        return {"number": number, "left": list(left), "rows": self.rows.state()}

    def run(self, start: Mapping[str, Any], skip: int) -> Iterator[list[Example]]:
        window = Window([Example(tuple(texts), group) for texts, group in start["left"]])
        number = start["number"]
        self.fill(window, self.target(number))
        while True:
            packed, left = self.packed(window, number)
            number += 1
            following = json.dumps(self.after(left, number))
            window = Window(left)
            for given, batch in enumerate(packed, 1):
                if given > skip:
                    self.given = given
                    yield batch
                self.fill(window, self.target(number) * given // len(packed))
            self.start, skip = following, 0

    def target(self, number: int) -> int:
        """Rows of a window."""
        return min(FIRST * self.size << min(number, 32), self.most)

    def fill(self, window: Window, target: int) -> None:
        """Read rows into a window until it has so many, or a pass has ended."""
        while len(window.rows) < target and not window.over:
            passes = self.rows.passes
            row = self.rows.take()
            ended = self.rows.passes > passes and len(window.rows) >= self.size
            (window.over if ended else window.rows).append(row)

    def packed(self, window: Window, number: int) -> tuple[list[list[Example]], list[Example]]:
        """A window's batches, shuffled, and the rows left over for the next.

        Those are a batch's worth at most: of a group that stands in more rows than there are
        batches, ever more would wait.
        """
        rows = self.shuffled(window.rows, number)
        packed = self.pack(rows)
        while not len(packed):
            if len(rows) >= self.most:
                raise InputError(self.explain_no_batch(len(rows)))
            more = min(2 * max(len(rows), self.size), self.most) - len(rows)
            # of whatever pass they are
            window.rows += [*window.over, *(self.rows.take() for _ in range(more))]
            window.over = []
            rows = self.shuffled(window.rows, number)
            packed = self.pack(rows)
        left = np.setdiff1d(np.arange(len(rows)), packed)[: self.size]
        key = derive_key(self.key, number, ORDER)
        order = permute(np.arange(len(packed)), len(packed), key)
        batches = [[rows[row] for row in batch] for batch in packed[order].tolist()]
        return batches, [rows[row] for row in left.tolist()] + window.over

    def shuffled(self, rows: Sequence[Example], number: int) -> list[Example]:
        """The rows shuffled, so that neighbours in a file do not always share a batch."""
        order = permute(np.arange(len(rows)), len(rows), derive_key(self.key, number, PLACES))
        return [rows[row] for row in order.tolist()]

    def pack(self, rows: Sequence[Example]) -> Batches:
        keys = [packing_keys(row) if self.keep_apart else [place] for place, row in enumerate(rows)]
        lengths = [[len(text) if self.alike else 0 for text in row.texts] for row in rows]
        return pack(np.array(keys, np.uint64), np.array(lengths, np.int32), self.size)

    def explain_no_batch(self, rows: int) -> str:
        return (
            f"data.train: {rows:,} rows of the stream have no batch of {self.size} that share "
            "neither text nor group; give more rows, in a mixed order, lower trainer.batch_size, "
            "raise data.window, or set data.keep_apart=false, so that objective.mask_equal masks "
            "such pairs in its place"
        )


def packing_keys(row: Example) -> list[int]:
    """The hashes of a row's texts and of its group; without one, its first text's again."""
    texts = [hash_text(text) for text in row.texts]
    return [*texts, texts[0] if row.group is None else row.group]
