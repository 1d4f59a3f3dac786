"""Report what a config would train on: rows, lengths, repeats, overlap with evaluation, padding."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import UInt64

from mic.data.corpus import BLOCK, Corpus
from mic.data.datamodule import PairDataModule
from mic.data.sources.examples import hash_text
from mic.data.splits import Split

BATCHES = 200  # loaded to measure padding and speed
TEXTS = 2000  # tokenized to measure lengths and speed
CUT_ROWS = 500  # tokenized to measure how many texts are cut
QUANTILES = (0.05, 0.5, 0.95)
TableWriter = Callable[[Sequence[str], Sequence[Sequence[str]]], str]  # of a head and rows


def corpus_report(
    data: PairDataModule,
    evaluation_texts: Mapping[str, Collection[str]],
    write_table: TableWriter,
) -> Iterator[str]:
    """The report in Markdown, a paragraph or a table at a time.

    `evaluation_texts` holds, by the name of its task, the texts that an evaluation scores.
    """
    for split in (data.train, data.validation):
        yield from split_report(data, split, write_table)
    if evaluation_texts:
        yield "## Overlap of evaluation with training texts"
        rows = []
        for task, texts in evaluation_texts.items():
            trained_on = overlap(data, texts)
            rows.append([task, len(texts), trained_on, percent(trained_on / len(texts))])
        head = ["task", "texts", "of them trained on", "share"]
        yield write_table(head, [as_text(row) for row in rows])


def split_report(data: PairDataModule, split: Split, write_table: TableWriter) -> Iterator[str]:
    """One split: its corpora, their lengths and repeats, its batches, a row of each."""
    mixture, order = split.mixture, data.order if split is data.train else data.validation_order
    corpora = [subset.corpus for subset in mixture.subsets]
    batches = order.length(0)
    yield f"## {split.name}: {len(split):,} rows, {batches:,} batches"
    rows = []
    for subset, quota in zip(mixture.subsets, mixture.quotas, strict=True):
        corpus, meta = subset.corpus, subset.corpus.meta
        share = percent(quota / len(mixture))
        dropped = "; ".join(f"{count:,} {why}" for why, count in meta.dropped.items() if count)
        read = [corpus.name, meta.kind, meta.read, dropped or "none", len(subset)]
        rows.append([*read, *repeated_rows(corpus), share])
    head = ["corpus", "kind", "rows read", "dropped", "kept", "repeated rows"]
    head += ["texts in several rows", "share of an epoch"]
    yield write_table(head, [as_text(row) for row in rows])
    lengths = [row for corpus in corpora for row in length_rows(data, corpus)]
    longest = data.tokenize.max_length
    head = ["text", "tokens: 5 %", "median", "95 %", "longest", f"cut at {longest or 'none'}"]
    yield write_table(head, [as_text(row) for row in lengths])
    yield batches_line(data, split)
    left = f"{order.left_out(0):,} rows" + (", others each time" if split is data.train else "")
    twice = "no batch holds" if mixture.keep_apart else "a batch may hold"
    yield f"An epoch leaves out {left}; {twice} a text or a group twice."
    yield "\n".join(f"- {corpus.name}: {middle_row(corpus)}" for corpus in corpora)


def length_rows(data: PairDataModule, corpus: Corpus) -> Iterator[list[Any]]:
    """Tokens of a corpus's columns, from rows evenly spread over it."""
    rows = np.unique(np.linspace(0, len(corpus) - 1, TEXTS).astype(int)).tolist()
    for column, texts in enumerate(zip(*corpus.texts(rows), strict=True)):
        counts = np.array([len(ids) for ids in data.tokenize.uncut(texts)])
        marks = np.quantile(counts, QUANTILES).round().astype(int).tolist()
        cut = percent(float((counts > (data.tokenize.max_length or np.inf)).mean()))
        yield [f"{corpus.name} {column + 1}", *marks, int(counts.max()), cut]


def cut_share(data: PairDataModule) -> float:
    """The share of training texts that are longer than training keeps, from a sample of rows."""
    longest = data.tokenize.max_length
    if longest is None or data.streams:
        return 0.0
    texts = [text for row in data.train.sample(CUT_ROWS, data.seed) for text in row]
    counts = [len(ids) for ids in data.tokenize.uncut(texts)]
    return sum(count > longest for count in counts) / len(counts)


def batches_line(data: PairDataModule, split: Split) -> str:
    """Padding and speed of the first batches, as they are loaded."""
    loader = data.train_dataloader() if split is data.train else data.val_dataloader()
    seen = tokens = places = rows = 0
    started = time.perf_counter()
    for batch in islice(iter(loader), BATCHES):
        seen, rows = seen + 1, rows + batch.size
        for column in batch.columns:
            tokens += int(column["attention_mask"].sum())
            places += column["attention_mask"].numel()
    seconds = time.perf_counter() - started
    texts = [text for row in split.sample(TEXTS // 2, data.seed) for text in row]
    started = time.perf_counter()
    tokenized = sum(map(len, data.tokenize.ids(texts)))
    speed = tokenized / (time.perf_counter() - started)
    return (
        f"The first {seen} batches: {percent(1 - tokens / places)} padding, "
        f"{tokens / rows:.1f} tokens a row, loaded at {rows / seconds:,.0f} rows/s; "
        f"texts are tokenized at {speed:,.0f} tokens/s."
    )


def overlap(data: PairDataModule, texts: Iterable[str]) -> int:
    """How many of the different texts are in the training corpora, in any column."""
    hashes = np.unique(np.array([hash_text(text) for text in texts], np.uint64))
    trained_on = np.zeros(len(hashes), bool)
    for corpus in data.train.row_index.corpora:
        for keys in text_keys(corpus):
            places = np.searchsorted(hashes, keys).clip(max=len(hashes) - 1)
            trained_on[places[hashes[places] == keys]] = True
    return int(trained_on.sum())


def text_keys(corpus: Corpus) -> Iterator[UInt64[np.ndarray, " keys"]]:
    """The hashes of a corpus's texts, block by block."""
    for start in range(0, len(corpus), BLOCK):
        yield corpus.keys[start : start + BLOCK, : corpus.meta.columns].ravel()


def repeated_rows(corpus: Corpus) -> tuple[int, str]:
    """Rows whose texts are all those of an earlier row; the share of texts in several rows."""
    texts = np.asarray(corpus.keys[:, : corpus.meta.columns])
    rows = len(texts) - len(np.unique(texts, axis=0))
    _, counts = np.unique(texts, return_counts=True)
    return rows, percent(float(counts[counts > 1].sum() / counts.sum()))


def middle_row(corpus: Corpus) -> str:
    """The row in the middle, each text cut short."""
    texts = corpus.texts([len(corpus) // 2])[0]
    return " | ".join(text if len(text) <= 120 else text[:117] + "..." for text in texts)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def as_text(cells: Iterable[Any]) -> list[str]:
    """Cells of a table as text, counts with commas."""
    return [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
