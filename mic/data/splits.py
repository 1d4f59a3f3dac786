"""The rows of a split: held out by the seed, listed, sampled; why no batch can be made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mic.data.corpus import Corpus
from mic.data.indexed import Numbered, first_numbers
from mic.data.mixture import Mixture
from mic.data.order.permutation import key_of, permute
from mic.data.subset import Part

HOLD_OUT = 21  # what a key is for
NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Split:
    """The rows that are trained on, or validated with."""

    name: str
    mixture: Mixture
    numbered: Numbered

    def __len__(self) -> int:
        return len(self.mixture)

    def texts(self) -> Iterator[tuple[str, ...]]:
        """The texts of every row, corpus by corpus; a labelled text stands alone."""
        for part in self.mixture.parts:
            places = np.arange(len(part))
            for start in range(0, len(part), 10_000):
                yield from part.corpus.texts(part.rows(places[start : start + 10_000]).tolist())

    def sample(self, count: int, seed: int) -> list[tuple[str, ...]]:
        """The texts of `count` rows, at most all, chosen by the seed."""
        chosen = permute(np.arange(min(count, len(self.mixture))), len(self.mixture), key_of(seed))
        drawn = self.mixture.draw(0, chosen)
        rows = self.numbered.rows(drawn.numbers.tolist(), drawn.partners.tolist())
        return [row.texts for row in rows]


def whole(corpora: Sequence[Corpus]) -> list[Part]:
    return [Part(corpus, NOTHING) for corpus in corpora]


def hold_out(corpora: Sequence[Corpus], count: int, seed: int) -> tuple[list[Part], list[Part]]:
    """Split rows into (kept, held out) by the seed; at most a tenth is held out."""
    firsts = first_numbers(corpora)
    rows = int(firsts[-1])
    held = np.sort(permute(np.arange(min(count, rows // 10)), rows, key_of(seed, HOLD_OUT)))
    kept, out = [], []
    for corpus, first, stop in zip(corpora, firsts, firsts[1:], strict=False):
        own = held[np.searchsorted(held, first) : np.searchsorted(held, stop)] - first
        own = own[: len(corpus) - 1]  # a small corpus keeps a row to train on
        kept.append(Part(corpus, own))
        out += [Part(corpus, NOTHING, own)] if len(own) else []
    return kept, out


def impossible(split: Split) -> str:
    """Why no batch can be filled: the rows of some text or group are too many."""
    size = split.mixture.batch_size
    keys = [part.keys(part.rows(np.arange(len(part)))) for part in split.mixture.parts]
    heaviest = []
    for part, found in zip(split.mixture.parts, keys, strict=True):
        different, first, counts = np.unique(found, return_index=True, return_counts=True)
        most = int(counts.argmax())
        row = int(part.rows(first[[most]] // found.shape[1])[0])
        column = int(first[most]) % found.shape[1]
        what = "group" if column == part.corpus.meta.columns else "text"
        heaviest.append((int(counts[most]), part, row, what, len(different)))
    count, part, row, what, _ = max(heaviest, key=lambda found: found[0])
    shown = part.corpus.texts([row])[0][0]
    return (
        f"data.{split.name}.{part.corpus.name}: no batch of {size} rows that share neither text "
        f"nor group can be filled: the {what} of {shown!r:.60} stands in {count:,} of "
        f"{len(part):,} rows; lower trainer.batch_size, drop rows, or set data.keep_apart=false, "
        "so that objective.mask_equal masks such pairs in its place"
    )
