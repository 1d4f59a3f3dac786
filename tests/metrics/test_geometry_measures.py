"""Every measure of geometry against another way of computing it, and against what must come out.

The clouds of known covariance have it exactly: centred orthonormal columns, scaled.
"""

import math

import numpy as np
import pytest
import torch
from clouds import FULL, ROWS, cloud, messy, second
from references import correlation_excess, gaussian, rotation

from mic.metrics.geometry import (
    alignment,
    condition_number,
    correlation_summary,
    covariance,
    cross_correlation,
    dead_share,
    effective_rank,
    iso_score,
    linear_cka,
    mean_cosine,
    participation_ratio,
    power_law_slope,
    prefix_measures,
    rank_me,
    spectrum,
    top_share,
    uniformity,
    variance_cv,
)

# closed forms


@pytest.mark.parametrize("turned", [False, True], ids=["axes", "turned"])
def test_an_isotropic_cloud_fills_its_space(turned):
    s = covariance(cloud(*[3.0] * 8, turned=turned))
    assert effective_rank(s) == pytest.approx(8)
    assert participation_ratio(s) == pytest.approx(8)
    assert iso_score(s) == pytest.approx(1)
    assert condition_number(spectrum(s)) == pytest.approx(1)
    assert top_share(spectrum(s)) == pytest.approx(1 / 8)
    assert power_law_slope(spectrum(s)) == pytest.approx(0, abs=1e-9)
    assert variance_cv(s) == pytest.approx(0, abs=1e-9)
    assert rank_me(second(cloud(*[3.0] * 8, turned=turned))) == pytest.approx(8)


def test_a_cloud_along_a_line_has_rank_one():
    rows = torch.outer(cloud(1.0)[:, 0], torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=torch.double))
    s = covariance(rows)
    for value in (effective_rank(s), participation_ratio(s), rank_me(second(rows))):
        assert value == pytest.approx(1, abs=1e-6)
    assert iso_score(s) == pytest.approx(0, abs=1e-9)
    assert top_share(spectrum(s)) == pytest.approx(1)
    assert condition_number(spectrum(s)) == math.inf


@pytest.mark.parametrize("turned", [False, True], ids=["axes", "turned"])
def test_eigenvalues_of_a_power_law_have_its_slope_and_known_ranks(turned):
    values = [4.0 * index**-1.5 for index in range(1, 9)]
    s = covariance(cloud(*values, turned=turned))
    assert spectrum(s).tolist() == pytest.approx(values)
    assert power_law_slope(spectrum(s)) == pytest.approx(1.5)
    assert condition_number(spectrum(s)) == pytest.approx(8**1.5)
    assert top_share(spectrum(s)) == pytest.approx(4 / sum(values))
    assert participation_ratio(s) == pytest.approx(
        sum(values) ** 2 / sum(value**2 for value in values)
    )
    shares = [value / sum(values) for value in values]
    entropy = -sum(share * math.log(share) for share in shares)
    assert effective_rank(s) == pytest.approx(math.exp(entropy))


def test_rank_me_takes_the_mean_for_a_direction_and_roots_for_values():
    rows = cloud(4.0, 1.0, 1.0)
    assert rank_me(second(rows)) == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))
    assert rank_me(second(rows + 1e6)) == pytest.approx(1, abs=1e-3)
    assert rank_me(torch.eye(6, dtype=torch.double)) <= 6 + 1e-12


def test_few_rows_are_measured_by_what_so_many_can_fill():
    rows = rotation(FULL)[:5]  # the corners of a simplex: 5 directions, 4 once centred
    s = covariance(rows)
    actual = prefix_measures(s, second(rows), len(rows))
    assert spectrum(s).count_nonzero() == 4
    assert actual["effective_rank"] == pytest.approx(4)
    assert actual["effective_rank_share"] == pytest.approx(1)
    assert actual["participation_ratio"] == pytest.approx(4)
    assert actual["iso_score"] == pytest.approx(3 / (FULL - 1))
    assert actual["rank_me"] == pytest.approx(5)
    assert actual["condition_number"] == math.inf


def test_dead_coordinates_are_those_that_do_not_vary():
    rows = torch.cat([cloud(1.0, 1e-9, 1.0), torch.full((ROWS, 1), 3.0).double()], dim=1)
    assert dead_share(covariance(rows), second(rows)) == pytest.approx(0.5)
    assert dead_share(covariance(cloud(1.0, 1.0)), second(cloud(1.0, 1.0))) == 0
    far = cloud(1.0, 1.0, mean=200.0)  # where all but a 40,000th is the same for all
    assert dead_share(covariance(far), second(far)) == 1
    constant = torch.ones(ROWS, 4, dtype=torch.double)
    assert dead_share(covariance(constant), second(constant)) == 1
    assert dead_share(covariance(0 * constant), second(0 * constant)) == 1


def test_correlations_of_known_clouds():
    base = cloud(1.0, 1.0, 1.0)
    # the third coordinate is 0.6 of the first and 0.8 of its own
    rows = torch.stack([base[:, 0], base[:, 1], 0.6 * base[:, 0] + 0.8 * base[:, 2]], dim=1)
    actual = correlation_summary(covariance(rows), 2, ROWS)
    assert actual["max"] == pytest.approx(0.6)
    assert actual["rms"] == pytest.approx(0.6 / math.sqrt(2))
    assert actual["excess"] == pytest.approx(0.18 - 1 / (ROWS - 1))
    assert correlation_summary(covariance(cloud(1, 2, 3, 4)), 2, ROWS)["max"] == pytest.approx(0)


@pytest.mark.parametrize("small", [2, 9], ids=["in the prefix", "in the residual"])
def test_correlations_do_not_depend_on_the_rounding_of_a_coordinate_that_hardly_varies(small):
    rows = messy() - messy().mean(0)
    rows[:, small] = 1e-7 * gaussian(ROWS, seed=4)
    summaries = []
    for seed in (5, 6):  # errors of the last place of numbers of the rows' length
        errors = 1e-7 * gaussian(ROWS, FULL, seed=seed).clamp(-1, 1)
        rounded = (rows + errors).float()
        summaries.append(correlation_summary(covariance(rounded), 5, ROWS))
        assert summaries[-1]["excess"] == pytest.approx(correlation_excess(rounded, 5), rel=1e-9)
    assert summaries[0] == pytest.approx(summaries[1], abs=1e-6)
    cut = covariance(rows)
    cut[small] = cut[:, small] = 0
    assert summaries[0] == pytest.approx(correlation_summary(cut, 5, ROWS), abs=1e-6)


def test_the_noise_floor_is_what_independent_coordinates_show():
    excess = [
        correlation_summary(covariance(gaussian(50, 40, seed=seed)), 10, 50)["excess"]
        for seed in range(20)
    ]
    assert np.mean(excess) == pytest.approx(0, abs=3 * np.std(excess) / math.sqrt(20))


def test_cosines_and_distances_on_the_sphere():
    rows = torch.eye(5, dtype=torch.double)
    assert mean_cosine(rows) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(torch.cat([rows[:1], -rows[:1]])) == pytest.approx(-1)
    assert uniformity(rows) == pytest.approx(-2 * 2)  # squared distance 2, times t = 2
    assert uniformity(rows * 0 + rows[0]) == pytest.approx(0)
    assert alignment(rows, 3 * rows) == pytest.approx(0, abs=1e-12)
    assert alignment(rows, -rows) == pytest.approx(4)


def test_agreement_with_a_teacher_knows_no_rotation_and_sees_independence():
    rows = messy()
    turn = torch.linalg.qr(gaussian(FULL, FULL, seed=3)).Q

    def agreement(a, b):
        return linear_cka(covariance(torch.cat([a, b], dim=1)), a.shape[1])

    assert agreement(rows, 7 * rows @ turn) == pytest.approx(1)
    independent = cloud(1, 2, 3, 4)
    assert agreement(independent[:, :2], independent[:, 2:]) == pytest.approx(0, abs=1e-9)


# other ways


def test_every_measure_equals_another_way_of_computing_it():
    rows = messy()
    actual = prefix_measures(covariance(rows), second(rows), ROWS)
    x = rows.numpy()
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / ROWS
    shares = values / values.sum()
    singular = np.linalg.svd(x, compute_uv=False)
    ranks = singular / singular.sum()
    # IsoScore by its published steps: the variances of the principal components, scaled to the
    # length of the ones; how far they are from the ones; rescaled to between 0 and 1
    head = int((values >= 1e-4 * values[0]).sum())
    assert 2 < head < FULL
    scaled = math.sqrt(FULL) * values / np.linalg.norm(values)
    defect = np.linalg.norm(scaled - 1) / math.sqrt(2 * (FULL - math.sqrt(FULL)))
    used = (FULL - defect**2 * (FULL - math.sqrt(FULL))) ** 2 / FULL**2
    expected = {
        "effective_rank": math.exp(-(shares * np.log(shares)).sum()),
        "effective_rank_share": math.exp(-(shares * np.log(shares)).sum()) / FULL,
        "rank_me": math.exp(-(ranks * np.log(ranks)).sum()),
        "participation_ratio": values.sum() ** 2 / (values**2).sum(),
        "iso_score": (FULL * used - 1) / (FULL - 1),
        "condition_number": np.linalg.cond(x - x.mean(0)) ** 2,
        "top1_share": shares[0],
        "power_law_slope": -np.polyfit(np.log(np.arange(1, head + 1)), np.log(values[:head]), 1)[0],
        "variance_cv": x.var(0).std() / x.var(0).mean(),
        "dead_share": np.mean(x.var(0) <= 1e-4 * (x**2).mean()),
    }
    assert actual.keys() == expected.keys()
    assert actual == pytest.approx(expected, rel=1e-9)


def test_spread_equals_loops_over_pairs_of_rows():
    rows, others = messy(), messy().flip(0)
    a = (rows / rows.norm(dim=1, keepdim=True)).tolist()
    b = (others / others.norm(dim=1, keepdim=True)).tolist()
    different = [(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    assert mean_cosine(rows) == pytest.approx(
        np.mean([np.dot(x, y) for x, y in different]), rel=1e-9
    )
    assert uniformity(rows) == pytest.approx(
        math.log(np.mean([math.exp(-2 * math.dist(x, y) ** 2) for x, y in different])), rel=1e-9
    )
    assert alignment(rows, others) == pytest.approx(
        np.mean([math.dist(x, y) ** 2 for x, y in zip(a, b, strict=True)]), rel=1e-9
    )


def test_quantiles_of_the_correlations_are_numpys():
    s = covariance(messy())
    actual = correlation_summary(s, 5, ROWS)
    values = np.abs(np.corrcoef(messy().numpy().T)[:5, 5:]).ravel()
    assert cross_correlation(s, 5).abs().numpy().ravel() == pytest.approx(values)
    for name, share in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        assert actual[name] == pytest.approx(np.quantile(values, share, method="lower"))


# what is not a number, and what does not vary


@pytest.mark.parametrize("value", [1.0, 0.1, 0.0])
@pytest.mark.parametrize("d", [1, 3])
def test_rows_that_are_all_equal_fill_no_direction(value, d):
    rows = torch.full((ROWS, d), value, dtype=torch.double)
    actual = prefix_measures(covariance(rows), second(rows), ROWS)
    ratios = ["condition_number", "top1_share", "power_law_slope", "variance_cv"]
    assert all(math.isnan(actual.pop(name)) for name in ratios)
    assert actual.pop("rank_me") == pytest.approx(1 if value else 0, abs=1e-6)
    assert actual == {
        "effective_rank": 0,
        "effective_rank_share": 0,
        "participation_ratio": 0,
        "iso_score": 0,
        "dead_share": 1,
    }


def test_one_coordinate_is_isotropic():
    rows = cloud(4.0, mean=1)
    actual = prefix_measures(covariance(rows), second(rows), ROWS)
    assert math.isnan(actual.pop("power_law_slope"))
    assert actual == pytest.approx(dict.fromkeys(actual, 1.0) | {"variance_cv": 0, "dead_share": 0})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_gives_figures_that_are_not(value):
    for d in (1, FULL):
        rows = messy()[:, :d].clone()
        rows[3, 0] = value
        actual = prefix_measures(covariance(rows), second(rows), ROWS)
        assert [name for name, value in actual.items() if not math.isnan(value)] == []
    actual = correlation_summary(covariance(rows), 5, ROWS)
    assert actual.keys() == correlation_summary(covariance(messy()), 5, ROWS).keys()
    assert all(map(math.isnan, actual.values()))
    for value in (uniformity(rows), mean_cosine(rows), alignment(rows, messy())):
        assert math.isnan(value)
    assert math.isnan(linear_cka(covariance(rows), 5))


def test_a_row_of_zeros_is_at_right_angles_to_all():
    rows = torch.eye(4, dtype=torch.double)
    rows[2:] = 0
    assert mean_cosine(rows) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(0 * rows) == 0
    assert uniformity(rows) == pytest.approx(-2 * 2)
    assert alignment(rows, rows) == pytest.approx((0 + 0 + 2 + 2) / 4)
