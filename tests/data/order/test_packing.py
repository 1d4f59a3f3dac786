"""What packing claims: no key twice in a batch, no row lost where that can be, little to pad.

The references compare every row with every other, or try every choice there is.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mic.data.order.packing import BatchTable, most_batches, nearest_batches, pack, sort_by_length

untimed = settings(deadline=None)
Rows = list[tuple[int, ...]]


def packed(keys: Rows, size: int, lengths: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    lengths = [[key[0] % 7] for key in keys] if lengths is None else lengths
    width = len(lengths[0]) if lengths else 1
    batches = pack(
        np.array(keys, np.uint64).reshape(len(keys), len(keys[0]) if keys else 1),
        np.array(lengths, np.int32).reshape(len(keys), width),
        size,
    )
    assert batches.shape == (len(batches), size)
    rows = batches.ravel().tolist()
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(len(keys)))
    return batches


def strife(keys: Rows) -> list[int]:
    """How many other rows each row shares a key with."""
    return [
        sum(bool(set(row_keys) & set(keys[other])) for other in range(len(keys)) if other != row)
        for row, row_keys in enumerate(keys)
    ]


def at_peace(keys: Rows, batches: np.ndarray) -> bool:
    return all(not any(strife([keys[row] for row in batch])) for batch in batches.tolist())


def most_dealt(groups: tuple[int, ...], size: int) -> int:
    """The most batches that groups of these sizes fill, by every choice of groups at each turn."""

    @lru_cache(None)
    def most(left: tuple[int, ...]) -> int:
        best = 0
        for chosen in combinations(range(len(left)), size):
            if all(left[group] for group in chosen):
                rest = sorted(count - (group in chosen) for group, count in enumerate(left))
                best = max(best, 1 + most(tuple(rest)))
        return best

    return most(tuple(sorted(groups)))


def padded(lengths: np.ndarray, batches: np.ndarray) -> int:
    """Tokens with padding: each column of a batch is as long as its longest text."""
    return sum(len(batch) * int(lengths[batch].max(0).sum()) for batch in batches)


def cuts(rows: np.ndarray, size: int) -> np.ndarray:
    return rows[: len(rows) // size * size].reshape(-1, size)


@st.composite
def tables(draw: st.DrawFn, most_rows: int = 40) -> Rows:
    """Rows of one to three keys out of few or many; some hold one twice."""
    columns, different = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    row = st.tuples(*[st.integers(0, different)] * columns)
    return draw(st.lists(row, min_size=1, max_size=most_rows))


@st.composite
def roomy(draw: st.DrawFn) -> tuple[Rows, int]:
    """Rows that share keys with at most c others, and a size with 2c batches or a few more."""
    keys = draw(tables(most_rows=15))
    size = draw(st.integers(1, 6))
    wanted = max(1, 2 * max(strife(keys)) + draw(st.integers(0, 2))) * size
    rows = max(wanted, len(keys)) + draw(st.integers(0, size - 1))
    keys += [(10**6 + number,) * len(keys[0]) for number in range(rows - len(keys))]
    return draw(st.permutations(keys)), size


@untimed
@given(tables(), st.integers(1, 8), st.data())
def test_no_batch_holds_a_key_twice_nor_any_row_two_batches(
    keys: Rows, size: int, data: st.DataObject
) -> None:
    columns = data.draw(st.integers(1, 3))
    row = st.lists(st.integers(1, 30), min_size=columns, max_size=columns)
    lengths = data.draw(st.lists(row, min_size=len(keys), max_size=len(keys)))
    assert at_peace(keys, packed(keys, size, lengths))


@settings(untimed, max_examples=300)
@given(roomy())
def test_with_twice_as_many_batches_as_conflicts_every_row_is_placed(
    case: tuple[Rows, int],
) -> None:
    """The proof in packing.py; rows of one key are of one length here, so all begin in strife."""
    keys, size = case
    assert len(keys) // size >= 2 * max(strife(keys))
    batches = packed(keys, size)
    assert at_peace(keys, batches)
    assert sorted(batches.ravel().tolist()) == list(range(len(keys) // size * size))


@untimed
@given(st.integers(1, 4), st.integers(1, 5))
def test_it_holds_where_every_row_meets_as_many_as_it_may(c: int, size: int) -> None:
    """2c batches exactly, of groups of c + 1 rows."""
    keys = [(row // (c + 1),) for row in range(2 * c * size)]
    batches = packed(keys, size)
    assert at_peace(keys, batches)
    assert len(batches) == 2 * c


@untimed
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 6))
def test_groups_fill_as_many_batches_as_any_choice_could(groups: list[int], size: int) -> None:
    """And rows are left out in order: those of a group after the last batch's, then the last."""
    counts = Counter(groups).values()
    most = max(
        batches
        for batches in range(len(groups) + 1)
        if sum(min(count, batches) for count in counts) >= batches * size
    )
    packed_rows = packed([(group,) for group in groups], size)
    assert len(packed_rows) == most
    chosen = [row for row, group in enumerate(groups) if groups[:row].count(group) < most]
    assert sorted(packed_rows.ravel().tolist()) == chosen[: most * size]
    assert most_batches(np.array([*counts]), size) == most


@untimed
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 4))
def test_no_other_way_to_deal_out_groups_fills_more_batches(groups: list[int], size: int) -> None:
    keys = [(group,) for group, count in enumerate(groups) for _ in range(count)]
    assert len(packed(keys, size)) == most_dealt(tuple(groups), size)


def test_a_row_may_hold_a_key_twice() -> None:
    """As a sentence that is its own positive does, or one text of a label beside another."""
    assert len(packed([(5, 5, 5), (6, 7, 6), (8, 8, 9)], 3)) == 1
    assert len(packed([(5, 5), (5, 5), (6, 6), (7, 6)], 2)) == 2


def test_rows_that_share_texts_and_groups_at_once_lose_little() -> None:
    rng = np.random.default_rng(0)
    keys = list({(q, 100 + p) for q, p in rng.integers(0, 100, (2000, 2)).tolist()})
    most = max(Counter(key for row in keys for key in row).values())
    size = len(keys) // most + 1  # too few batches for the most repeated key
    batches = packed(keys, size)
    assert at_peace(keys, batches)
    assert batches.size > 0.9 * len(keys)


@pytest.mark.parametrize(("rows", "size"), [(0, 3), (2, 3)])
def test_rows_for_no_batch_give_none(rows: int, size: int) -> None:
    assert len(packed([(row,) for row in range(rows)], size)) == 0


def test_the_last_rows_are_left_out_whatever_their_lengths() -> None:
    batches = packed([(row,) for row in range(11)], 4, [[row] for row in range(11)])
    assert sorted(batches.ravel().tolist()) == list(range(8))


@untimed
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9))
def test_one_column_is_padded_as_little_as_sorted_rows(lengths: list[int], size: int) -> None:
    batches = packed(
        [(row,) for row in range(len(lengths))], size, [[length] for length in lengths]
    )
    whole = sorted(lengths[: len(lengths) // size * size])
    assert padded(np.array(lengths)[:, None], batches) == sum(whole[size - 1 :: size]) * size


@pytest.mark.parametrize("spread", [(30, 30), (60, 8), (8, 60), (30, 30, 30), (60, 3, 20)])
def test_columns_are_padded_less_than_by_any_one_of_them(spread: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    lengths = (rng.gamma(2, spread, (4096, len(spread))) + 5).astype(np.int32)
    batches = packed([(row,) for row in range(4096)], 32, lengths.tolist())
    sorts = [cuts(np.argsort(column, kind="stable"), 32) for column in lengths.T]
    assert padded(lengths, batches) < 0.95 * min(padded(lengths, order) for order in sorts)
    assert padded(lengths, batches) < 0.8 * padded(lengths, cuts(np.arange(4096), 32))


@pytest.mark.parametrize("spread", [(30, 30), (60, 8), (8, 60), (30, 1), (100, 0)])
def test_the_first_column_is_cut_about_as_finely_as_pays_best(spread: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    lengths = (rng.random((2048, 2)) * spread + 5).astype(np.int32)
    padding = padded(lengths, packed([(row,) for row in range(2048)], 16, lengths.tolist()))
    by_first = np.argsort(lengths[:, 0], kind="stable")
    costs = []
    for slices in range(1, 129):
        parts = np.array_split(cuts(by_first, 16), slices)
        ordered = [part.ravel()[np.argsort(lengths[part.ravel(), 1])] for part in parts]
        costs.append(padded(lengths, cuts(np.concatenate(ordered), 16)))
    assert padding <= 1.03 * min(costs)


def test_neighbouring_batches_are_alike_in_all_columns() -> None:
    """Up and down in turn: no batch beside the end of a slice begins from the shortest again."""
    lengths = np.random.default_rng(3).integers(0, 1000, (2048, 2)).astype(np.int32)
    rows = sort_by_length(np.arange(2048), lengths, 128, 16)
    means = lengths[cuts(rows, 16)].mean(1)
    assert max(np.abs(np.diff(means, axis=0)).max(0)) < 400


def test_equal_lengths_leave_rows_in_their_order() -> None:
    """Windows that are not sorted are packed as rows of one length."""
    assert sort_by_length(np.arange(12), np.zeros((12, 1), np.int32), 3, 4).tolist() == [*range(12)]


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows in conflict before each exchange, and after the last, for small tables."""
    seen: list[int] = []
    exchange = BatchTable.exchange

    def in_conflict(table: BatchTable) -> int:
        batches, places = map(range, table.batches.shape)
        return sum(table.conflicts(batch, place) for batch in batches for place in places)

    def counted(table: BatchTable, first: tuple[int, int], second: tuple[int, int]) -> None:
        seen[len(seen) - 1 :] = [in_conflict(table)]
        exchange(table, first, second)
        seen.append(in_conflict(table))

    monkeypatch.setattr(BatchTable, "exchange", counted)
    return seen


def test_each_exchange_leaves_fewer_rows_in_conflict(exchanges: list[int]) -> None:
    keys = [(row // 4, 1000 + row * 7 % 90) for row in range(240)]
    before = sum(len({*batch}) < 8 for batch in np.array(keys)[:, 0].reshape(-1, 8).tolist()) * 8
    assert at_peace(keys, packed(keys, 8, [[1]] * 240))
    assert exchanges[0] == before == 240
    assert all(after < before for before, after in pairwise(exchanges))
    assert exchanges[-1] == 0


def test_only_rows_in_conflict_move_and_no_further_than_they_must() -> None:
    """Ten batches of one length each; one pair of equal texts in the fifth."""
    keys = [(row,) for row in range(40)]
    keys[17] = keys[16]
    batches = packed(keys, 4, [[row // 4] for row in range(40)]).tolist()
    moved = {
        number for number, batch in enumerate(batches) if {row // 4 for row in batch} != {number}
    }
    assert len(moved) == 2
    assert 4 in moved
    assert moved <= {3, 4, 5}
    assert sum(row // 4 == 4 for row in batches[4]) == 3


def test_repeated_texts_cost_little_padding() -> None:
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, 1000, (4096, 2)).astype(np.int32)
    lengths[:1000:2] = lengths[1:1000:2]  # twins would be in one batch
    twins = [(row // 2 if row < 1000 else row,) for row in range(4096)]
    free = packed([(row,) for row in range(4096)], 32, lengths.tolist())
    batches = packed(twins, 32, lengths.tolist())
    assert padded(lengths, batches) < 1.1 * padded(lengths, free)


@pytest.mark.parametrize("rows_a_key", [2, 8, 50])
def test_the_work_grows_with_the_rows_and_no_faster(
    rows_a_key: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    keys_at = BatchTable.keys_at

    def counted(table: BatchTable, batch: int, place: int) -> tuple[int, ...]:
        looks.append(batch)
        return keys_at(table, batch, place)

    monkeypatch.setattr(BatchTable, "keys_at", counted)
    a_row = []
    for rows in (3_200, 12_800):
        looks.clear()
        packed([(row // rows_a_key,) for row in range(rows)], 32, [[row] for row in range(rows)])
        a_row.append(len(looks) / rows)
    assert a_row[1] < min(1.5 * a_row[0], 100)


def test_the_nearest_batches_come_first() -> None:
    for batches in range(1, 7):
        for batch in range(batches):
            others = list(nearest_batches(batch, batches))
            away = [abs(other - batch) for other in others]
            assert away == sorted(away)
            assert sorted(others) == [other for other in range(batches) if other != batch]
