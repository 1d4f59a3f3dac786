"""What the order of batches claims: a pure function of (seed, epoch, position)."""

import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orders import FAR, Population, batches, plain, populations, windows
from scipy.stats import chisquare

from mic.data.order.batch_order import Drawn, NoBatchError, Order, Section
from mic.errors import InputError

untimed = settings(deadline=None, max_examples=50)


@untimed
@given(populations(), windows, st.integers(0, 2**32), st.integers(0, 50))
def test_an_epoch_holds_every_row_once_up_to_what_it_states(
    rows: Population, window: int, seed: int, epoch: int
) -> None:
    order = rows.order(seed, window)
    packed = batches(order, epoch)
    assert len(packed) == order.length(epoch)
    seen = [place for batch in packed for place in batch]
    assert len(seen) == len(set(seen)) == len(rows.keys) - order.left_out(epoch)
    # an epoch is cut where the first had fewer batches, since keys repeat so often in a section
    cut = sum(part.batches for part in order.begin(epoch)) > order.length(0)
    spare, unsure = 0, 0
    for part in rows.parts:
        places = set(part.places(np.arange(part.rows)).tolist())
        batched = [batch for batch in packed if places & set(batch)]
        assert all(len(batch) == part.size and places.issuperset(batch) for batch in batched)
        lost = part.rows - part.size * len(batched)
        sure = part.rows // part.size >= 2 * part.conflicts
        assert lost == part.rows % part.size or not sure or cut
        spare += lost
        unsure += not sure
    assert order.left_out(epoch) == spare
    assert unsure or not cut


@untimed
@given(populations(), windows, st.integers(0, 50))
def test_no_batch_holds_a_conflict(rows: Population, window: int, epoch: int) -> None:
    assert not any(rows.met(batch) for batch in batches(rows.order(3, window), epoch))


@settings(untimed, max_examples=30)
@given(populations(), windows, st.data())
def test_a_batch_is_the_same_whatever_was_asked_before(
    rows: Population, window: int, data: st.DataObject
) -> None:
    used = rows.order(3, window)
    asked = [(epoch, position) for epoch in (0, 1, 7) for position in range(used.length(epoch))]
    expected = {
        (epoch, position): batch
        for epoch in (0, 1, 7)
        for position, batch in enumerate(batches(rows.order(3, window), epoch))
    }
    for epoch, position in data.draw(st.permutations(asked))[:8]:
        drawn = used.batch(epoch, position)
        fresh = rows.order(3, window).batch(epoch, position)
        assert (drawn.numbers - epoch * FAR).tolist() == expected[epoch, position]
        for column, other in zip(drawn, fresh, strict=True):
            np.testing.assert_array_equal(column, other)


@untimed
@given(populations(), windows)
def test_a_row_keeps_its_partner_keys_and_lengths(rows: Population, window: int) -> None:
    order = rows.order(3, window)
    for position in range(order.length(2)):
        drawn = order.batch(2, position)
        places = drawn.numbers - 2 * FAR
        assert drawn.partners.tolist() == (-places).tolist()
        np.testing.assert_array_equal(drawn.keys, rows.keys[places])
        np.testing.assert_array_equal(drawn.lengths, rows.lengths[places])


def test_every_epoch_and_every_seed_has_another_order() -> None:
    orders = [batches(plain(40, 4).order(seed), epoch) for seed in range(9) for epoch in range(9)]
    sets = [{frozenset(batch) for batch in order} for order in orders]
    assert all(not first & other for first, other in pairwise(sets))
    assert len({tuple(map(tuple, order)) for order in orders}) == 81


def test_rows_are_left_out_equally_often() -> None:
    order = plain(11, 4).order()
    lost: Counter[int] = Counter()
    for epoch in range(600):
        lost.update(set(range(11)).difference(*batches(order, epoch)))
    assert lost.total() == 1800
    assert chisquare([lost[row] for row in range(11)]).pvalue > 0.001


def test_rows_of_a_heavy_key_are_left_out_in_turn() -> None:
    """Six of ten rows share a text, and batches have two: two of the six find no other."""
    keys = np.array([0] * 6 + [1, 2, 3, 4], np.uint64)[:, None]
    rows = Population(keys, np.ones((10, 1), np.int32), [Section(10, 2, 5)])
    order = rows.order()
    assert {order.left_out(epoch) for epoch in range(300)} == {2}
    lost: Counter[int] = Counter()
    for epoch in range(300):
        lost.update(set(range(10)).difference(*batches(order, epoch)))
    assert chisquare([lost[row] for row in range(6)]).pvalue > 0.001
    assert lost.keys() == set(range(6))


@pytest.mark.parametrize("window", [0, 64, 100, 1000, 10**6])
@pytest.mark.parametrize("conflicts", [0, 2, 20])
def test_a_window_is_read_for_its_batches_and_nothing_else(window: int, conflicts: int) -> None:
    """It has the rows asked for, and room for the conflicts; over an epoch each row is read once.

    With conflicts of too few batches the epoch's length has to be tried: one window, all rows.
    """
    rows = plain(1003, 10)
    rows.parts = [Section(1003, 10, conflicts)]
    order = rows.order(window=window)
    assert rows.asked == []
    batches(order)
    least = max(-(-window // 10), 2 * conflicts, 1)
    if least > 50:  # no two such windows
        assert rows.asked == [1003]
        return
    sizes = [asked // 10 for asked in rows.asked]
    assert sum(sizes) == 100
    assert least <= min(sizes) <= max(sizes) <= min(sizes) + 1
    assert len(sizes) == 100 // least
    rows.asked.clear()
    order.batch(1, 57)
    assert len(rows.asked) == 1


def test_each_window_is_sorted_by_length_and_padded_no_further() -> None:
    rows = plain(1000, 10)
    packed = batches(rows.order(window=200))
    lengths = [sorted(rows.lengths[batch, 0].tolist()) for batch in packed]
    for start in range(0, 100, 20):
        whole = sorted(lengths[start : start + 20])
        assert all(first[-1] <= other[0] for first, other in pairwise(whole))


def test_a_window_of_no_rows_is_not_sorted() -> None:
    rows = plain(1000, 10)
    rows.parts = [Section(1000, 10, 50)]  # 100 batches are sorted together if any are
    spreads = [np.ptp(rows.lengths[batch, 0]) for batch in batches(rows.order(window=0))]
    assert min(spreads) > 150


def test_the_batches_of_a_window_are_shuffled() -> None:
    rows = plain(2000, 10)
    means = [rows.lengths[batch, 0].mean() for batch in batches(rows.order(window=2000))]
    assert abs(np.corrcoef(means, np.arange(200))[0, 1]) < 0.2
    halves = [rows.lengths[batch, 0].mean() for batch in batches(rows.order(window=1000))]
    assert np.argsort(halves[:100]).tolist() != np.argsort(halves[100:]).tolist()


def test_the_order_of_a_seed_never_changes() -> None:
    """A run resumes in the order that it began with: other numbers here lose every old run."""
    rows = plain(23, 3)
    rows.parts = [Section(13, 3, 1), Section(10, 2, 0, start=13)]
    first, second = batches(rows.order(5, window=6), 2), batches(rows.order(6, window=6), 0)
    assert first[:5] == [[15, 21], [5, 6, 12], [19, 14], [10, 9, 0], [20, 17]]
    assert first[5:] == [[7, 8, 4], [18, 13], [2, 1, 11], [16, 22]]
    assert second[:3] == [[16, 22], [10, 0, 11], [19, 14]]


def test_a_billion_rows_cost_what_a_window_does() -> None:
    def draw(epoch: int, places: np.ndarray) -> Drawn:
        keys, lengths = places[:, None].astype(np.uint64), (places[:, None] % 99).astype(np.int32)
        return Drawn(places, places, keys, lengths)

    tracemalloc.start()
    try:
        order = Order(draw, lambda epoch: [Section(10**9, 64, 3)], seed=1)
        assert order.length(0) == 10**9 // 64
        numbers = set()
        for position in (0, 10**7, 10**9 // 64 - 1):
            numbers |= set(order.batch(4, position).numbers.tolist())
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert len(numbers) == 3 * 64


@pytest.mark.parametrize("position", [-1, 10, 11])
def test_a_position_outside_the_epoch_is_refused(position: int) -> None:
    order = plain(41, 4).order()
    with pytest.raises(IndexError, match=rf"position {position}: epoch 3 has 10 batches"):
        order.batch(3, position)


@pytest.mark.parametrize("keys", [[1, 1, 1, 1], [1, 2]], ids=["one text", "too few rows"])
def test_an_epoch_without_a_batch_is_refused_at_once(keys: list[int]) -> None:
    rows = plain(len(keys), 3)
    rows.keys = np.array(keys, np.uint64)[:, None]
    rows.parts = [Section(len(keys), 3, len(keys) - len(set(keys)))]
    with pytest.raises(NoBatchError, match="epoch 0: no batch") as raised:
        rows.order()
    assert isinstance(raised.value, InputError)
