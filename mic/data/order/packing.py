"""Cut the rows of a window into batches in which no two rows share a key (a text or a group).

Rows of like length share a batch. A row that shares a key with another of its batch is not dropped:
it changes places with a row of the nearest batch where neither then shares a key.

Why that works: let no row share a key with more than c rows of the window, of `batches` batches of
`size` rows. A row x in conflict has at least batches - c other batches free of its keys, so
(batches - c) size rows to change places with, and at most (size - 1) c of them share a key with
what stays behind in x's batch. So with batches >= 2 c one always fits, and each change leaves
fewer rows in conflict.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

Keys = UInt64[np.ndarray, "rows keys"]
Lengths = Int32[np.ndarray, "rows columns"]
Batches = Int64[np.ndarray, "batches size"]


def pack(keys: Keys, lengths: Lengths, size: int) -> Batches:
    """Cut rows into as many whole batches of `size` as possible.

    Rows that are left over are the last ones, and those whose key stands in more rows than there
    are batches.
    """
    rows = len(keys)
    batches = rows // size
    if batches == 0:
        return np.empty((0, size), np.int64)
    conflicts = KeyConflicts(keys)
    if conflicts.most <= batches:
        alike = sort_by_length(np.arange(batches * size), lengths, batches, size)
        packed = conflicts.resolve(alike.reshape(batches, size))
        if packed is not None:
            return packed
    return pack_tight(conflicts, rows, size)


def sort_by_length(
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
    sorted_slices = []
    for number in range(slices):
        start, stop = number * batches // slices, (number + 1) * batches // slices
        chosen = rows[start * size : stop * size]
        within = sort_by_length(chosen, lengths[:, 1:], stop - start, size)
        sorted_slices.append(within[::-1] if number % 2 else within)
    return np.concatenate(sorted_slices)


def pack_tight(conflicts: "KeyConflicts", rows: int, size: int) -> Batches:
    """As many batches as the most repeated keys leave room for, whatever the lengths.

    With one key a row this is the most there can be: dealing rows out in turn, one key after the
    other, keeps the rows of a key apart as long as none has more rows than there are batches.
    """
    batches = most_batches(conflicts.group_counts(), size)
    while batches:
        chosen = conflicts.first_of_each_key(rows, batches)
        if len(chosen) < batches * size:
            batches = len(chosen) // size
            continue
        dealt = conflicts.sort_by_group(chosen[: batches * size])
        packed = conflicts.resolve(dealt.reshape(size, batches).T.copy())
        if packed is not None:
            return packed
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


def most_repeated_keys(keys: Keys) -> Int64[np.ndarray, " rows"]:
    """For each row the one of its keys that most rows have, as an index into the sorted keys."""
    _, indices, counts = np.unique(keys, return_inverse=True, return_counts=True)
    indices = indices.reshape(keys.shape)
    column = counts[indices].argmax(1)
    return np.take_along_axis(indices, column[:, None], 1)[:, 0]


def rows_that_fit(keys: Keys, size: int) -> Int64[np.ndarray, " fitting"]:
    """The first rows that fill whole batches: of a key, no more than there are batches.

    >>> rows_that_fit(np.array([[7], [7], [7], [8], [9]], np.uint64), size=2)
    array([0, 1, 3, 4])
    """
    if not len(keys):
        return np.empty(0, np.int64)
    groups = most_repeated_keys(keys)
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - (np.cumsum(counts) - counts)[groups[order]]
    batches = most_batches(counts, size)
    return np.flatnonzero(ranks < batches)[: batches * size]


class KeyConflicts:
    """Which rows of a window share a key, and how to keep them apart."""

    def __init__(self, keys: Keys) -> None:
        _, indices, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self.indices: Int64[np.ndarray, "rows keys"] = indices.reshape(keys.shape)
        if keys.shape[1] > 1:  # a row that holds a key twice counts once
            pairs = np.sort(self.indices, axis=1)
            twice = pairs[:, 1:][pairs[:, 1:] == pairs[:, :-1]]
            counts = counts - np.bincount(twice, minlength=len(counts))
        self.counts: Int64[np.ndarray, " different"] = counts
        self.most = int(counts.max())
        self.shared: Bool[np.ndarray, " rows"] = np.any(counts[self.indices] > 1, axis=1)
        sharing = np.flatnonzero(self.shared)
        self.shared_keys: dict[int, tuple[int, ...]] = {
            row: tuple({key for key in keys_of_row if counts[key] > 1})
            for row, keys_of_row in zip(
                sharing.tolist(), self.indices[sharing].tolist(), strict=True
            )
        }

    def groups(self) -> Int64[np.ndarray, " rows"]:
        """Each row's key that most rows have."""
        column = self.counts[self.indices].argmax(1)
        return np.take_along_axis(self.indices, column[:, None], 1)[:, 0]

    def group_counts(self) -> Int64[np.ndarray, " groups"]:
        counts: Int64[np.ndarray, " groups"] = np.unique(self.groups(), return_counts=True)[1]
        return counts

    def sort_by_group(self, rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        """Rows of one group side by side."""
        return rows[np.argsort(self.groups()[rows], kind="stable")]

    def first_of_each_key(self, rows: int, most: int) -> Int64[np.ndarray, " chosen"]:
        """The rows in order, but those after the `most`-th of one of their keys."""
        seen: Counter[int] = Counter()
        chosen = np.ones(rows, bool)
        for row, keys in self.shared_keys.items():
            if all(seen[key] < most for key in keys):
                seen.update(keys)
            else:
                chosen[row] = False
        return np.flatnonzero(chosen)

    def resolve(self, batches: Batches) -> Batches | None:
        """Exchange rows until no batch holds a key twice; None where a row fits nowhere."""
        table = BatchTable(batches, self.shared_keys)
        moved = all(
            table.move(batch, place)
            for batch, place in np.argwhere(self.shared[batches]).tolist()
            if table.conflicts(batch, place)
        )
        return table.batches if moved else None


class BatchTable:
    """Batches whose rows are exchanged, and how often each batch holds each key."""

    def __init__(self, batches: Batches, shared_keys: dict[int, tuple[int, ...]]) -> None:
        self.batches = batches
        self.shared_keys = shared_keys
        self.counts: Counter[tuple[int, int]] = Counter()
        for batch, rows in enumerate(batches.tolist()):
            for row in rows:
                self.counts.update((batch, key) for key in shared_keys.get(row, ()))

    def keys_at(self, batch: int, place: int) -> tuple[int, ...]:
        return self.shared_keys.get(int(self.batches[batch, place]), ())

    def conflicts(self, batch: int, place: int) -> bool:
        return any(self.counts[batch, key] > 1 for key in self.keys_at(batch, place))

    def move(self, batch: int, place: int) -> bool:
        """Exchange a row with the nearest where neither then conflicts; False if there is none."""
        keys = self.keys_at(batch, place)
        for other in nearest_batches(batch, len(self.batches)):
            # a key of the other batch would come to this one with the row that holds it
            in_way = [key for key in keys if self.counts[other, key]]
            if any(self.counts[other, key] > 1 or self.counts[batch, key] > 1 for key in in_way):
                continue
            for other_place in range(self.batches.shape[1]):
                other_keys = self.keys_at(other, other_place)
                if any(self.counts[other, key] > (key in other_keys) for key in in_way):
                    continue
                if any(self.counts[batch, key] > (key in keys) for key in other_keys):
                    continue
                self.exchange((batch, place), (other, other_place))
                return True
        return False

    def exchange(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        for (batch, place), (target, _) in ((first, second), (second, first)):
            keys = self.keys_at(batch, place)
            self.counts.subtract((batch, key) for key in keys)
            self.counts.update((target, key) for key in keys)
        self.batches[first], self.batches[second] = self.batches[second], self.batches[first]


def nearest_batches(batch: int, batches: int) -> Iterator[int]:
    """The other batches, from the nearest.

    >>> list(nearest_batches(1, 5))
    [0, 2, 3, 4]
    """
    for distance in range(1, batches):
        if batch - distance >= 0:
            yield batch - distance
        if batch + distance < batches:
            yield batch + distance
