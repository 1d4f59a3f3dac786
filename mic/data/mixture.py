"""Several corpora as one population of rows: which rows an epoch holds, and what the order asks.

An epoch has as many places as the corpora have rows. Place by place it goes through each corpus's
share of it: without weights every row once; with weights the rows of a corpus come in shuffled
passes, one after the other through the epochs, so that all its rows come equally often.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from mic.data.conflicts import most_conflicts
from mic.data.indexed import columns_of, first_numbers
from mic.data.order.batch_order import Drawn, Section
from mic.data.order.packing import fitting, heaviest
from mic.data.order.permutation import key_of, permute
from mic.data.subset import Part
from mic.errors import InputError

PASS, PARTNER, LENGTH = 11, 12, 13  # what a key is for
MULTIPLE = 8  # tokens: what a budget rounds lengths up to, on every device alike
NOTHING = np.empty(0, np.int64)


class Mixture:
    """The rows of several corpora, their shares of an epoch, and which of them may meet.

    `weights` are the corpora's shares of an epoch, of any sum; None: every row once. With `single`
    each batch's rows are of one corpus. `lengths` are the texts' of each corpus (None: their
    characters); where they are tokens, a batch may have as many rows of one length as
    `batch_tokens` hold.

    Raises InputError where a share is no row, or a text does not fit into a batch's tokens.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        seed: int,
        *,
        batch_size: int,
        weights: Sequence[float] | None = None,
        single: bool = False,
        keep_apart: bool = True,
        lengths: Sequence[Int32[np.ndarray, "_ _"]] | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.parts = parts
        self.seed = seed
        self.batch_size = batch_size
        self.single = single
        self.keep_apart = keep_apart
        self.batch_tokens = batch_tokens
        self.lengths = lengths or [part.corpus.lengths for part in parts]
        self.quotas = quotas([len(part) for part in parts], weights)
        for part, quota in zip(parts, self.quotas, strict=True):
            if not quota:
                raise InputError(
                    f"data.train.{part.corpus.name}.weight: its share of an epoch of "
                    f"{sum(self.quotas)} rows is none; raise it"
                )
        self.starts: Int64[np.ndarray, " starts"] = np.cumsum([0, *self.quotas])
        self.firsts = first_numbers([part.corpus for part in parts])
        self._conflicts: dict[int | None, int] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def draw(self, epoch: int, places: Int64[np.ndarray, " places"]) -> Drawn:
        """The rows at places of an epoch."""
        numbers, partners = np.empty_like(places), np.full_like(places, -1)
        width = max(self.key_columns(part) for part in self.parts)
        keys = np.empty((len(places), width), np.uint64)
        columns = max(columns_of(part.corpus) for part in self.parts)
        lengths = np.empty((len(places), columns), np.int32)
        owners = np.searchsorted(self.starts, places, side="right") - 1
        for owner in np.unique(owners).tolist():
            at = np.flatnonzero(owners == owner)
            part, first = self.parts[owner], self.firsts[owner]
            drawn = self.pass_places(owner, epoch, places[at] - self.starts[owner])
            rows = part.rows(drawn)
            numbers[at] = rows + first
            found, length = part.keys(rows), self.lengths[owner][rows]
            if part.labelled:
                key = key_of(self.seed, PARTNER, owner, epoch)
                other = part.rows(part.partners(drawn, key))
                partners[at] = other + first
                found = np.concatenate([found, part.keys(other)], 1)
                length = np.concatenate([length, self.lengths[owner][other]], 1)
            # a key that stands twice in a row counts once
            keys[at] = widened(found, width)
            lengths[at] = widened(length, columns)
        if not self.keep_apart:
            keys = places[:, None].astype(np.uint64)
        return Drawn(numbers, partners, keys, lengths)

    def pass_places(
        self, owner: int, epoch: int, within: Int64[np.ndarray, " places"]
    ) -> Int64[np.ndarray, " places"]:
        """Places of a part for places of its share of an epoch."""
        rows, quota = len(self.parts[owner]), self.quotas[owner]
        if rows == quota:
            return within  # every row once: the order shuffles them anyway
        turns, places = np.divmod(within + epoch * quota, rows)
        for turn in np.unique(turns).tolist():
            at = turns == turn
            places[at] = permute(places[at], rows, key_of(self.seed, PASS, owner, turn))
        return places

    def key_columns(self, part: Part) -> int:
        columns: int = part.corpus.keys.shape[1]
        return columns * (1 + part.labelled)

    def sections(self, epoch: int) -> list[Section]:
        """Which places share batches."""
        whole = range(len(self.parts)) if self.single else [None]
        if self.batch_tokens is not None:
            return [found for owner in whole for found in self.by_length(epoch, owner)]
        return [
            Section(stop - start, self.batch_size, self.conflicts(owner), start)
            for owner in whole
            for start, stop in [self.span(owner)]
        ]

    def span(self, owner: int | None) -> tuple[int, int]:
        if owner is None:
            return 0, len(self)
        return int(self.starts[owner]), int(self.starts[owner + 1])

    def by_length(self, epoch: int, owner: int | None) -> list[Section]:
        """A section for each token count, of batches as large as the budget allows.

        Rows that fill no batch of their length, others in every epoch, are padded to the next.
        """
        assert self.batch_tokens is not None
        start, stop = self.span(owner)
        chosen = self.parts if owner is None else [self.parts[owner]]
        columns = max(columns_of(part.corpus) for part in chosen)
        key = key_of(self.seed, LENGTH, epoch, start)
        places = start + permute(np.arange(stop - start), stop - start, key)
        drawn = self.draw(epoch, places)
        lengths = -(-drawn.lengths.max(1) // MULTIPLE) * MULTIPLE
        sections, waiting = [], NOTHING
        for length in np.unique(lengths).tolist():
            size = self.batch_tokens // (length * columns)
            if size < 2:
                raise InputError(
                    f"trainer.batch_tokens={self.batch_tokens}: two rows of {columns} texts of "
                    f"{length} tokens are {2 * columns * length}; raise it, or lower "
                    "encoder.max_length"
                )
            rows = np.concatenate([waiting, np.flatnonzero(lengths == length)])
            longer = int(np.count_nonzero(lengths > length))
            if longer:
                # one row is no batch: for one that is the only longer one, another waits
                whole = fitting(drawn.keys[rows[: len(rows) - (longer == 1)]], size)
            else:
                whole = np.arange(len(rows))
                size = min(size, max(2, len(np.unique(heaviest(drawn.keys[rows])))))
            waiting = np.delete(rows, whole)
            if len(whole):
                listed = places[rows[whole]]
                sections.append(Section(len(whole), size, self.conflicts(owner), 0, listed))
        return sections

    def conflicts(self, owner: int | None) -> int:
        """The most rows of an epoch that any row shares a key with, of one corpus or of all."""
        if not self.keep_apart:
            return 0
        if owner not in self._conflicts:
            chosen = slice(None) if owner is None else slice(owner, owner + 1)
            # a share that is no whole pass begins and ends in the middle of one
            times = [
                1 if quota == len(part) else -(-quota // len(part)) + 1
                for part, quota in zip(self.parts, self.quotas, strict=True)
            ]
            self._conflicts[owner] = most_conflicts(self.parts[chosen], times[chosen])
        return self._conflicts[owner]


def widened(rows: Shaped[np.ndarray, "rows few"], columns: int) -> Shaped[np.ndarray, "rows more"]:
    """Rows of more columns, the first one again and again."""
    return rows[:, [*range(rows.shape[1]), *[0] * (columns - rows.shape[1])]]


def quotas(rows: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """Rows of an epoch that each corpus gives: as many in all as there are, shared by weight.

    >>> quotas([90, 10], [1, 1])
    [50, 50]
    """
    if weights is None:
        return list(rows)
    total, mass = sum(rows), sum(weights)
    exact = [total * weight / mass for weight in weights]
    found = [int(share) for share in exact]
    order = sorted(range(len(rows)), key=lambda at: found[at] - exact[at])
    for at in order[: total - sum(found)]:
        found[at] += 1
    return found


def shares(
    parts: Sequence[Part], weights: Sequence[float | None], temperature: float
) -> list[float] | None:
    """The corpora's weights: as given, or as rows^(1/T); None for every row once.

    Raises InputError where some corpora have a weight and others none.
    """
    names = [part.corpus.name for part in parts]
    given = given_weights(dict(zip(names, weights, strict=True)))
    if given is None and temperature != 1:
        most = max(map(len, parts))  # shares of the largest, since a power of rows may be too large
        return [(len(part) / most) ** (1 / temperature) for part in parts]
    return given


def given_weights(weights: Mapping[str, float | None]) -> list[float] | None:
    """The corpora's weights, by name; None where none has one.

    Raises InputError where some corpora have a weight and others none.
    """
    given = [weight for weight in weights.values() if weight is not None]
    missing = [name for name, weight in weights.items() if weight is None]
    if given and missing:
        raise InputError(
            f"data.train.{missing[0]}.weight: not set, while other corpora have one; give each a "
            "weight, or none"
        )
    return given or None
