"""Every measure of geometry against another way of computing it, and against what must come out.

The clouds of known covariance have it exactly: centred orthonormal columns, scaled.
"""

import math

import numpy as np
import pytest
import torch
from references import gaussian

from mic.geometry import (
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
    measures,
    participation_ratio,
    power_law_slope,
    rank_me,
    spectrum,
    top_share,
    uniformity,
    variance_cv,
)
from mic.metrics import Moments, Spread
from mic.nested import unit

ROWS, FULL = 64, 12
DIMS = (2, 5, FULL)


def cloud(*variances: float, turned: bool = False, mean: float = 0.0) -> torch.Tensor:
    """Rows whose covariance is exactly diag(variances), or a rotation of it."""
    centred = gaussian(ROWS, len(variances)) - gaussian(ROWS, len(variances)).mean(0)
    basis = torch.linalg.qr(centred).Q * math.sqrt(ROWS)
    rows = basis * torch.tensor(variances, dtype=torch.double).sqrt()
    if turned:
        rows = rows @ torch.linalg.qr(gaussian(len(variances), len(variances), seed=5)).Q
    return rows + mean


def messy() -> torch.Tensor:
    """Correlated, off centre, of unequal variances."""
    mixed = gaussian(ROWS, FULL) @ gaussian(FULL, FULL, seed=1)
    return mixed * torch.linspace(0.1, 2, FULL, dtype=torch.double) + 0.7


def second(rows: torch.Tensor) -> torch.Tensor:
    return rows.T @ rows / len(rows)


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
    for one in (effective_rank(s), participation_ratio(s), rank_me(second(rows))):
        assert one == pytest.approx(1, abs=1e-6)
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


def test_dead_coordinates_are_those_that_do_not_vary():
    rows = torch.cat([cloud(1.0, 1e-9, 1.0), torch.full((ROWS, 1), 3.0).double()], dim=1)
    assert dead_share(covariance(rows), second(rows)) == pytest.approx(0.5)
    constant = torch.ones(ROWS, 4, dtype=torch.double)
    assert dead_share(covariance(constant), second(constant)) == 1
    assert dead_share(covariance(0 * constant), second(0 * constant)) == 1


def test_correlations_of_known_clouds():
    base = cloud(1.0, 1.0, 1.0)
    # the third coordinate is 0.6 of the first and 0.8 of its own
    rows = torch.stack([base[:, 0], base[:, 1], 0.6 * base[:, 0] + 0.8 * base[:, 2]], dim=1)
    found = correlation_summary(covariance(rows), 2, ROWS)
    assert found["max"] == pytest.approx(0.6)
    assert found["rms"] == pytest.approx(0.6 / math.sqrt(2))
    assert found["excess"] == pytest.approx(0.18 - 1 / (ROWS - 1))
    assert correlation_summary(covariance(cloud(1, 2, 3, 4)), 2, ROWS)["max"] == pytest.approx(0)


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
    found = measures(covariance(rows), second(rows), ROWS)
    x = rows.numpy()
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / ROWS
    shares = values / values.sum()
    singular = np.linalg.svd(x, compute_uv=False)
    ranks = singular / singular.sum()
    # IsoScore by its published steps: the variances of the principal components, scaled to the
    # length of the ones; how far they are from the ones; rescaled to between 0 and 1
    kept = int((values >= 1e-4 * values[0]).sum())
    assert 2 < kept < FULL
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
        "power_law_slope": -np.polyfit(np.log(np.arange(1, kept + 1)), np.log(values[:kept]), 1)[0],
        "variance_cv": x.var(0).std() / x.var(0).mean(),
        "dead_share": np.mean(x.var(0) <= 1e-4 * (x**2).mean()),
    }
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-9)


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
    found = correlation_summary(s, 5, ROWS)
    values = np.abs(np.corrcoef(messy().numpy().T)[:5, 5:]).ravel()
    assert cross_correlation(s, 5).abs().numpy().ravel() == pytest.approx(values)
    for name, share in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        assert found[name] == pytest.approx(np.quantile(values, share, method="lower"))


# what is not a number, and what does not vary


def test_what_is_not_a_number_gives_figures_that_are_not():
    rows = messy()
    rows[3, 1] = math.nan
    found = measures(covariance(rows), second(rows), ROWS)
    assert all(math.isnan(value) for value in found.values())


def test_a_constant_cloud_is_no_error():
    rows = torch.ones(ROWS, 3, dtype=torch.double)
    found = measures(covariance(rows), second(rows), ROWS)
    assert found["dead_share"] == 1
    assert found["rank_me"] == pytest.approx(1, abs=1e-6)
    assert math.isnan(found["effective_rank"])


# the states


def fed(teacher=True, parts=7) -> Moments:
    rows, taught = messy(), gaussian(ROWS, 6, seed=8)
    moments = Moments(FULL, 6 if teacher else 0)
    for x, y in zip(rows.split(parts), taught.split(parts), strict=True):
        moments.update(x, y if teacher else None)
    return moments


def test_moments_of_batches_are_those_of_the_whole_at_every_width():
    found, rows, taught = fed().compute().measures(DIMS), messy(), gaussian(ROWS, 6, seed=8)
    for dim in DIMS:
        own = rows[:, :dim]
        expected = measures(covariance(own), second(own), ROWS)
        assert {name: found[f"{name}/d{dim}"] for name in expected} == pytest.approx(
            expected, rel=1e-9
        )
        joint = covariance(torch.cat([own, taught], dim=1))
        assert found[f"teacher_cka/d{dim}"] == pytest.approx(float(linear_cka(joint, dim)))
    assert len(found) == len(DIMS) * 11
    assert fed().compute().rows == ROWS


def test_a_leading_block_is_the_truncated_cloud():
    whole = fed().compute().measures(DIMS)
    alone = Moments(5)
    alone.update(messy()[:, :5])
    for name, value in alone.compute().measures([5]).items():
        assert whole[name] == pytest.approx(value, rel=1e-9)


def test_a_mean_far_from_the_origin_costs_no_digit_that_matters():
    rows = unit(gaussian(20_000, 8) * 1e-3 + 1)  # a narrow cone, as of an untrained model
    moments = Moments(8)
    for part in rows.split(64):
        moments.update(part)
    expected = measures(covariance(rows), second(rows), len(rows))
    assert moments.compute().measures([8])["effective_rank/d8"] == pytest.approx(
        expected["effective_rank"], rel=1e-6
    )


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
    found, kept = spread.compute(), torch.cat([rows[:27], others[:27]])
    for dim in DIMS:
        assert found[f"mean_cosine/d{dim}"] == pytest.approx(
            float(mean_cosine(torch.cat([rows, others])[:, :dim]))
        )
        assert found[f"alignment/d{dim}"] == pytest.approx(
            float(alignment(rows[:, :dim], others[:, :dim]))
        )
        assert found[f"uniformity/d{dim}"] == pytest.approx(float(uniformity(kept[:, :dim])))
