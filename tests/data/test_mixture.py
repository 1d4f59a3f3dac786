"""What a mixture claims: whose rows an epoch holds, how often, and which of them may meet.

The references are the plain rows that the corpora were written from, counted one by one.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpora import WrittenCorpus, corpora, epoch_of, met, rows_of, unlike, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mic.data.mixture import Mixture, corpus_weights, given_weights, quotas
from mic.data.order.batch_order import NoBatchError, Order
from mic.data.subset import most_conflicts
from mic.errors import InputError

untimed = settings(deadline=None, max_examples=40)
WEIGHTS = st.sampled_from([0.2, 1, 1.5, 4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def mixed(written: Sequence[WrittenCorpus], size: int = 2, **settings: object) -> Mixture:
    return Mixture([corpus.subset for corpus in written], 7, batch_size=size, **settings)


def weighed(data: st.DataObject, written: Sequence[WrittenCorpus]) -> list[float] | None:
    """Weights that give every corpus a row, or none."""
    weights = [data.draw(WEIGHTS) for _ in written]
    enough = all(quotas([len(corpus.used) for corpus in written], weights))
    return weights if enough and data.draw(st.booleans()) else None


def batches(
    written: Sequence[WrittenCorpus], mixture: Mixture, epoch: int, window: int = 64
) -> list[list]:
    order = Order(mixture.draw, mixture.sections, seed=3, window=window)
    drawn = [order.batch(epoch, position) for position in range(order.length(epoch))]
    return [rows_of(written, batch.numbers.tolist(), batch.partners.tolist()) for batch in drawn]


@untimed
@given(st.data())
def test_without_weights_an_epoch_holds_every_kept_row_once(
    folder: Path, data: st.DataObject
) -> None:
    written = data.draw(corpora(folder))
    rows = epoch_of(written, mixed(written), data.draw(st.integers(0, 9)))
    expected = [(owner, row) for owner, corpus in enumerate(written) for row in corpus.used]
    assert sorted((row.owner, row.row) for row in rows) == expected


@untimed
@given(st.data())
def test_with_weights_the_rows_of_a_corpus_come_equally_often(
    folder: Path, data: st.DataObject
) -> None:
    """At the end of every epoch, from the first on: up to one, and of its quota each epoch."""
    written = data.draw(corpora(folder))
    mixture = mixed(written, weights=weighed(data, written) or [1] * len(written))
    had: Counter[tuple[int, int]] = Counter()
    for epoch in range(5):
        rows = epoch_of(written, mixture, epoch)
        assert Counter(row.owner for row in rows) == dict(enumerate(mixture.quotas))
        had.update((row.owner, row.row) for row in rows)
        for owner, corpus in enumerate(written):
            often = [had[owner, row] for row in corpus.used]
            assert max(often) - min(often) <= 1
    assert {row for _, row in had} <= {row for corpus in written for row in corpus.used}


@untimed
@given(st.data())
def test_a_place_holds_the_same_row_however_many_are_asked(
    folder: Path, data: st.DataObject
) -> None:
    written = data.draw(corpora(folder))
    mixture = mixed(written, weights=weighed(data, written))
    places = data.draw(st.lists(st.integers(0, len(mixture) - 1), max_size=9))
    whole = mixture.draw(4, np.arange(len(mixture))).take(np.array(places, np.int64))
    for column, other in zip(mixture.draw(4, np.array(places, np.int64)), whole, strict=True):
        np.testing.assert_array_equal(column, other)


@untimed
@given(st.data())
def test_two_rows_share_a_key_where_they_or_their_partners_share_a_text_or_a_group(
    folder: Path, data: st.DataObject
) -> None:
    written = data.draw(corpora(folder))
    mixture = mixed(written, weights=weighed(data, written))
    rows = epoch_of(written, mixture, 2)
    keys = [set(row_keys) for row_keys in mixture.draw(2, np.arange(len(mixture))).keys.tolist()]
    for row, row_keys in zip(rows, keys, strict=True):
        for other, theirs in zip(rows, keys, strict=True):
            assert len(row_keys & theirs) == len(row.marks & other.marks)


@untimed
@given(st.data())
def test_lengths_are_those_of_the_texts_and_of_the_partner_s(
    folder: Path, data: st.DataObject
) -> None:
    """A column that a row has not is as long as its first."""
    written = data.draw(corpora(folder))
    mixture = mixed(written, weights=weighed(data, written))
    lengths = mixture.draw(1, np.arange(len(mixture))).lengths.tolist()
    for row, row_lengths in zip(epoch_of(written, mixture, 1), lengths, strict=True):
        texts = [*map(len, row.texts)]
        assert row_lengths == texts + texts[:1] * (len(row_lengths) - len(texts))


@untimed
@given(st.data())
def test_no_row_meets_more_others_than_the_conflicts_say(folder: Path, data: st.DataObject) -> None:
    written = data.draw(corpora(folder))
    mixture = mixed(written, weights=weighed(data, written))
    for epoch in range(4):
        rows = epoch_of(written, mixture, epoch)
        assert mixture.conflicts(None) >= met(rows)
        for owner in range(len(written)):
            assert mixture.conflicts(owner) >= met([row for row in rows if row.owner == owner])


@untimed
@given(st.data())
def test_no_batch_holds_a_text_or_a_group_twice(folder: Path, data: st.DataObject) -> None:
    """And a single corpus's batches hold its rows alone; what is left out is said."""
    written = data.draw(corpora(folder))
    single, size = data.draw(st.booleans()), data.draw(st.integers(1, 5))
    mixture = mixed(written, size, weights=weighed(data, written), single=single)
    try:
        order = Order(mixture.draw, mixture.sections, seed=3)
        epochs = [batches(written, mixture, epoch) for epoch in range(2)]
    except NoBatchError:
        enough = [max(1, 2 * section.conflicts) * size for section in mixture.sections(0)]
        assert all(section.rows < n for section, n in zip(mixture.sections(0), enough, strict=True))
        return
    for epoch, drawn in enumerate(epochs):
        assert not any(met(batch) for batch in drawn)
        assert all(len({row.owner for row in batch}) == 1 for batch in drawn if single)
        assert all(len(batch) == size for batch in drawn)
        assert len(mixture) - size * len(drawn) == order.left_out(epoch)
        if mixture.quotas == [len(corpus.used) for corpus in written]:
            rows = [(row.owner, row.row) for batch in drawn for row in batch]
            assert len(set(rows)) == len(rows)


def test_rows_that_come_once_meet_no_copies_of_themselves(folder: Path) -> None:
    written = [write_corpus(folder, unlike(n), name=name) for n, name in ((8, "one"), (24, "two"))]
    parts = [corpus.subset for corpus in written]
    assert mixed(written).conflicts(None) == most_conflicts(parts, [1, 1])
    assert mixed(written, weights=[1, 3]).conflicts(None) == most_conflicts(parts, [1, 1])
    assert mixed(written, weights=[1, 1]).conflicts(None) == most_conflicts(parts, [3, 2])


def test_a_weighed_row_may_meet_itself_from_one_pass_to_the_next(folder: Path) -> None:
    written = [
        write_corpus(folder, unlike(12), name="one"),
        write_corpus(folder, unlike(12, first=20), name="two"),
    ]
    mixture = mixed(written, weights=[2, 1], single=True)
    assert mixture.quotas == [16, 8]
    rows = [epoch_of(written, mixture, epoch) for epoch in range(30)]
    for owner in range(2):
        most = max(met([row for row in epoch if row.owner == owner]) for epoch in rows)
        assert most == 1
        assert mixture.conflicts(owner) >= most


def test_equal_rows_meet_where_they_are_not_kept_apart(folder: Path) -> None:
    written = [write_corpus(folder, [{"a": "same", "b": "same"}] * 9)]
    drawn = batches(written, mixed(written, 4, keep_apart=False), 0)
    assert [len(batch) for batch in drawn] == [4, 4]
    assert len({row.row for batch in drawn for row in batch}) == 8


def test_batches_of_one_corpus_take_turns_evenly(folder: Path) -> None:
    written = [
        write_corpus(folder, unlike(n, first=f), "single", str(n))
        for n, f in ((64, 0), (32, 99), (16, 200))
    ]
    for epoch in range(5):
        owners = [batch[0].owner for batch in batches(written, mixed(written, single=True), epoch)]
        assert Counter(owners) == {0: 32, 1: 16, 2: 8}
        for owner, share in enumerate((32, 16, 8)):
            had = np.cumsum([drawn_owner == owner for drawn_owner in owners])
            assert np.abs(had - np.arange(1, 57) * share / 56).max() < 2


def test_mixed_batches_hold_the_corpora_in_proportion(folder: Path) -> None:
    written = [
        write_corpus(folder, unlike(n, first=f), "single", str(n)) for n, f in ((150, 0), (50, 200))
    ]
    drawn = batches(written, mixed(written, 20), 0, window=0)
    small = [sum(row.owner for row in batch) for batch in drawn]
    assert sum(small) == 50
    assert len(set(small)) > 1
    assert max(small) < 12


def test_a_weighed_corpus_comes_in_another_order_in_every_pass(folder: Path) -> None:
    """So an epoch's quota is drawn from all of its rows, each as often as another."""
    written = [write_corpus(folder, unlike(12), "single", name) for name in ("one", "two", "more")]
    mixture = mixed(written, weights=[2, 2, 5])
    assert mixture.quotas == [8, 8, 20]
    drawn = [mixture.draw(epoch, np.arange(36)).numbers for epoch in range(300)]
    once = Counter(row for numbers in drawn[::3] for row in numbers[:8].tolist())
    assert chisquare([once[row] for row in range(12)]).pvalue > 0.001
    twice = {frozenset(Counter(numbers[16:].tolist()).most_common(8)) for numbers in drawn}
    assert len(twice) > 200  # which eight of twelve: one of 495 choices
    assert len({tuple(numbers[:4].tolist()) for numbers in drawn}) > 250
    assert not any((numbers[:8] + 12 == numbers[8:16]).all() for numbers in drawn)


def test_partners_are_drawn_anew_in_every_epoch_and_for_every_corpus(folder: Path) -> None:
    written = [
        write_corpus(folder, unlike(10, groups=1), "labelled", name) for name in ("one", "two")
    ]
    mixture = mixed(written)
    drawn = [mixture.draw(epoch, np.arange(20)).partners for epoch in range(450)]
    for place in (0, 9):
        counts = Counter(int(partners[place]) for partners in drawn)
        assert set(counts) == set(range(10)) - {place}
        assert chisquare([*counts.values()]).pvalue > 0.001
    assert sum((partners[:10] + 10 == partners[10:]).all() for partners in drawn) == 0


def test_another_seed_has_other_passes_and_partners(folder: Path) -> None:
    written = [
        write_corpus(folder, unlike(30, groups=2), "labelled", name) for name in ("one", "two")
    ]
    first, second = (
        Mixture([corpus.subset for corpus in written], seed, batch_size=2, weights=[1, 3]).draw(
            0, np.arange(60)
        )
        for seed in (1, 2)
    )
    assert (first.numbers != second.numbers).mean() > 0.8
    assert first.partners.tolist() != second.partners.tolist()


@untimed
@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 100)), min_size=1, max_size=6))
def test_quotas_share_an_epoch_by_weight_to_the_row(given: list[tuple[int, int]]) -> None:
    """The rows that rounding down leaves go to those it takes most from."""
    rows, weights = [list(column) for column in zip(*given, strict=True)]
    counts = quotas(rows, weights)
    exact = [Fraction(sum(rows) * weight, sum(weights)) for weight in weights]
    assert sum(counts) == sum(rows)
    assert all(abs(quota - share) < 1 for quota, share in zip(counts, exact, strict=True))
    more = [share % 1 for quota, share in zip(counts, exact, strict=True) if quota > share]
    less = [share % 1 for quota, share in zip(counts, exact, strict=True) if quota < share]
    assert not more or not less or float(min(more)) >= float(max(less)) - 1e-6
    assert quotas(rows, None) == rows
    assert quotas(rows, [weight * 0.125 for weight in weights]) == counts


def test_temperature_makes_the_shares_of_corpora_more_equal(folder: Path) -> None:
    parts = [write_corpus(folder, unlike(n), "pair", str(n)).subset for n in (4, 64)]
    assert corpus_weights(parts, [None, None], 1) is None
    assert corpus_weights(parts, [3, 1], 2) == [3, 1]
    for temperature, ratio in ((2, 4), (3, 16 ** (1 / 3)), (0.5, 256), (1e9, 1)):
        small, large = corpus_weights(parts, [None, None], temperature) or [0, 0]
        assert large / small == pytest.approx(ratio)


def test_a_temperature_near_none_leaves_the_largest_corpus(folder: Path) -> None:
    parts = [write_corpus(folder, unlike(n), "pair", str(n)).subset for n in (4, 64)]
    assert corpus_weights(parts, [None, None], 1e-3) == [0, 1]


def test_some_weights_are_not_enough(folder: Path) -> None:
    assert given_weights({"one": None, "two": None}) is None
    with pytest.raises(InputError, match=r"^data\.train\.two\.weight: not set"):
        given_weights({"one": 2, "two": None})


def test_a_share_of_no_row_is_refused(folder: Path) -> None:
    written = [write_corpus(folder, unlike(20), "pair", name) for name in ("most", "least")]
    with pytest.raises(InputError, match=r"^data\.train\.least\.weight: .* 40 rows is none"):
        mixed(written, weights=[100, 1])
    assert mixed(written, weights=[77, 1]).quotas == [39, 1]
