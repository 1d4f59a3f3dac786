"""States fed in batches hold what the whole has, at every width, and lose no digit that matters."""

import math
from fractions import Fraction

import pytest
import torch
from clouds import DIMS, FULL, ROWS, messy, second
from references import gaussian

from mic.metrics import Moments, Spread
from mic.metrics.geometry import (
    alignment,
    correlation_summary,
    covariance,
    linear_cka,
    mean_cosine,
    prefix_measures,
    uniformity,
)
from mic.nested import unit


def fed(teacher=True, parts=7) -> Moments:
    rows, taught = messy(), gaussian(ROWS, 6, seed=8)
    moments = Moments(FULL, 6 if teacher else 0)
    for x, y in zip(rows.split(parts), taught.split(parts), strict=True):
        moments.update(x, y if teacher else None)
    return moments


def test_moments_of_batches_are_those_of_the_whole_at_every_width():
    actual, rows, taught = fed().compute().measures(DIMS), messy(), gaussian(ROWS, 6, seed=8)
    for dim in DIMS:
        block = rows[:, :dim]
        expected = prefix_measures(covariance(block), second(block), ROWS)
        assert {name: actual[f"{name}/d{dim}"] for name in expected} == pytest.approx(
            expected, rel=1e-9
        )
        joint = covariance(torch.cat([block, taught], dim=1))
        assert actual[f"teacher_cka/d{dim}"] == pytest.approx(float(linear_cka(joint, dim)))
    assert len(actual) == len(DIMS) * 11
    assert fed().compute().rows == ROWS


def test_a_leading_block_is_the_truncated_cloud():
    whole = fed().compute().measures(DIMS)
    alone = Moments(5)
    alone.update(messy()[:, :5])
    for name, value in alone.compute().measures([5]).items():
        assert whole[name] == pytest.approx(value, rel=1e-9)


def test_a_mean_far_from_the_origin_costs_no_digit_that_matters():
    rows = unit(0.1 * gaussian(300, 4) + 1)  # a narrow cone, as of an untrained model
    assert mean_cosine(rows) > 0.98
    exact = [[Fraction(value) for value in row] for row in rows.tolist()]
    means = [sum(column) / len(exact) for column in zip(*exact, strict=True)]
    centred = [[x - mean for x, mean in zip(row, means, strict=True)] for row in exact]
    expected = torch.tensor(
        [
            [float(sum(row[i] * row[j] for row in centred) / len(exact)) for j in range(4)]
            for i in range(4)
        ],
        dtype=torch.double,
    )
    moments = Moments(4)
    for part in rows.split(16):
        moments.update(part)
    actual = moments.compute()
    torch.testing.assert_close(actual.covariance, expected, rtol=1e-11, atol=0)
    assert actual.measures([4]) == pytest.approx(
        {f"{name}/d4": x for name, x in prefix_measures(expected, second(rows), len(rows)).items()},
        rel=1e-9,
    )


@pytest.mark.parametrize("jitter", [0, 1e-8])
def test_rows_that_are_all_equal_but_for_rounding_leave_nothing_that_correlates(jitter):
    moments = Moments(8)
    for n in range(20):
        moments.update(unit(gaussian(1, 8)).expand(50, 8) + jitter * gaussian(50, 8, seed=n))
    actual = moments.compute()
    assert actual.covariance.count_nonzero() == 0
    assert actual.measures([8])["dead_share/d8"] == 1
    assert actual.measures([8])["effective_rank/d8"] == 0
    assert correlation_summary(actual.covariance, 3, actual.rows)["max"] == 0


def test_one_coordinate_that_is_constant_but_for_rounding_leaves_its_row_and_column_empty():
    rows = messy()
    rows[:, 4] = 0.3 + 1e-8 * rows[:, 2]
    moments = Moments(FULL)
    moments.update(rows)
    actual = moments.compute().covariance
    others = [n for n in range(FULL) if n != 4]
    expected = covariance(rows[:, others])
    torch.testing.assert_close(actual[others][:, others], expected, rtol=1e-9, atol=1e-12)
    assert actual[4].count_nonzero() == actual[:, 4].count_nonzero() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_spoils_the_widths_that_have_it_and_no_other(value):
    rows = messy()
    rows[7, 3] = value
    moments, spread = Moments(FULL), Spread(DIMS)
    moments.update(rows)
    spread.update(rows, messy())
    for name, value in (moments.compute().measures(DIMS) | spread.compute()).items():
        assert math.isnan(value) == (not name.endswith("/d2")), name


def test_no_rows_and_none_that_are_kept_are_no_error():
    with pytest.warns(UserWarning, match="before"):
        actual = Moments(FULL).compute().measures(DIMS) | Spread(DIMS).compute()
    assert all(map(math.isnan, actual.values()))
    spread = Spread(DIMS)
    spread.update(messy(), messy(), keep=False)
    for name, value in spread.compute().items():
        assert math.isnan(value) == name.startswith("uniformity")


def test_reset_forgets():
    moments = fed(teacher=False)
    moments.reset()
    moments.update(messy()[:10])
    assert moments.compute().rows == 10
    spread = Spread(DIMS)
    spread.update(messy(), messy())
    spread.reset()
    spread.update(messy()[:10], messy()[10:20])
    expected = Spread(DIMS)
    expected.update(messy()[:10], messy()[10:20])
    assert spread.compute() == expected.compute()


def test_spread_of_batches_is_that_of_all_rows():
    rows, others = messy(), messy().flip(0)
    spread = Spread(DIMS)
    for n, (x, y) in enumerate(zip(rows.split(9), others.split(9), strict=True)):
        spread.update(x, y, keep=n < 3)
    actual, sampled = spread.compute(), torch.cat([rows[:27], others[:27]])
    for dim in DIMS:
        assert actual[f"mean_cosine/d{dim}"] == pytest.approx(
            float(mean_cosine(torch.cat([rows, others])[:, :dim]))
        )
        assert actual[f"alignment/d{dim}"] == pytest.approx(
            float(alignment(rows[:, :dim], others[:, :dim]))
        )
        assert actual[f"uniformity/d{dim}"] == pytest.approx(float(uniformity(sampled[:, :dim])))


def test_spread_of_zeros_is_that_of_the_functions():
    rows, others = messy(), messy().flip(0)
    rows[:9, :2] = 0
    spread = Spread(DIMS)
    spread.update(rows, others)
    actual, both = spread.compute(), torch.cat([rows, others])
    for dim in DIMS:
        expected = {
            "mean_cosine": mean_cosine(both[:, :dim]),
            "alignment": alignment(rows[:, :dim], others[:, :dim]),
            "uniformity": uniformity(both[:, :dim]),
        }
        for name, value in expected.items():
            assert actual[f"{name}/d{dim}"] == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_precision_are_summed_in_double(dtype):
    rows, others = messy().to(dtype), messy().flip(0).to(dtype)
    moments, spread = Moments(FULL), Spread(DIMS)
    exact_moments, exact_spread = Moments(FULL), Spread(DIMS)
    for x, y in zip(rows.split(9), others.split(9), strict=True):
        moments.update(x)
        exact_moments.update(x.double())
        spread.update(x, y)
        exact_spread.update(x.double(), y.double())
    assert moments.compute().measures(DIMS) == exact_moments.compute().measures(DIMS)
    assert spread.compute() == exact_spread.compute()
