"""Mixture: several corpora as one population, which rows an epoch holds, which share batches.

An epoch has as many places as the corpora have rows. Place by place it goes through each corpus's
share of it: without weights every row once; with weights the rows of a corpus come in shuffled
passes, one after the other through the epochs, so that all its rows come equally often.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from mic.data.indexed import first_numbers, training_columns
from mic.data.order.batch_order import Drawn, Section
from mic.data.order.packing import most_repeated_keys, rows_that_fit
from mic.data.order.permutation import derive_key, permute
from mic.data.subset import CorpusSubset, most_conflicts
from mic.errors import InputError

PASS, PARTNER, LENGTH = 11, 12, 13  # what a key is for
MULTIPLE = 8  # tokens: what a budget rounds lengths up to, on every device alike
NOTHING = np.empty(0, np.int64)


class Mixture:
    """The rows of several corpora, their shares of an epoch, and which of them may meet.

    `weights` are the corpora's shares of an epoch, of any sum; None: every row once. With `single`
    the rows of each batch are of one corpus. `lengths` are those of each corpus's texts (None: in
    characters); where they count tokens, a batch may have as many rows of one length as
    `batch_tokens` hold.

    Raises InputError where a share is no row, or a text does not fit into a batch's tokens.
    """

    def __init__(
        self,
        subsets: Sequence[CorpusSubset],
        seed: int,
        *,
        batch_size: int,
        weights: Sequence[float] | None = None,
        single: bool = False,
        keep_apart: bool = True,
        lengths: Sequence[Int32[np.ndarray, "_ _"]] | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.subsets = subsets
        self.seed = seed
        self.batch_size = batch_size
        self.single = single
        self.keep_apart = keep_apart
        self.batch_tokens = batch_tokens
        self.lengths = lengths or [subset.corpus.lengths for subset in subsets]
        self.quotas = quotas([len(subset) for subset in subsets], weights)
        for subset, quota in zip(subsets, self.quotas, strict=True):
            if not quota:
                raise InputError(
                    f"data.train.{subset.corpus.name}.weight: its share of an epoch of "
                    f"{sum(self.quotas)} rows is none; raise it"
                )
        self.starts: Int64[np.ndarray, " starts"] = np.cumsum([0, *self.quotas])
        self.firsts = first_numbers([subset.corpus for subset in subsets])
        self._conflicts: dict[int | None, int] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def draw(self, epoch: int, places: Int64[np.ndarray, " places"]) -> Drawn:
        """The rows at places of an epoch."""
        numbers, partners = np.empty_like(places), np.full_like(places, -1)
        width = max(self.key_columns(subset) for subset in self.subsets)
        keys = np.empty((len(places), width), np.uint64)
        columns = max(training_columns(subset.corpus) for subset in self.subsets)
        lengths = np.empty((len(places), columns), np.int32)
        owners = np.searchsorted(self.starts, places, side="right") - 1
        for owner in np.unique(owners).tolist():
            positions = np.flatnonzero(owners == owner)
            subset, first = self.subsets[owner], self.firsts[owner]
            drawn = self.pass_places(owner, epoch, places[positions] - self.starts[owner])
            rows = subset.rows(drawn)
            numbers[positions] = rows + first
            row_keys, row_lengths = subset.keys(rows), self.lengths[owner][rows]
            if subset.labelled:
                key = derive_key(self.seed, PARTNER, owner, epoch)
                other = subset.rows(subset.partners(drawn, key))
                partners[positions] = other + first
                row_keys = np.concatenate([row_keys, subset.keys(other)], 1)
                row_lengths = np.concatenate([row_lengths, self.lengths[owner][other]], 1)
            # a key that stands twice in a row counts once
            keys[positions] = repeat_first_column(row_keys, width)
            lengths[positions] = repeat_first_column(row_lengths, columns)
        if not self.keep_apart:
            keys = places[:, None].astype(np.uint64)
        return Drawn(numbers, partners, keys, lengths)

    def pass_places(
        self, owner: int, epoch: int, within: Int64[np.ndarray, " places"]
    ) -> Int64[np.ndarray, " places"]:
        """Places of a subset for places of its share of an epoch."""
        rows, quota = len(self.subsets[owner]), self.quotas[owner]
        if rows == quota:
            return within  # every row once: the order shuffles them anyway
        turns, places = np.divmod(within + epoch * quota, rows)
        for turn in np.unique(turns).tolist():
            mask = turns == turn
            places[mask] = permute(places[mask], rows, derive_key(self.seed, PASS, owner, turn))
        return places

    def key_columns(self, subset: CorpusSubset) -> int:
        columns: int = subset.corpus.keys.shape[1]
        return columns * (1 + subset.labelled)

    def sections(self, epoch: int) -> list[Section]:
        """Which places share batches."""
        owners = range(len(self.subsets)) if self.single else [None]
        if self.batch_tokens is not None:
            return [section for owner in owners for section in self.by_length(epoch, owner)]
        return [
            Section(stop - start, self.batch_size, self.conflicts(owner), start)
            for owner in owners
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
        chosen = self.subsets if owner is None else [self.subsets[owner]]
        columns = max(training_columns(subset.corpus) for subset in chosen)
        key = derive_key(self.seed, LENGTH, epoch, start)
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
                fitting = rows_that_fit(drawn.keys[rows[: len(rows) - (longer == 1)]], size)
            else:
                fitting = np.arange(len(rows))
                size = min(size, max(2, len(np.unique(most_repeated_keys(drawn.keys[rows])))))
            waiting = np.delete(rows, fitting)
            if len(fitting):
                listed = places[rows[fitting]]
                sections.append(Section(len(fitting), size, self.conflicts(owner), 0, listed))
        return sections

    def conflicts(self, owner: int | None) -> int:
        """The most rows of an epoch that any row shares a key with, of one corpus or of all."""
        if not self.keep_apart:
            return 0
        if owner not in self._conflicts:
            chosen = slice(None) if owner is None else slice(owner, owner + 1)
            # a share that is no whole pass begins and ends in the middle of one
            times = [
                1 if quota == len(subset) else -(-quota // len(subset)) + 1
                for subset, quota in zip(self.subsets, self.quotas, strict=True)
            ]
            self._conflicts[owner] = most_conflicts(self.subsets[chosen], times[chosen])
        return self._conflicts[owner]


def repeat_first_column(
    rows: Shaped[np.ndarray, "rows few"], columns: int
) -> Shaped[np.ndarray, "rows more"]:
    """Rows widened to `columns` columns by copies of the first one."""
    return rows[:, [*range(rows.shape[1]), *[0] * (columns - rows.shape[1])]]


def quotas(rows: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """The rows of an epoch that each corpus gives, by weight; their sum is that of `rows`.

    >>> quotas([90, 10], [1, 1])
    [50, 50]
    """
    if weights is None:
        return list(rows)
    total, mass = sum(rows), sum(weights)
    exact = [total * weight / mass for weight in weights]
    counts = [int(share) for share in exact]
    order = sorted(range(len(rows)), key=lambda corpus: counts[corpus] - exact[corpus])
    for corpus in order[: total - sum(counts)]:
        counts[corpus] += 1
    return counts


def corpus_weights(
    subsets: Sequence[CorpusSubset], weights: Sequence[float | None], temperature: float
) -> list[float] | None:
    """The corpora's weights: as given, or as rows^(1/T); None for every row once.

    Raises InputError where some corpora have a weight and others none.
    """
    names = [subset.corpus.name for subset in subsets]
    given = given_weights(dict(zip(names, weights, strict=True)))
    if given is None and temperature != 1:
        most = max(map(len, subsets))  # a power of the rows themselves may be too large
        return [(len(subset) / most) ** (1 / temperature) for subset in subsets]
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
