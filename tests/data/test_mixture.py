"""What a mixture claims: whose rows an epoch holds, how often, and which of them may meet.

The references are the plain rows that the corpora were written from, counted one by one.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpora import Told, corpora, epoch_of, met, seen, told, unlike
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mic.data.conflicts import most_conflicts
from mic.data.mixture import Mixture, given_weights, quotas, shares
from mic.data.order.batch_order import NoBatchError, Order
from mic.errors import InputError

untimed = settings(deadline=None, max_examples=40)
WEIGHTS = st.sampled_from([0.2, 1, 1.5, 4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def mixed(found: Sequence[Told], size: int = 2, **settings: object) -> Mixture:
    return Mixture([one.part for one in found], 7, batch_size=size, **settings)


def weighed(data: st.DataObject, found: Sequence[Told]) -> list[float] | None:
    """Weights that give every corpus a row, or none."""
    weights = [data.draw(WEIGHTS) for _ in found]
    enough = all(quotas([len(one.kept) for one in found], weights))
    return weights if enough and data.draw(st.booleans()) else None


def batches(found: Sequence[Told], mixture: Mixture, epoch: int, window: int = 64) -> list[list]:
    order = Order(mixture.draw, mixture.sections, seed=3, window=window)
    drawn = [order.batch(epoch, position) for position in range(order.length(epoch))]
    return [seen(found, one.numbers.tolist(), one.partners.tolist()) for one in drawn]


@untimed
@given(st.data())
def test_without_weights_an_epoch_holds_every_kept_row_once(
    folder: Path, data: st.DataObject
) -> None:
    found = data.draw(corpora(folder))
    rows = epoch_of(found, mixed(found), data.draw(st.integers(0, 9)))
    expected = [(owner, row) for owner, one in enumerate(found) for row in one.kept]
    assert sorted((one.owner, one.row) for one in rows) == expected


@untimed
@given(st.data())
def test_with_weights_the_rows_of_a_corpus_come_equally_often(
    folder: Path, data: st.DataObject
) -> None:
    """At the end of every epoch, from the first on: up to one, and of its quota each epoch."""
    found = data.draw(corpora(folder))
    mixture = mixed(found, weights=weighed(data, found) or [1] * len(found))
    had: Counter[tuple[int, int]] = Counter()
    for epoch in range(5):
        rows = epoch_of(found, mixture, epoch)
        assert Counter(one.owner for one in rows) == dict(enumerate(mixture.quotas))
        had.update((one.owner, one.row) for one in rows)
        for owner, one in enumerate(found):
            often = [had[owner, row] for row in one.kept]
            assert max(often) - min(often) <= 1
    assert {row for _, row in had} <= {row for one in found for row in one.kept}


@untimed
@given(st.data())
def test_a_place_holds_the_same_row_however_many_are_asked(
    folder: Path, data: st.DataObject
) -> None:
    found = data.draw(corpora(folder))
    mixture = mixed(found, weights=weighed(data, found))
    places = data.draw(st.lists(st.integers(0, len(mixture) - 1), max_size=9))
    whole = mixture.draw(4, np.arange(len(mixture))).take(np.array(places, np.int64))
    for one, other in zip(mixture.draw(4, np.array(places, np.int64)), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@untimed
@given(st.data())
def test_two_rows_share_a_key_where_they_or_their_partners_share_a_text_or_a_group(
    folder: Path, data: st.DataObject
) -> None:
    found = data.draw(corpora(folder))
    mixture = mixed(found, weights=weighed(data, found))
    rows = epoch_of(found, mixture, 2)
    keys = [set(own) for own in mixture.draw(2, np.arange(len(mixture))).keys.tolist()]
    for one, own in zip(rows, keys, strict=True):
        for other, theirs in zip(rows, keys, strict=True):
            assert len(own & theirs) == len(one.marks & other.marks)


@untimed
@given(st.data())
def test_lengths_are_those_of_the_texts_and_of_the_partner_s(
    folder: Path, data: st.DataObject
) -> None:
    """A column that a row has not is as long as its first."""
    found = data.draw(corpora(folder))
    mixture = mixed(found, weights=weighed(data, found))
    lengths = mixture.draw(1, np.arange(len(mixture))).lengths.tolist()
    for row, own in zip(epoch_of(found, mixture, 1), lengths, strict=True):
        texts = [*map(len, row.texts)]
        assert own == texts + texts[:1] * (len(own) - len(texts))


@untimed
@given(st.data())
def test_no_row_meets_more_others_than_the_conflicts_say(folder: Path, data: st.DataObject) -> None:
    found = data.draw(corpora(folder))
    mixture = mixed(found, weights=weighed(data, found))
    for epoch in range(4):
        rows = epoch_of(found, mixture, epoch)
        assert mixture.conflicts(None) >= met(rows)
        for owner in range(len(found)):
            assert mixture.conflicts(owner) >= met([one for one in rows if one.owner == owner])


@untimed
@given(st.data())
def test_no_batch_holds_a_text_or_a_group_twice(folder: Path, data: st.DataObject) -> None:
    """And a single corpus's batches hold its rows alone; what is left out is said."""
    found = data.draw(corpora(folder))
    single, size = data.draw(st.booleans()), data.draw(st.integers(1, 5))
    mixture = mixed(found, size, weights=weighed(data, found), single=single)
    try:
        order = Order(mixture.draw, mixture.sections, seed=3)
        epochs = [batches(found, mixture, epoch) for epoch in range(2)]
    except NoBatchError:
        enough = [max(1, 2 * section.conflicts) * size for section in mixture.sections(0)]
        assert all(one.rows < n for one, n in zip(mixture.sections(0), enough, strict=True))
        return
    for epoch, made in enumerate(epochs):
        assert not any(met(batch) for batch in made)
        assert all(len({one.owner for one in batch}) == 1 for batch in made if single)
        assert all(len(batch) == size for batch in made)
        assert len(mixture) - size * len(made) == order.left_out(epoch)
        if mixture.quotas == [len(one.kept) for one in found]:
            rows = [(one.owner, one.row) for batch in made for one in batch]
            assert len(set(rows)) == len(rows)


def test_rows_that_come_once_meet_no_copies_of_themselves(folder: Path) -> None:
    found = [told(folder, unlike(n), name=name) for n, name in ((8, "one"), (24, "two"))]
    parts = [one.part for one in found]
    assert mixed(found).conflicts(None) == most_conflicts(parts, [1, 1])
    assert mixed(found, weights=[1, 3]).conflicts(None) == most_conflicts(parts, [1, 1])
    assert mixed(found, weights=[1, 1]).conflicts(None) == most_conflicts(parts, [3, 2])


def test_a_weighed_row_may_meet_itself_from_one_pass_to_the_next(folder: Path) -> None:
    found = [told(folder, unlike(12), name="one"), told(folder, unlike(12, first=20), name="two")]
    mixture = mixed(found, weights=[2, 1], single=True)
    assert mixture.quotas == [16, 8]
    rows = [epoch_of(found, mixture, epoch) for epoch in range(30)]
    for owner in range(2):
        most = max(met([one for one in epoch if one.owner == owner]) for epoch in rows)
        assert most == 1
        assert mixture.conflicts(owner) >= most


def test_equal_rows_meet_where_they_are_not_kept_apart(folder: Path) -> None:
    found = [told(folder, [{"a": "same", "b": "same"}] * 9)]
    made = batches(found, mixed(found, 4, keep_apart=False), 0)
    assert [len(batch) for batch in made] == [4, 4]
    assert len({one.row for batch in made for one in batch}) == 8


def test_batches_of_one_corpus_take_turns_evenly(folder: Path) -> None:
    found = [
        told(folder, unlike(n, first=f), "single", str(n))
        for n, f in ((64, 0), (32, 99), (16, 200))
    ]
    for epoch in range(5):
        owners = [batch[0].owner for batch in batches(found, mixed(found, single=True), epoch)]
        assert Counter(owners) == {0: 32, 1: 16, 2: 8}
        for owner, share in enumerate((32, 16, 8)):
            had = np.cumsum([one == owner for one in owners])
            assert np.abs(had - np.arange(1, 57) * share / 56).max() < 2


def test_mixed_batches_hold_the_corpora_in_proportion(folder: Path) -> None:
    found = [told(folder, unlike(n, first=f), "single", str(n)) for n, f in ((150, 0), (50, 200))]
    made = batches(found, mixed(found, 20), 0, window=0)
    small = [sum(one.owner for one in batch) for batch in made]
    assert sum(small) == 50
    assert len(set(small)) > 1
    assert max(small) < 12


def test_a_weighed_corpus_comes_in_another_order_in_every_pass(folder: Path) -> None:
    """So an epoch's quota is drawn from all of its rows, each as often as another."""
    found = [told(folder, unlike(12), "single", name) for name in ("one", "two", "more")]
    mixture = mixed(found, weights=[2, 2, 5])
    assert mixture.quotas == [8, 8, 20]
    drawn = [mixture.draw(epoch, np.arange(36)).numbers for epoch in range(300)]
    once = Counter(row for numbers in drawn[::3] for row in numbers[:8].tolist())
    assert chisquare([once[row] for row in range(12)]).pvalue > 0.001
    twice = {frozenset(Counter(numbers[16:].tolist()).most_common(8)) for numbers in drawn}
    assert len(twice) > 200  # which eight of twelve: one of 495 choices
    assert len({tuple(numbers[:4].tolist()) for numbers in drawn}) > 250
    assert not any((numbers[:8] + 12 == numbers[8:16]).all() for numbers in drawn)


def test_partners_are_drawn_anew_in_every_epoch_and_for_every_corpus(folder: Path) -> None:
    found = [told(folder, unlike(10, groups=1), "labelled", name) for name in ("one", "two")]
    mixture = mixed(found)
    drawn = [mixture.draw(epoch, np.arange(20)).partners for epoch in range(450)]
    for place in (0, 9):
        counts = Counter(int(partners[place]) for partners in drawn)
        assert set(counts) == set(range(10)) - {place}
        assert chisquare([*counts.values()]).pvalue > 0.001
    assert sum((partners[:10] + 10 == partners[10:]).all() for partners in drawn) == 0


def test_another_seed_has_other_passes_and_partners(folder: Path) -> None:
    found = [told(folder, unlike(30, groups=2), "labelled", name) for name in ("one", "two")]
    first, second = (
        Mixture([one.part for one in found], seed, batch_size=2, weights=[1, 3]).draw(
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
    rows, weights = [list(one) for one in zip(*given, strict=True)]
    found = quotas(rows, weights)
    exact = [Fraction(sum(rows) * weight, sum(weights)) for weight in weights]
    assert sum(found) == sum(rows)
    assert all(abs(quota - share) < 1 for quota, share in zip(found, exact, strict=True))
    more = [share % 1 for quota, share in zip(found, exact, strict=True) if quota > share]
    less = [share % 1 for quota, share in zip(found, exact, strict=True) if quota < share]
    assert not more or not less or float(min(more)) >= float(max(less)) - 1e-6
    assert quotas(rows, None) == rows
    assert quotas(rows, [weight * 0.125 for weight in weights]) == found


def test_temperature_makes_the_shares_of_corpora_more_equal(folder: Path) -> None:
    parts = [told(folder, unlike(n), "pair", str(n)).part for n in (4, 64)]
    assert shares(parts, [None, None], 1) is None
    assert shares(parts, [3, 1], 2) == [3, 1]
    for temperature, ratio in ((2, 4), (3, 16 ** (1 / 3)), (0.5, 256), (1e9, 1)):
        small, large = shares(parts, [None, None], temperature) or [0, 0]
        assert large / small == pytest.approx(ratio)


def test_a_temperature_near_none_leaves_the_largest_corpus(folder: Path) -> None:
    parts = [told(folder, unlike(n), "pair", str(n)).part for n in (4, 64)]
    assert shares(parts, [None, None], 1e-3) == [0, 1]


def test_some_weights_are_not_enough(folder: Path) -> None:
    assert given_weights({"one": None, "two": None}) is None
    with pytest.raises(InputError, match=r"^data\.train\.two\.weight: not set"):
        given_weights({"one": 2, "two": None})


def test_a_share_of_no_row_is_refused(folder: Path) -> None:
    found = [told(folder, unlike(20), "pair", name) for name in ("most", "least")]
    with pytest.raises(InputError, match=r"^data\.train\.least\.weight: .* 40 rows is none"):
        mixed(found, weights=[100, 1])
    assert mixed(found, weights=[77, 1]).quotas == [39, 1]
