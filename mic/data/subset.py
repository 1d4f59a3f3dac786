"""The rows of a corpus that a split holds, and their labels."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from mic.data.corpus import Corpus
from mic.data.order.permutation import mix
from mic.data.sources.examples import number


@dataclass(frozen=True)
class Part:
    """The rows of a corpus that a split holds: all but the sorted `without`, or the `only` ones."""

    corpus: Corpus
    without: Int64[np.ndarray, " held"]
    only: Int64[np.ndarray, " kept"] | None = None

    def __len__(self) -> int:
        return len(self.corpus) - len(self.without) if self.only is None else len(self.only)

    def rows(self, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """The corpus's rows at places of this part."""
        if self.only is not None:
            listed: Int64[np.ndarray, " places"] = self.only[places]
            return listed
        before = self.without - np.arange(len(self.without))
        found: Int64[np.ndarray, " places"] = places + np.searchsorted(before, places, side="right")
        return found

    def keys(self, rows: Int64[np.ndarray, " rows"]) -> UInt64[np.ndarray, "rows keys"]:
        return keys_of(self.corpus, rows)

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
        found: Int64[np.ndarray, " places"] = self.by_label.order[starts + (ranks + step) % counts]
        return found


class ByLabel(NamedTuple):
    """Places in order of their label; for each place its rank in its label, where that one starts
    in the order, and how many it has."""

    order: Int64[np.ndarray, " rows"]
    ranks: Int64[np.ndarray, " rows"]
    starts: Int64[np.ndarray, " rows"]
    counts: Int64[np.ndarray, " rows"]


def keys_of(corpus: Corpus, rows: Int64[np.ndarray, " rows"]) -> UInt64[np.ndarray, "rows keys"]:
    """The numbers of rows' texts and groups; corpora number their groups each for itself."""
    found = np.asarray(corpus.keys[rows])
    if corpus.meta.grouped:
        found[:, -1] ^= np.uint64(number(corpus.name))
    return found
