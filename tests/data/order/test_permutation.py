"""What the shuffle claims: every row once, any key another order, in no memory, for ever the same.

`slow` is the formula again, one place at a time in Python's whole numbers.
"""

import hashlib
import struct
import tracemalloc
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mic.data.order.permutation import LARGEST, derive_key, mix, permute

WORD = 2**64
KEYS = st.integers(0, WORD - 1)
untimed = settings(deadline=None)


def slow(place: int, n: int, key: int) -> int:
    """Eight rounds of a Feistel network over (left, right), again while the result is outside."""
    b = max(1, round(n**0.5))
    a = -(-n // b)
    left, right = divmod(place, b)
    for turn in range(8):
        named = b"".join(number.to_bytes(8, "little") for number in (key, turn))
        digest = int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little")
        if turn % 2 == 0:
            left = (left + splitmix(right, digest)) % a
        else:
            right = (right + splitmix(left, digest) % b) % b
    image = left * b + right
    return image if image < n else slow(image, n, key)


def splitmix(number: int, seed: int) -> int:
    """The `number`-th word that splitmix64 makes of a seed."""
    z = (seed + number * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def order(n: int, key: int) -> list[int]:
    return permute(np.arange(n), n, key).tolist()


def p_value(counts: Counter[object], different: int) -> float:
    """That so uneven counts come by chance."""
    frequencies = [*counts.values(), *[0] * (different - len(counts))]
    assert len(frequencies) == different
    return float(chisquare(frequencies).pvalue)


@untimed
@given(st.integers(1, 2000), KEYS)
def test_every_place_goes_to_a_place_of_its_own(n: int, key: int) -> None:
    assert sorted(order(n, key)) == list(range(n))


@pytest.mark.parametrize("n", range(1, 70))
def test_no_size_is_too_small_or_too_odd(n: int) -> None:
    for key in (0, 1, WORD - 1):
        assert sorted(order(n, key)) == list(range(n))


@pytest.mark.parametrize("n", [10**9 + 7, 2**31, 2**31 + 1, LARGEST - 1, LARGEST])
def test_places_of_a_large_n_stay_apart_and_inside(n: int) -> None:
    places = np.unique(np.random.default_rng(0).integers(0, n, 50_000))
    places = np.union1d(places, [0, 1, n - 2, n - 1])
    images = permute(places, n, key=5)
    assert len(np.unique(images)) == len(places)
    assert images.min() >= 0
    assert images.max() < n
    counts = np.bincount(images * 10 // n, minlength=10)
    assert chisquare(counts).pvalue > 0.001


@untimed
@given(st.integers(1, LARGEST), KEYS, st.data())
def test_it_is_the_formula(n: int, key: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=5))
    images = permute(np.array(places, np.int64), n, key)
    assert images.tolist() == [slow(place, n, key) for place in places]


@untimed
@given(st.integers(1, 300), KEYS, st.data())
def test_places_are_independent_of_what_else_is_asked(
    n: int, key: int, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=50))
    whole = order(n, key)
    asked = np.array(places, np.int64)
    assert permute(asked, n, key).tolist() == [whole[place] for place in places]
    assert asked.tolist() == places


def test_the_hash_is_splitmix64() -> None:
    """The first words of seed 1234567, which other implementations are tested by."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    mixed = mix(np.arange(1, 5, dtype=np.uint64), np.uint64(1234567))
    assert mixed.tolist() == known


def test_the_order_of_a_key_never_changes() -> None:
    """A run resumes in the order that it began with: other numbers here lose every old run."""
    assert derive_key(0) == 1786884285633530058
    assert derive_key(7, 1, 2) == 10263638631404480219
    assert order(10, 0) == [0, 1, 7, 6, 9, 3, 5, 4, 8, 2]
    assert order(10, 7) == [3, 1, 4, 6, 2, 7, 0, 5, 8, 9]
    images = permute(np.array([0, 1, 10**9]), 10**9 + 7, 7)
    assert images.tolist() == [781674674, 205508366, 12181431]
    images = permute(np.array([0, 1, 10**12]), 2**40, 7)
    assert images.tolist() == [9575071532, 214705616527, 304172002848]


def test_other_keys_give_other_orders() -> None:
    orders = {tuple(order(30, key)) for key in range(1000)}
    assert len(orders) == 1000
    near = [order(1000, key) for key in (1, 2, 1 + 2**32, 1 + 2**63)]
    alike = [sum(a == b for a, b in zip(near[0], other, strict=True)) for other in near[1:]]
    assert max(alike) < 10  # one in a thousand is to be expected


@untimed
@given(st.lists(KEYS, max_size=4))
def test_a_key_is_the_hash_of_its_parts_in_order(parts: list[int]) -> None:
    packed = b"".join(part.to_bytes(8, "little") for part in parts)
    digest = hashlib.blake2b(packed, digest_size=8).digest()
    assert derive_key(*parts) == sum(byte << 8 * place for place, byte in enumerate(digest))


def test_keys_of_other_parts_differ() -> None:
    parts = [(), (0,), (0, 0), (1,), (1, 0), (0, 1), (256,), (2**32,), (2**63,)]
    assert len({derive_key(*of) for of in parts}) == len(parts)
    assert len({derive_key(seed, epoch) for seed in range(50) for epoch in range(50)}) == 2500


def test_all_orders_of_four_come_equally_often() -> None:
    orders: Counter[object] = Counter(
        tuple(order(4, derive_key(9, key))) for key in range(24 * 250)
    )
    assert set(orders) == set(permutations(range(4)))
    assert p_value(orders, 24) > 0.001


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_every_row_is_first_and_last_equally_often(n: int) -> None:
    ends = [permute(np.array([0, n - 1]), n, derive_key(9, key)) for key in range(400 * n)]
    for place in range(2):
        assert p_value(Counter(int(end[place]) for end in ends), n) > 0.001


def test_neighbours_are_parted() -> None:
    """Pairs of rows side by side come side by side again as seldom as chance has it."""
    pairs: Counter[object] = Counter()
    for key in range(3000):
        pairs.update([tuple(permute(np.array([3, 4]), 8, derive_key(9, key)).tolist())])
    assert p_value(pairs, 56) > 0.001
    moved = np.abs(np.diff(order(100_000, 3)))
    assert (moved == 1).sum() < 15  # two are to be expected
    assert abs(moved.mean() / 100_000 - 1 / 3) < 0.005


def test_a_place_costs_the_same_memory_whatever_n_is() -> None:
    places = np.arange(100) * 10**10
    permute(places, 10**12, key=3)
    tracemalloc.start()
    try:
        permute(places, 10**12, key=3)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("places", "n"), [([5], 5), ([-1], 5), ([0, 6, 1], 5), ([0], 0)])
def test_places_outside_are_refused(places: list[int], n: int) -> None:
    with pytest.raises(ValueError, match=rf"places {min(places)} to {max(places)}.*range\({n}\)"):
        permute(np.array(places), n, key=1)


def test_more_rows_than_64_bits_have_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="places 0 to 0"):
        permute(np.array([0]), LARGEST + 1, key=1)


def test_no_place_is_no_error() -> None:
    assert permute(np.arange(0), 5, key=1).tolist() == []


@pytest.mark.parametrize("part", [-1, WORD])
def test_a_part_of_a_key_has_64_bits(part: int) -> None:
    with pytest.raises(struct.error):
        derive_key(1, part)
    assert derive_key(0, WORD - 1) != derive_key(0, 0)
