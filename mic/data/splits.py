"""Split, the rows that are trained on or validated with, and how rows are held out by the seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mic.data.corpus import Corpus
from mic.data.indexed import RowIndex, first_numbers
from mic.data.mixture import Mixture
from mic.data.order.permutation import derive_key, permute
from mic.data.subset import CorpusSubset

HOLD_OUT = 21  # what a key is for
NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Split:
    """The rows that are trained on, or validated with."""

    name: str
    mixture: Mixture
    row_index: RowIndex

    def __len__(self) -> int:
        return len(self.mixture)

    def texts(self) -> Iterator[tuple[str, ...]]:
        """The texts of every row, corpus by corpus; a labelled text stands alone."""
        for subset in self.mixture.subsets:
            places = np.arange(len(subset))
            for start in range(0, len(subset), 10_000):
                yield from subset.corpus.texts(subset.rows(places[start : start + 10_000]).tolist())

    def sample(self, count: int, seed: int) -> list[tuple[str, ...]]:
        """The texts of `count` rows, at most all, chosen by the seed."""
        rows = len(self.mixture)
        chosen = permute(np.arange(min(count, rows)), rows, derive_key(seed))
        drawn = self.mixture.draw(0, chosen)
        sampled = self.row_index.rows(drawn.numbers.tolist(), drawn.partners.tolist())
        return [row.texts for row in sampled]


def all_rows(corpora: Sequence[Corpus]) -> list[CorpusSubset]:
    return [CorpusSubset(corpus, NOTHING) for corpus in corpora]


def hold_out(
    corpora: Sequence[Corpus], count: int, seed: int
) -> tuple[list[CorpusSubset], list[CorpusSubset]]:
    """Split rows into (training, validation) by the seed; at most a tenth is held out."""
    firsts = first_numbers(corpora)
    rows = int(firsts[-1])
    held = np.sort(permute(np.arange(min(count, rows // 10)), rows, derive_key(seed, HOLD_OUT)))
    training, validation = [], []
    for corpus, first, stop in zip(corpora, firsts, firsts[1:], strict=False):
        rows_held = held[np.searchsorted(held, first) : np.searchsorted(held, stop)] - first
        rows_held = rows_held[: len(corpus) - 1]  # a small corpus has a row left to train on
        training.append(CorpusSubset(corpus, rows_held))
        validation += [CorpusSubset(corpus, NOTHING, rows_held)] if len(rows_held) else []
    return training, validation


def explain_no_batch(split: Split) -> str:
    """The error message of a split of which no batch can be made: some key is in too many rows."""
    size = split.mixture.batch_size
    repeated = []
    for subset in split.mixture.subsets:
        keys = subset.keys(subset.rows(np.arange(len(subset))))
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        most = int(counts.argmax())
        row = int(subset.rows(first[[most]] // keys.shape[1])[0])
        column = int(first[most]) % keys.shape[1]
        what = "group" if column == subset.corpus.meta.columns else "text"
        repeated.append((int(counts[most]), subset, row, what))
    count, subset, row, what = max(repeated, key=lambda entry: entry[0])
    text = subset.corpus.texts([row])[0][0]
    return (
        f"data.{split.name}.{subset.corpus.name}: no batch of {size} rows that share neither text "
        f"nor group can be filled: the {what} of {text!r:.60} stands in {count:,} of "
        f"{len(subset):,} rows; lower trainer.batch_size, drop rows, or set data.keep_apart=false, "
        "so that objective.mask_equal masks such pairs in its place"
    )
