"""Rows of a window cut into batches in which no two rows share a key (a text, or a group).

Rows of like length share a batch. A row that meets a row of its own key is not dropped: it changes
places with a row of the nearest batch where both are at peace.

Why that works: let no row share a key with more than c rows of the window, of `batches` batches of
`size` rows. A row x in strife has at least batches - c other batches free of its keys, so
(batches - c) size rows to change places with, and at most (size - 1) c of them share a key with
what stays behind in x's batch. So with batches >= 2 c one always fits, and each change leaves
fewer rows in strife.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

Keys = UInt64[np.ndarray, "rows keys"]
Lengths = Int32[np.ndarray, "rows columns"]
Batches = Int64[np.ndarray, "batches size"]


def pack(keys: Keys, lengths: Lengths, size: int) -> Batches:
    """Rows, cut into as many whole batches of `size` as can be had.

    Rows that are left over are the last ones, and those whose key stands in more rows than there
    are batches.
    """
    rows = len(keys)
    batches = rows // size
    if batches == 0:
        return np.empty((0, size), np.int64)
    strife = Strife(keys)
    if strife.most <= batches:
        alike = by_length(np.arange(batches * size), lengths, batches, size)
        found = strife.settle(alike.reshape(batches, size))
        if found is not None:
            return found
    return pack_tight(strife, rows, size)


def by_length(
    rows: Int64[np.ndarray, " chosen"], lengths: Lengths, batches: int, size: int
) -> Int64[np.ndarray, " chosen"]:
    """The rows in an order whose cuts into batches have little to pad, in any column.

    They are sorted by the first column and cut into slices, each slice by the others likewise, up
    and down in turn, so that neighbours are alike in all columns. To make the sum of the columns'
    ranges in a batch least, a column gets slices in proportion to its spread.
    """
    rows = rows[np.argsort(lengths[rows, 0], kind="stable")]
    columns = lengths.shape[1]
    if columns == 1:
        return rows
    spreads = np.maximum(lengths[rows].std(0), 1e-3)
    share = spreads[0] * (batches / np.prod(spreads)) ** (1 / columns)
    slices = int(np.clip(round(share), 1, batches))
    found = []
    for number in range(slices):
        start, stop = number * batches // slices, (number + 1) * batches // slices
        within = by_length(rows[start * size : stop * size], lengths[:, 1:], stop - start, size)
        found.append(within[::-1] if number % 2 else within)
    return np.concatenate(found)


def pack_tight(strife: "Strife", rows: int, size: int) -> Batches:
    """As many batches as the most repeated keys leave room for, whatever the lengths.

    With one key a row this is the most there can be: dealing rows out in turn, one key after the
    other, keeps the rows of a key apart as long as none has more rows than there are batches.
    """
    batches = most_batches(strife.heaviest_counts(), size)
    while batches:
        kept = strife.first_of_each_key(rows, batches)
        if len(kept) < batches * size:
            batches = len(kept) // size
            continue
        dealt = strife.by_heaviest_key(kept[: batches * size])
        found = strife.settle(dealt.reshape(size, batches).T.copy())
        if found is not None:
            return found
        batches -= max(1, batches // 50)
    return np.empty((0, size), np.int64)


def most_batches(counts: Int64[np.ndarray, " groups"], size: int) -> int:
    """The most batches of `size` rows of different groups that groups of these sizes can fill.

    The largest L with sum_g min(counts_g, L) >= L size: a group gives a batch one row at most.

    >>> most_batches(np.array([9, 2, 2]), size=2)
    4
    """
    low, high = 0, int(counts.sum()) // size
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() >= middle * size:
            low = middle
        else:
            high = middle - 1
    return low


def heaviest(keys: Keys) -> Int64[np.ndarray, " rows"]:
    """The number of each row's key that stands most often."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    numbers = numbers.reshape(keys.shape)
    column = counts[numbers].argmax(1)
    return np.take_along_axis(numbers, column[:, None], 1)[:, 0]


def fitting(keys: Keys, size: int) -> Int64[np.ndarray, " fitting"]:
    """The first rows that fill whole batches: of a key, no more than there are batches.

    >>> fitting(np.array([[7], [7], [7], [8], [9]], np.uint64), size=2)
    array([0, 1, 3, 4])
    """
    if not len(keys):
        return np.empty(0, np.int64)
    groups = heaviest(keys)
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - (np.cumsum(counts) - counts)[groups[order]]
    batches = most_batches(counts, size)
    return np.flatnonzero(ranks < batches)[: batches * size]


class Strife:
    """Which rows of a window share a key, and how to keep them apart."""

    def __init__(self, keys: Keys) -> None:
        _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self.numbers: Int64[np.ndarray, "rows keys"] = numbers.reshape(keys.shape)
        if keys.shape[1] > 1:  # a row that holds a key twice counts once
            pairs = np.sort(self.numbers, axis=1)
            twice = pairs[:, 1:][pairs[:, 1:] == pairs[:, :-1]]
            counts = counts - np.bincount(twice, minlength=len(counts))
        self.counts: Int64[np.ndarray, " different"] = counts
        self.most = int(counts.max())
        self.shared: Bool[np.ndarray, " rows"] = np.any(counts[self.numbers] > 1, axis=1)
        held = np.flatnonzero(self.shared)
        self.keys_of: dict[int, tuple[int, ...]] = {
            row: tuple({number for number in numbers if counts[number] > 1})
            for row, numbers in zip(held.tolist(), self.numbers[held].tolist(), strict=True)
        }

    def heaviest(self) -> Int64[np.ndarray, " rows"]:
        """Each row's key of the most rows."""
        column = self.counts[self.numbers].argmax(1)
        return np.take_along_axis(self.numbers, column[:, None], 1)[:, 0]

    def heaviest_counts(self) -> Int64[np.ndarray, " groups"]:
        found: Int64[np.ndarray, " groups"] = np.unique(self.heaviest(), return_counts=True)[1]
        return found

    def by_heaviest_key(self, rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        """Rows of one key side by side."""
        return rows[np.argsort(self.heaviest()[rows], kind="stable")]

    def first_of_each_key(self, rows: int, most: int) -> Int64[np.ndarray, " kept"]:
        """The rows in order, but those after the `most`-th of one of their keys."""
        seen: Counter[int] = Counter()
        kept = np.ones(rows, bool)
        for row, keys in self.keys_of.items():
            if all(seen[key] < most for key in keys):
                seen.update(keys)
            else:
                kept[row] = False
        return np.flatnonzero(kept)

    def settle(self, batches: Batches) -> Batches | None:
        """Change places until no batch holds a key twice; None where a row finds no place."""
        table = Table(batches, self.keys_of)
        moved = all(
            table.move(batch, place)
            for batch, place in np.argwhere(self.shared[batches]).tolist()
            if table.in_strife(batch, place)
        )
        return table.batches if moved else None


class Table:
    """Batches whose rows change places, and how often each batch holds each key."""

    def __init__(self, batches: Batches, keys_of: dict[int, tuple[int, ...]]) -> None:
        self.batches = batches
        self.keys_of = keys_of
        self.held: Counter[tuple[int, int]] = Counter()
        for batch, rows in enumerate(batches.tolist()):
            for row in rows:
                self.held.update((batch, key) for key in keys_of.get(row, ()))

    def keys_at(self, batch: int, place: int) -> tuple[int, ...]:
        return self.keys_of.get(int(self.batches[batch, place]), ())

    def in_strife(self, batch: int, place: int) -> bool:
        return any(self.held[batch, key] > 1 for key in self.keys_at(batch, place))

    def move(self, batch: int, place: int) -> bool:
        """Change a row's place with the nearest that brings peace to both; False: there is none."""
        mine = self.keys_at(batch, place)
        for other in nearest(batch, len(self.batches)):
            # a key in the way there would come here with the row that holds it
            in_way = [key for key in mine if self.held[other, key]]
            if any(self.held[other, key] > 1 or self.held[batch, key] > 1 for key in in_way):
                continue
            for at in range(self.batches.shape[1]):
                theirs = self.keys_at(other, at)
                if any(self.held[other, key] > (key in theirs) for key in in_way):
                    continue
                if any(self.held[batch, key] > (key in mine) for key in theirs):
                    continue
                self.change((batch, place), (other, at))
                return True
        return False

    def change(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        for (batch, place), (target, _) in ((one, other), (other, one)):
            keys = self.keys_at(batch, place)
            self.held.subtract((batch, key) for key in keys)
            self.held.update((target, key) for key in keys)
        self.batches[one], self.batches[other] = self.batches[other], self.batches[one]


def nearest(batch: int, batches: int) -> Iterator[int]:
    """The other batches, from the nearest.

    >>> list(nearest(1, 5))
    [0, 2, 3, 4]
    """
    for distance in range(1, batches):
        if batch - distance >= 0:
            yield batch - distance
        if batch + distance < batches:
            yield batch + distance
