"""What a budget of tokens claims: no batch above it or needlessly small, every row in its turn."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import WrittenCorpus, corpora, met, rows_of, unlike, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mic.data.mixture import Mixture
from mic.data.order.batch_order import Drawn, NoBatchError, Order
from mic.data.order.packing import rows_that_fit
from mic.errors import InputError

untimed = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def budgeted(
    written: Sequence[WrittenCorpus],
    tokens: int,
    lengths: Sequence[Sequence[int]],
    **settings: object,
) -> Mixture:
    """Every text of a corpus's row has the tokens told for that row."""
    counted = [
        np.array(texts, np.int32)[:, None].repeat(corpus.corpus.meta.columns, 1)
        for corpus, texts in zip(written, lengths, strict=True)
    ]
    parts = [corpus.subset for corpus in written]
    return Mixture(parts, 7, batch_size=2, lengths=counted, batch_tokens=tokens, **settings)


def batches(mixture: Mixture, epoch: int = 0) -> list[Drawn]:
    order = Order(mixture.draw, mixture.sections, seed=3, window=0)
    return [order.batch(epoch, position) for position in range(order.length(epoch))]


def rounded(length: int) -> int:
    return -(-length // 8) * 8


def cut(lengths: Sequence[int], tokens: int, columns: int) -> list[tuple[int, int]]:
    """Rows and batch size of each token count, from the least: what fills no batch goes on."""
    counts, sections, waiting = Counter(map(rounded, lengths)), [], 0
    while counts:
        length = min(counts)
        waiting += counts.pop(length)
        size = tokens // (columns * length)
        if not counts:
            sections.append((waiting, min(size, waiting)))
        else:
            lone = counts.total() == 1  # it has no batch but with another that waits for it
            full = (waiting - lone) // size * size
            sections += [(full, size)] if full else []
            waiting -= full
    return sections


@untimed
@given(st.data())
def test_a_batch_has_at_most_the_tokens_of_the_budget(folder: Path, data: st.DataObject) -> None:
    """Padding, rounding and all columns included; no row comes twice, no conflict meets."""
    written = data.draw(corpora(folder))
    columns = max(2, *(corpus.corpus.meta.columns for corpus in written))
    lengths = [
        data.draw(st.lists(st.integers(1, 40), min_size=n, max_size=n))
        for n in (len(corpus.rows) for corpus in written)
    ]
    tokens = data.draw(st.integers(2 * 40 * columns, 1000))
    single = data.draw(st.booleans())
    mixture = budgeted(written, tokens, lengths, single=single)
    try:
        order = Order(mixture.draw, mixture.sections, seed=3, window=0)
        by_epoch = {epoch: batches(mixture, epoch) for epoch in range(2)}
    except NoBatchError:  # texts that repeat in so few rows leave no two that may meet
        return
    for epoch, drawn_batches in by_epoch.items():
        rows = []
        for drawn in drawn_batches:
            batch = rows_of(written, drawn.numbers.tolist(), drawn.partners.tolist())
            width = max(len(row.texts) for row in batch) if single else columns
            longest = max(
                lengths[entry.owner][row]
                for entry in batch
                for row in (entry.row, entry.row if entry.partner is None else entry.partner)
            )
            assert len(batch) * max(width, 2) * rounded(longest) <= tokens
            assert not met(batch)
            assert not single or len({row.owner for row in batch}) == 1
            rows += [(row.owner, row.row) for row in batch]
        assert len(set(rows)) == len(rows) == len(mixture) - order.left_out(epoch)


@untimed
@given(st.lists(st.integers(1, 60), min_size=2, max_size=40), st.integers(256, 2000), st.data())
def test_batches_are_as_large_as_the_budget_allows_at_each_length(
    folder: Path, lengths: list[int], tokens: int, data: st.DataObject
) -> None:
    """Rows that fill no batch wait for the next length; the last takes what is there."""
    epoch = data.draw(st.integers(0, 9))
    mixture = budgeted([write_corpus(folder, unlike(len(lengths)))], tokens, [lengths])
    sections = mixture.sections(epoch)
    assert [(section.rows, section.size) for section in sections] == cut(lengths, tokens, 2)
    assert min(section.size for section in sections) >= 2
    listed = [
        place for section in sections for place in section.places(np.arange(section.rows)).tolist()
    ]
    assert sorted(listed) == list(range(len(lengths)))
    order = Order(mixture.draw, mixture.sections, seed=3)
    assert order.left_out(epoch) == sections[-1].rows % sections[-1].size


def test_every_row_comes_in_some_epoch_and_meets_others_in_each(folder: Path) -> None:
    """Four batches of 8 tokens, and one of 16, which a row left over fills up with a long one."""
    mixture = budgeted([write_corpus(folder, unlike(34))], 128, [[5] * 33 + [12]])
    had: Counter[int] = Counter()
    beside: Counter[int] = Counter()
    for epoch in range(300):
        numbers = [batch.numbers.tolist() for batch in batches(mixture, epoch)]
        assert sorted(map(len, numbers)) == [2, 8, 8, 8, 8]
        had.update(row for batch in numbers for row in batch)
        beside.update(row for batch in numbers if 33 in batch for row in batch)
    assert set(had.values()) == {300}
    assert chisquare([beside[row] for row in range(33)]).pvalue > 0.001


def test_what_fills_no_batch_at_all_is_another_row_in_every_epoch(folder: Path) -> None:
    mixture = budgeted([write_corpus(folder, unlike(11))], 64, [[5] * 11])
    had: Counter[int] = Counter()
    for epoch in range(300):
        had.update(row for batch in batches(mixture, epoch) for row in batch.numbers.tolist())
    lost = [300 - had[row] for row in range(11)]
    assert sum(lost) == 900
    assert chisquare(lost).pvalue > 0.001


def test_a_row_alone_at_its_length_has_another_to_meet(folder: Path) -> None:
    """A batch of one row has no negatives, and no rows for a second rank."""
    mixture = budgeted([write_corpus(folder, unlike(17))], 128, [[5] * 16 + [12]])
    had: Counter[int] = Counter()
    for epoch in range(50):
        numbers = [batch.numbers.tolist() for batch in batches(mixture, epoch)]
        assert min(map(len, numbers)) == 4
        had.update(row for batch in numbers for row in batch)
    assert 30 < had[16] < 50


@untimed
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 6))
def test_the_rows_that_fit_leave_none_behind_that_a_batch_has_room_for(
    groups: list[int], size: int
) -> None:
    counts = Counter(groups).values()
    most = max(
        batches
        for batches in range(len(groups) + 1)
        if sum(min(count, batches) for count in counts) >= batches * size
    )
    first = [row for row, group in enumerate(groups) if groups[:row].count(group) < most]
    keys = np.array(groups, np.uint64)[:, None]
    assert rows_that_fit(keys, size).tolist() == first[: most * size]
    both = np.concatenate([keys, np.arange(len(keys), dtype=np.uint64)[:, None] + 100], 1)
    assert rows_that_fit(both, size).tolist() == first[: most * size]


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 10**6])
def test_repeated_texts_leave_few_rows_out_whatever_the_budget(folder: Path, tokens: int) -> None:
    """Each stands in four pairs of one length: those that meet in a batch wait for a longer one."""
    rows = [{"a": f"a{n // 4}", "b": f"b{n}"} for n in range(1000)]
    lengths = [row // 4 * 7 % 97 // 2 + 1 for row in range(1000)]
    mixture = budgeted([write_corpus(folder, rows)], tokens, [lengths])
    drawn = batches(mixture)
    trained = sum(len(batch.numbers) for batch in drawn)
    assert trained > 980
    assert max(len(batch.numbers) for batch in drawn) >= min(tokens // 32, 85)


def test_a_budget_that_holds_all_rows_takes_the_most_that_may_meet(folder: Path) -> None:
    rows = [{"a": f"a{n // 3}", "b": f"b{n}"} for n in range(30)]
    drawn = batches(budgeted([write_corpus(folder, rows)], 10**6, [[5] * 30]))
    assert [len(batch.numbers) for batch in drawn] == [10, 10, 10]


def test_labelled_texts_are_as_long_as_the_longer_of_two(folder: Path) -> None:
    written = [write_corpus(folder, unlike(60, groups=30), "labelled")]
    lengths = [5, 30] * 30  # the labels' two texts are rows n and n + 30
    mixture = budgeted(written, 512, [[*lengths[:30], *lengths[29::-1]]])
    text_lengths = np.array([*lengths[:30], *lengths[29::-1]])
    for batch in batches(mixture):
        longest = max(text_lengths[batch.numbers].max(), text_lengths[batch.partners].max())
        assert len(batch.numbers) == 512 // (2 * rounded(int(longest)))


@pytest.mark.parametrize(("tokens", "columns"), [(95, 2), (143, 3)])
def test_a_budget_below_two_rows_of_the_longest_text_is_refused(
    folder: Path, tokens: int, columns: int
) -> None:
    written = [write_corpus(folder, unlike(4), {2: "pair", 3: "triplet"}[columns])]
    mixture = budgeted(written, tokens, [[3, 3, 3, 17]])
    with pytest.raises(InputError, match=rf"{columns} texts of 24 tokens are {tokens + 1};"):
        mixture.sections(0)
    assert budgeted(written, tokens + 1, [[3, 3, 3, 17]]).sections(0)


def test_the_rows_of_a_seed_never_change(folder: Path) -> None:
    """A run resumes in the order that it began with: other numbers here lose every old run."""
    written = [
        write_corpus(folder, unlike(9, groups=2), "labelled"),
        write_corpus(folder, unlike(6), "single"),
    ]
    mixture = budgeted(written, 96, [[5, 9, 5] * 3, [4] * 6], weights=[1, 2])
    drawn = mixture.draw(3, np.arange(15))
    assert drawn.numbers.tolist() == [5, 0, 1, 8, 6, 14, 13, 9, 11, 12, 10, 12, 13, 9, 10]
    assert drawn.partners.tolist() == [3, 8, 5, 0, 8, *[-1] * 10]
    numbers = [batch.numbers.tolist() for batch in batches(mixture, 1)]
    assert numbers == [[11, 9, 4], [7, 14, 2], [9, 14, 3]]  # a fourth is cut: epoch 0 has three
