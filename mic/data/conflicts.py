"""How many rows of an epoch a row can share a text or a group with, at most."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from mic.data.subset import Part

BUCKETS = 2**24  # counters of keys, at most
BLOCK = 2**16  # rows whose keys are counted at a time


class Keys(NamedTuple):
    """Places of a part, the counters of their keys, and which keys stand first in their row."""

    places: Int64[np.ndarray, " places"]
    counters: Int64[np.ndarray, "places keys"]
    first: Bool[np.ndarray, "places keys"]


def most_conflicts(parts: Sequence[Part], times: Sequence[int]) -> int:
    """No row shares a key with more others than this, when each of a part stands `times` times.

    An upper bound: keys that fall into one counter count as one, so that memory stays the same
    however many there are.
    """
    keys = sum(len(part) * part.corpus.keys.shape[1] for part in parts)
    counts = np.zeros(min(BUCKETS, 1 << (16 * keys).bit_length()), np.int64)
    for part, often in zip(parts, times, strict=True):
        for found in blocks(part, len(counts)):
            shares = np.full(found.counters.shape, often)
            if part.labelled:  # a text may be the partner of every row of its label
                shares[:, 0] *= part.by_label.counts[found.places]
            np.add.at(counts, found.counters[found.first], shares[found.first])
    return max(most_of_part(part, counts) for part in parts)


def most_of_part(part: Part, counts: Int64[np.ndarray, " counters"]) -> int:
    """The most others of one row, and, for labelled texts, of the text it is paired with."""
    most = partner = 0
    for found in blocks(part, len(counts)):
        others = np.where(found.first, counts[found.counters] - 1, 0)
        most = max(most, int(others.sum(1).max()))
        partner = max(partner, int(others[:, 0].max()))
    return most + (partner if part.labelled else 0)


def blocks(part: Part, counters: int) -> Iterator[Keys]:
    for start in range(0, len(part), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(part)))
        keys = part.keys(part.rows(places))
        first = np.ones(keys.shape, bool)
        for column in range(1, keys.shape[1]):
            first[:, column] = (keys[:, column, None] != keys[:, :column]).all(1)
        yield Keys(places, (keys % np.uint64(counters)).astype(np.int64), first)
