"""CorpusSubset, the rows of a corpus that one split holds, and how many rows may conflict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from mic.data.corpus import Corpus
from mic.data.order.permutation import mix
from mic.data.sources.examples import hash_text

BUCKETS = 2**24  # counters of keys, at most
BLOCK = 2**16  # rows whose keys are counted at a time


@dataclass(frozen=True)
class CorpusSubset:
    """The rows of a corpus that a split holds: all but the sorted `without`, or the `only` ones."""

    corpus: Corpus
    without: Int64[np.ndarray, " held"]
    only: Int64[np.ndarray, " only"] | None = None

    def __len__(self) -> int:
        return len(self.corpus) - len(self.without) if self.only is None else len(self.only)

    def rows(self, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """The corpus's rows at places of this subset."""
        if self.only is not None:
            listed: Int64[np.ndarray, " places"] = self.only[places]
            return listed
        before = self.without - np.arange(len(self.without))
        rows: Int64[np.ndarray, " places"] = places + np.searchsorted(before, places, side="right")
        return rows

    def keys(self, rows: Int64[np.ndarray, " rows"]) -> UInt64[np.ndarray, "rows keys"]:
        return row_keys(self.corpus, rows)

    @property
    def labelled(self) -> bool:
        return self.corpus.meta.kind == "labelled"

    @cached_property
    def by_label(self) -> "ByLabel":
        labels = self.corpus.keys[self.rows(np.arange(len(self)))][:, -1]
        _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        order = np.argsort(codes, kind="stable")
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        starts = (np.cumsum(counts) - counts)[codes]
        return ByLabel(order, ranks - starts, starts, counts[codes])

    def partners(
        self, places: Int64[np.ndarray, " places"], key: int
    ) -> Int64[np.ndarray, " places"]:
        """For each place another of its label, drawn evenly by the key; itself if it is alone."""
        _, ranks, starts, counts = (column[places] for column in self.by_label)
        others = np.maximum(counts - 1, 1).astype(np.uint64)
        step = 1 + (mix(places.astype(np.uint64), np.uint64(key)) % others).astype(np.int64)
        drawn: Int64[np.ndarray, " places"] = self.by_label.order[starts + (ranks + step) % counts]
        return drawn


class ByLabel(NamedTuple):
    """Places sorted by label; for each place its rank in its label, where that label starts in the
    order, and how many places it has."""

    order: Int64[np.ndarray, " rows"]
    ranks: Int64[np.ndarray, " rows"]
    starts: Int64[np.ndarray, " rows"]
    counts: Int64[np.ndarray, " rows"]


def row_keys(corpus: Corpus, rows: Int64[np.ndarray, " rows"]) -> UInt64[np.ndarray, "rows keys"]:
    """The hashes of rows' texts and groups; equal groups of two corpora get different hashes."""
    keys = np.asarray(corpus.keys[rows])
    if corpus.meta.grouped:
        keys[:, -1] ^= np.uint64(hash_text(corpus.name))
    return keys


class KeyBlock(NamedTuple):
    """Places of a subset, the counters of their keys, and which keys are new in their row."""

    places: Int64[np.ndarray, " places"]
    counters: Int64[np.ndarray, "places keys"]
    first: Bool[np.ndarray, "places keys"]


def most_conflicts(subsets: Sequence[CorpusSubset], times: Sequence[int]) -> int:
    """A bound on the rows that any row shares a key with, when subset i stands `times[i]` times.

    Keys that fall into one counter count as one, so that memory stays the same however many there
    are.
    """
    keys = sum(len(subset) * subset.corpus.keys.shape[1] for subset in subsets)
    counts = np.zeros(min(BUCKETS, 1 << (16 * keys).bit_length()), np.int64)
    for subset, repeats in zip(subsets, times, strict=True):
        for block in key_blocks(subset, len(counts)):
            shares = np.full(block.counters.shape, repeats)
            if subset.labelled:  # a text may be the partner of every row of its label
                shares[:, 0] *= subset.by_label.counts[block.places]
            np.add.at(counts, block.counters[block.first], shares[block.first])
    return max(most_in_subset(subset, counts) for subset in subsets)


def most_in_subset(subset: CorpusSubset, counts: Int64[np.ndarray, " counters"]) -> int:
    """The most others of one row, and, for labelled texts, of the text it is paired with."""
    most = partner = 0
    for block in key_blocks(subset, len(counts)):
        others = np.where(block.first, counts[block.counters] - 1, 0)
        most = max(most, int(others.sum(1).max()))
        partner = max(partner, int(others[:, 0].max()))
    return most + (partner if subset.labelled else 0)


def key_blocks(subset: CorpusSubset, counters: int) -> Iterator[KeyBlock]:
    for start in range(0, len(subset), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(subset)))
        keys = subset.keys(subset.rows(places))
        first = np.ones(keys.shape, bool)
        for column in range(1, keys.shape[1]):
            first[:, column] = (keys[:, column, None] != keys[:, :column]).all(1)
        yield KeyBlock(places, (keys % np.uint64(counters)).astype(np.int64), first)
