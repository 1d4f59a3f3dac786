"""What a rank's sampler claims: slices of the global batches, from any position on; even turns."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orders import FAR, Population, batches, plain, populations, windows
from scipy.stats import chisquare

from mic.data.order.batch_order import BatchSampler, Order, Section, turn

untimed = settings(deadline=None, max_examples=50)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8, 12])
@settings(untimed, max_examples=20)
@given(rows=populations(), window=windows)
def test_the_ranks_have_the_same_global_batches_however_many(
    ranks: int, rows: Population, window: int
) -> None:
    order = rows.order(3, window)
    samplers = [BatchSampler(order, rank, ranks) for rank in range(ranks)]
    shares = list(zip(*samplers, strict=True))
    assert [len(sampler) for sampler in samplers] == [len(shares)] * ranks
    assert len(shares) == order.length(0)
    for number, share in enumerate(shares):
        whole = order.batch(0, number)
        numbers = np.zeros_like(whole.numbers)
        partners = np.zeros_like(whole.partners)
        for rank, asked in enumerate(share):
            numbers[rank::ranks], partners[rank::ranks] = asked.numbers, asked.partners
            assert asked.sizes == [len(drawn.numbers) for drawn in share]
        assert numbers.tolist() == whole.numbers.tolist()
        assert partners.tolist() == whole.partners.tolist()
        assert max(share[0].sizes) - min(share[0].sizes) <= 1


def test_the_ranks_have_as_much_to_do() -> None:
    """Of a sorted batch the shares' lengths differ by no more than its longest and shortest row."""
    rows = plain(640, 64)
    samplers = [BatchSampler(rows.order(window=640), rank, ranks=4) for rank in range(4)]
    for shares in zip(*samplers, strict=True):
        lengths = [rows.lengths[asked.numbers, 0] for asked in shares]
        work = [share.sum() for share in lengths]
        assert max(work) - min(work) <= np.ptp(np.concatenate(lengths))


@untimed
@given(populations(), windows, st.data())
def test_from_any_position_on_the_tail_is_the_same(
    rows: Population, window: int, data: st.DataObject
) -> None:
    epoch = data.draw(st.sampled_from([0, 1, 9]))
    whole = BatchSampler(rows.order(3, window), rank=1, ranks=2)
    whole.set_epoch(epoch)
    expected = list(whole)
    start = data.draw(st.integers(0, len(expected)))
    resumed = BatchSampler(rows.order(3, window), rank=1, ranks=2)
    resumed.start_at(epoch, start)
    assert len(resumed) == len(expected)
    assert list(resumed) == expected[start:]
    assert list(resumed) == expected  # the next iteration is a whole one


def test_lightning_chooses_the_epoch_by_way_of_the_sampler() -> None:
    sampler = BatchSampler(plain(40, 4).order())
    sampler.sampler.set_epoch(5)
    assert [asked.numbers for asked in sampler] == [
        [place + 5 * FAR for place in batch] for batch in batches(plain(40, 4).order(), 5)
    ]


@pytest.mark.parametrize("called", [0, 2, 3])
def test_an_announced_epoch_is_begun_whatever_it_is_called(called: int) -> None:
    """And those after it follow, by the same count."""
    sampler = BatchSampler(plain(40, 4).order())
    sampler.start_at(2, 7, announced=True)
    for epoch, start in ((2, 7), (3, 0), (4, 0)):
        sampler.set_epoch(called + epoch - 2)
        expected = batches(plain(40, 4).order(), epoch)[start:]
        assert [asked.numbers for asked in sampler] == [
            [place + epoch * FAR for place in batch] for batch in expected
        ]


def test_an_iteration_stays_in_the_epoch_that_it_began_in() -> None:
    sampler = BatchSampler(plain(40, 4).order())
    going = iter(sampler)
    first = next(going)
    sampler.set_epoch(1)
    assert [first, *going] == list(BatchSampler(plain(40, 4).order()))


def test_a_fixed_sampler_has_one_epoch() -> None:
    sampler = BatchSampler(plain(40, 4).order(), fixed=True)
    first = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == first


def spread_out(counts: Sequence[int], phases: Sequence[int]) -> list[tuple[int, int]]:
    """All turns by walking: the first adds its count at each, and has a turn at a full left."""
    if not counts:
        return []
    left, filled, count, fractions = sum(counts), phases[0], 0, []
    others = iter(spread_out(counts[1:], phases[1:]))
    for _ in range(left):
        filled += counts[0]
        if filled >= left:
            filled -= left
            fractions.append((0, count))
            count += 1
        else:
            part, number = next(others)
            fractions.append((part + 1, number))
    return fractions


@untimed
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.data())
def test_turns_are_spread_evenly(counts: list[int], data: st.DataObject) -> None:
    lefts = [sum(counts[place:]) for place in range(len(counts))]
    phases = [data.draw(st.integers(0, max(left - 1, 0))) for left in lefts]
    turns = [turn(position, counts, phases) for position in range(sum(counts))]
    assert turns == spread_out(counts, phases)
    astray = 0.0  # how far the turns left to the others may be from their share
    for part, count in enumerate(counts):
        turn_numbers = [number for who, number in turns if who == part]
        assert turn_numbers == list(range(count))
        had = np.cumsum([who == part for who, _ in turns])
        due = np.arange(1, len(turns) + 1) * count / max(len(turns), 1)
        share = count / max(lefts[part], 1)
        assert np.abs(had - due).max(initial=0) < 1 + astray * share
        astray = 1 + astray * (1 - share)


def test_who_begins_is_drawn_anew_in_every_epoch() -> None:
    rows = plain(40, 4)
    rows.parts = [Section(4, 4, 0), Section(36, 4, 0, start=4)]
    order = rows.order()
    where = [
        next(position for position, b in enumerate(batches(order, e)) if 0 in b) for e in range(300)
    ]
    assert chisquare(np.bincount(where, minlength=10)).pvalue > 0.001


def test_no_epoch_is_longer_than_the_first_and_what_is_cut_is_left_out() -> None:
    """Sections that change from epoch to epoch, as under a budget of tokens."""
    sections = [[Section(12, 2, 0)], [Section(13, 2, 0), Section(9, 3, 0, 13)], [Section(8, 2, 0)]]
    order = Order(plain(22, 2).draw, lambda epoch: sections[epoch], seed=0)
    assert [order.length(epoch) for epoch in range(3)] == [6, 6, 4]
    for epoch, rows in enumerate((12, 22, 8)):
        seen = [
            row
            for position in range(order.length(epoch))
            for row in numbers(order, epoch, position)
        ]
        assert len(set(seen)) == len(seen) == rows - order.left_out(epoch)
        with pytest.raises(IndexError):
            order.batch(epoch, order.length(epoch))
    sampler = BatchSampler(order)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler)) == order.length(epoch)
    sampler.start_at(2, 1, announced=True)
    sampler.set_epoch(7)
    assert len(sampler) == 6  # Lightning keeps the length that it sees first
    assert len(list(sampler)) == 3


def numbers(order: Order, epoch: int, position: int) -> list[int]:
    return order.batch(epoch, position).numbers.tolist()
