"""Second moments equal numpy's and scikit-learn's, and known clouds show what they must."""

import numpy as np
import pytest
import torch
from references import gaussian, rotation
from sklearn.decomposition import PCA

from mic.errors import InputError
from mic.evaluation.scoring import fit_pca
from mic.metrics.geometry import covariance, cross_correlation, rms

FULL = 6


def cloud_of(wanted, rows=40):
    """Rows whose mean is zero and whose covariance is `wanted`, exactly."""
    directions = torch.cat([torch.ones(rows, 1), gaussian(rows, len(wanted))], dim=1)
    white = torch.linalg.qr(directions.double()).Q[:, 1:] * rows**0.5
    return white @ torch.linalg.cholesky(wanted).T


def mixed(rows, seed=0):
    return gaussian(rows, FULL, seed=seed) @ gaussian(FULL, FULL, seed=9) + 5


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_covariance_is_numpys_and_in_double_precision(dtype, rtol):
    rows = mixed(30)
    actual = covariance(rows.to(dtype))
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual, np.cov(rows.numpy(), rowvar=False, bias=True), rtol=rtol)


@pytest.mark.parametrize("d", range(1, FULL))
def test_the_cross_correlation_is_the_block_of_numpys(d):
    rows = mixed(30)
    actual = cross_correlation(covariance(rows), d)
    np.testing.assert_allclose(actual, np.corrcoef(rows.numpy(), rowvar=False)[:d, d:], atol=1e-12)


def test_a_cloud_of_known_covariance_shows_it():
    wanted = torch.tensor([[4.0, 2.0, 0.0], [2.0, 9.0, -3.0], [0.0, -3.0, 16.0]]).double()
    actual = covariance(cloud_of(wanted) + 7)
    torch.testing.assert_close(actual, wanted)
    first = torch.tensor([[1 / 3, 0.0]]).double()
    torch.testing.assert_close(cross_correlation(actual, 1), first)
    two = torch.tensor([[0.0], [-1 / 4]]).double()
    torch.testing.assert_close(cross_correlation(actual, 2), two)


def test_a_copy_of_a_coordinate_correlates_fully_whatever_its_sign_scale_and_shift():
    rows = mixed(30)[:, :2]
    actual = cross_correlation(covariance(torch.cat([rows, 3 - 0.01 * rows], dim=1)), 2)
    torch.testing.assert_close(actual.diagonal(), -torch.ones(2).double())


@pytest.mark.parametrize("value", [0.0, 0.7, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_coordinate_correlates_with_nothing(value, dtype):
    rows = mixed(30).to(dtype)
    rows[:, 1] = rows[:, 4] = value
    actual = cross_correlation(covariance(rows), 3)
    assert actual.isfinite().all()
    torch.testing.assert_close(actual[1], torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(actual[:, 1], torch.zeros(3).double(), rtol=0, atol=1e-5)
    assert actual[0, 0].abs() > 0.01


def test_the_cross_correlation_ignores_the_scale_and_shift_of_every_coordinate():
    rows = mixed(30)
    scales = gaussian(FULL, seed=1).exp()
    moved = cross_correlation(covariance(rows * scales + 100 * gaussian(FULL, seed=2)), 3)
    torch.testing.assert_close(moved, cross_correlation(covariance(rows), 3))


@pytest.mark.parametrize("count", [20, 200])
def test_independent_coordinates_show_the_noise_of_their_number_of_rows(count):
    actual = cross_correlation(covariance(gaussian(count, 400)), 200)
    assert rms(actual) == pytest.approx((count - 1) ** -0.5, rel=0.02)


def test_rms_is_the_root_of_the_mean_square():
    assert rms(torch.tensor([[3.0, -4.0], [0.0, 0.0]])) == 2.5


def test_one_row_has_no_covariance():
    with pytest.raises(InputError, match=r"1 row.* 2"):
        covariance(gaussian(1, FULL))


# Principal components


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_projection_is_scikit_learns_on_unit_rows_but_for_signs_and_length(dtype, atol):
    fitted_on, others = mixed(50), mixed(8, seed=3)
    actual = fit_pca(fitted_on.to(dtype))(others.to(dtype))
    assert actual.dtype == dtype
    units = [(x / x.norm(dim=1, keepdim=True)).numpy() for x in (fitted_on, others)]
    expected = torch.from_numpy(PCA().fit(units[0]).transform(units[1]))
    expected *= fitted_on.norm(dim=1).mean()  # as long as the embeddings were
    signs = (actual.double() * expected).sum(0).sign()
    torch.testing.assert_close(actual.double() * signs, expected, rtol=0, atol=atol)


def test_its_coordinates_are_uncorrelated_with_falling_variances():
    rows = mixed(50)
    actual = covariance(fit_pca(rows)(rows))
    variances = actual.diagonal()
    assert (variances[:-1] >= variances[1:]).all()
    assert variances[0] > 2 * variances[-1]
    torch.testing.assert_close(actual, variances.diag(), rtol=0, atol=1e-12)


def test_it_ignores_rotations_and_the_lengths_of_single_rows():
    rows, turn = mixed(50), rotation(FULL)
    lengths = gaussian(50, 1, seed=2).exp()
    longer = rows @ turn * lengths
    plain = fit_pca(rows)(rows) / rows.norm(dim=1).mean()
    moved = fit_pca(longer)(rows @ turn) / longer.norm(dim=1).mean()
    torch.testing.assert_close(moved * (moved * plain).sum(0).sign(), plain)


def test_directions_that_the_fitted_rows_lack_do_not_depend_on_their_rounding():
    fitted_on = (gaussian(30, 3) @ gaussian(3, FULL, seed=1)).float()
    rounded = fitted_on * (1 + 1e-7 * gaussian(30, FULL, seed=2).clamp(-1, 1)).float()
    others = gaussian(20, FULL, seed=3).float()
    actual, again = (fit_pca(rows)(others) for rows in (fitted_on, rounded))
    torch.testing.assert_close(actual.abs(), again.abs(), rtol=0, atol=1e-5)
    moved = (others / others.norm(dim=1, keepdim=True)).double()
    moved -= (fitted_on / fitted_on.norm(dim=1, keepdim=True)).double().mean(0)
    expected = (moved.norm(dim=1) * fitted_on.norm(dim=1).mean()).float()  # it only turns rows
    torch.testing.assert_close(actual.norm(dim=1), expected)


@pytest.mark.parametrize("count", [2, 4])
def test_fewer_rows_than_coordinates_leave_the_last_ones_empty(count):
    rows = mixed(count)
    actual = fit_pca(rows)(rows)
    assert actual.isfinite().all()
    torch.testing.assert_close(
        actual[:, count - 1 :], torch.zeros(count, FULL - count + 1).double()
    )
