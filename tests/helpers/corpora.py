"""Small corpora beside the plain rows that they were written from, for tests of their order."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mic.config.schema_data import CorpusConfig
from mic.data.corpus import Corpus, open_corpus
from mic.data.mixture import Mixture
from mic.data.subset import CorpusSubset

NOTHING = np.empty(0, np.int64)
KINDS: dict[str, dict[str, object]] = {
    "single": {"columns": ["a"]},
    "pair": {"columns": ["a", "b"]},
    "triplet": {"columns": ["a", "b", "c"]},
    "grouped": {"columns": ["a", "b"], "group": "g"},
    "labelled": {"columns": ["a"], "label": "g"},
}
Row = dict[str, str]


@dataclass
class WrittenCorpus:
    """A corpus, its rows as they were written, and those of them that a split holds."""

    corpus: Corpus
    rows: list[Row]
    used: list[int]
    subset: CorpusSubset

    def texts(self, row: int) -> tuple[str, ...]:
        return tuple(self.rows[row][column] for column in "abc"[: self.corpus.meta.columns])

    def group(self, row: int) -> str | None:
        return self.rows[row]["g"] if self.corpus.meta.grouped else None

    def marks(self, row: int) -> set[tuple[str, ...]]:
        """What no other row of a batch may hold: its texts, and its group in its corpus."""
        group = self.group(row)
        marks = set() if group is None else {("group", self.corpus.name, group)}
        return marks | {("text", text) for text in self.texts(row)}


def write_corpus(
    folder: Path, rows: Sequence[Row], kind: str = "pair", name: str = "some", held: object = ()
) -> WrittenCorpus:
    """A corpus of these rows; those `held` are without, or, with a list, the only ones."""
    written = "".join(json.dumps(row) + "\n" for row in rows)
    file = folder / f"{hashlib.sha256(written.encode()).hexdigest()[:16]}.jsonl"
    file.write_text(written)
    corpus = open_corpus(name, CorpusConfig(str(file), **KINDS[kind]))
    listed = np.array(sorted(held), np.int64)
    if isinstance(held, list):
        return WrittenCorpus(
            corpus, list(rows), sorted(held), CorpusSubset(corpus, NOTHING, listed)
        )
    remaining = [row for row in range(len(rows)) if row not in set(held)]
    return WrittenCorpus(corpus, list(rows), remaining, CorpusSubset(corpus, listed))


def open_together(file: str, cache: str, barrier: Barrier, results: "Queue[Any]") -> None:
    """Open a corpus when other processes do; its rows, and when it was written, to `results`."""
    os.environ["MIC_CACHE"] = cache
    barrier.wait()
    corpus = open_corpus("x", CorpusConfig(file, ["a"]))
    results.put((len(corpus), (corpus.folder / "meta.json").stat().st_mtime_ns))


def unlike(count: int, groups: int = 0, first: int = 0) -> list[Row]:
    """Rows of which no two share a text; the longer, the later."""
    return [
        {c: f"{c}{row} " + "x" * row for c in "abc"} | {"g": str(row % max(groups, 1))}
        for row in range(first, first + count)
    ]


@st.composite
def corpora(
    draw: st.DrawFn, folder: Path, kinds: Sequence[str] = tuple(KINDS)
) -> list[WrittenCorpus]:
    """One to three corpora of few or many different texts and groups, some rows held out."""
    written = []
    for name in "xyz"[: draw(st.integers(1, 3))]:
        count, different = draw(st.integers(2, 20)), draw(st.sampled_from([4, 30, 3000]))
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        texts, groups = (
            rng.integers(0, different, (count, 3)),
            rng.integers(0, different // 2, count),
        )
        rows = [
            {c: f"{'t' * (n % 17)}{n}" for c, n in zip("abc", row, strict=True)}
            | {"g": f"g{group}"}
            for row, group in zip(texts.tolist(), groups.tolist(), strict=True)
        ]
        held = draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
        only = draw(st.booleans()) and held
        written.append(
            write_corpus(
                folder, rows, draw(st.sampled_from(kinds)), name, sorted(held) if only else held
            )
        )
    return written


@dataclass
class Seen:
    """A row of an epoch: whose it is, its texts with its partner's, and what it may not meet."""

    owner: int
    row: int
    partner: int | None
    texts: tuple[str, ...]
    marks: set[tuple[str, ...]]


def rows_of(
    written: Sequence[WrittenCorpus], numbers: Sequence[int], partners: Sequence[int]
) -> list[Seen]:
    """What numbers through all corpora stand for, counted one by one."""
    plain = [
        (owner, row) for owner, corpus in enumerate(written) for row in range(len(corpus.rows))
    ]
    rows = []
    for number, partner in zip(numbers, partners, strict=True):
        owner, row = plain[number]
        texts, marks, other = written[owner].texts(row), written[owner].marks(row), None
        if written[owner].corpus.meta.kind == "labelled":
            beside, other = plain[partner]
            assert beside == owner
            texts += written[owner].texts(other)
            marks |= written[owner].marks(other)
        else:
            assert partner == -1
        rows.append(Seen(owner, row, other, texts, marks))
    return rows


def epoch_of(written: Sequence[WrittenCorpus], mixture: Mixture, epoch: int) -> list[Seen]:
    """The rows of an epoch by place."""
    drawn = mixture.draw(epoch, np.arange(len(mixture)))
    return rows_of(written, drawn.numbers.tolist(), drawn.partners.tolist())


def met(rows: Sequence[Seen]) -> int:
    """The most others that any of these rows may not meet."""
    return max(sum(bool(row.marks & two.marks) for two in rows) - 1 for row in rows)
