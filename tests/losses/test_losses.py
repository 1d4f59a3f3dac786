"""What the pure losses claim: they equal their formulas, keep the invariances, stay finite."""

import math
from functools import partial

import jaxtyping
import pytest
import references
import torch
from references import DEGENERATE, MASKS, WIDTH, cloud, gaussian, rotation, simplex, tokens

from mic.losses import (
    nested_infonce,
    soft_collapse,
    soft_collapse_terms,
    spectral_isotropy,
    spectral_isotropy_terms,
)
from mic.losses.spectral_isotropy import spectral_variation

DIMS = [1, 2, 3, 5, WIDTH]
NESTINGS = [[1], [WIDTH], [3, 5], DIMS, list(range(1, WIDTH + 1))]
LOSSES = {
    "infonce": nested_infonce,
    "collapse-mean": lambda x, dims: soft_collapse(x, MASKS["holes"], dims, variance_weight=1.0),
    "collapse-per_dim": lambda x, dims: soft_collapse(
        x, MASKS["holes"], dims, variance_weight=1.0, variance_floor="per_dim"
    ),
    "isotropy-coordinate": spectral_isotropy,
    "isotropy-eigen": partial(spectral_isotropy, isotropy="eigen"),
}

every_nesting = pytest.mark.parametrize("dims", NESTINGS, ids=str)
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
every_floor = pytest.mark.parametrize("floor", ["mean", "per_dim"])
every_isotropy = pytest.mark.parametrize("isotropy", ["coordinate", "eigen"])
every_loss = pytest.mark.parametrize("name", LOSSES)


def inputs(name):
    if name == "infonce":
        return cloud(4), cloud(6, seed=1)
    return (tokens(4),) if name.startswith("collapse") else (cloud(5),)


def correlation(hidden, dims=DIMS, floor="mean"):
    options = {"threshold": 0.1, "variance_floor": floor}
    return soft_collapse_terms(hidden, MASKS["holes"], dims, **options)["correlation"]


def spread(pooled, isotropy, dims=DIMS):
    return spectral_isotropy_terms(pooled, dims, t=2.0, isotropy=isotropy)["cv"]


def uniformity(pooled, d, t):
    return spectral_isotropy_terms(pooled, [d], t=t, isotropy="coordinate")["uniformity"][d].item()


def assert_same(actual, expected, rtol=1e-6, atol=1e-8):
    assert list(actual) == list(expected)
    assert all(value.shape == () for value in actual.values())
    for d, value in expected.items():
        assert actual[d].item() == pytest.approx(float(value), rel=rtol, abs=atol), f"width {d}"


# Formulas, padding, short sequences


@every_nesting
@pytest.mark.parametrize(("batch", "n", "temperature"), [(2, 2, 0.05), (3, 7, 0.05), (5, 5, 1.0)])
def test_infonce_equals_its_formula(dims, batch, n, temperature):
    q, k = cloud(batch), cloud(n, seed=1)
    expected = {d: references.infonce(q, k, d, temperature) for d in dims}
    assert_same(nested_infonce(q, k, dims, temperature=temperature), expected)


@every_mask
@every_nesting
@every_floor
@pytest.mark.parametrize(
    ("threshold", "weight", "dtype"),
    [(0.0, 0.1, torch.bool), (0.1, 1.0, torch.int32), (0.5, 0.0, torch.int64)],
)
def test_soft_collapse_equals_its_formula(mask, dims, threshold, weight, floor, dtype):
    hidden, mask = tokens(len(mask)), mask.to(dtype)
    below = [d for d in dims if d < WIDTH]
    corr = {d: references.correlation(hidden, mask, d, threshold) for d in below}
    var = {d: references.variance(hidden, mask, d, floor) for d in below}
    options = {"threshold": threshold, "variance_floor": floor}
    terms = soft_collapse_terms(hidden, mask, dims, **options)
    assert_same(terms["correlation"], corr)
    assert_same(terms["variance"], var)
    whole = soft_collapse(hidden, mask, dims, variance_weight=weight, **options)
    assert_same(whole, {d: corr[d] + weight * var[d] for d in below})


@every_nesting
@every_isotropy
@pytest.mark.parametrize(("batch", "t"), [(2, 2.0), (3, 2.0), (7, 0.5)])
def test_spectral_isotropy_equals_its_formula(dims, batch, t, isotropy):
    pooled = cloud(batch)
    cv = {d: getattr(references, f"{isotropy}_cv")(pooled, d) for d in dims}
    unif = {d: references.uniformity(pooled, d, t) for d in dims}
    terms = spectral_isotropy_terms(pooled, dims, t=t, isotropy=isotropy)
    assert_same(terms["cv"], cv)
    assert_same(terms["uniformity"], unif)
    whole = spectral_isotropy(pooled, dims, t=t, isotropy=isotropy)
    assert_same(whole, {d: (cv[d] + unif[d]) / 2 for d in dims})


def test_the_defaults_are_those_of_the_design():
    q, k, hidden, mask = cloud(4), cloud(4, seed=1), tokens(4), MASKS["holes"]
    assert_same(nested_infonce(q, k, DIMS), nested_infonce(q, k, DIMS, temperature=0.05))
    collapse = {"threshold": 0.1, "variance_weight": 0.1, "variance_floor": "mean"}
    assert_same(soft_collapse(hidden, mask, DIMS), soft_collapse(hidden, mask, DIMS, **collapse))
    isotropy = {"t": 2.0, "isotropy": "coordinate"}
    assert_same(spectral_isotropy(q, DIMS), spectral_isotropy(q, DIMS, **isotropy))


@every_mask
@every_floor
@pytest.mark.parametrize("garbage", [1e3, math.inf, math.nan])
def test_soft_collapse_sees_no_padding_whatever_it_holds(mask, floor, garbage):
    clean = tokens(len(mask))
    clean_values = soft_collapse(clean, mask, DIMS, variance_floor=floor)
    dirty = clean.masked_fill(~mask[..., None], garbage).requires_grad_()
    values = soft_collapse(dirty, mask, DIMS, variance_floor=floor)
    assert_same(values, clean_values, rtol=1e-12)
    sum(values.values()).backward()
    assert dirty.grad.isfinite().all()
    assert not dirty.grad[~mask].any()


@every_floor
def test_a_batch_of_short_sequences_has_no_loss_and_no_gradient(floor):
    hidden = tokens(3).requires_grad_()
    values = soft_collapse(hidden, MASKS["only short ones"], DIMS, variance_floor=floor)
    assert values == dict.fromkeys(DIMS[:-1], 0.0)
    sum(values.values()).backward()
    assert not hidden.grad.any()


# Gradients and precision


@every_loss
def test_gradients_are_those_of_finite_differences(name):
    leaves = [x.requires_grad_() for x in inputs(name)]
    assert torch.autograd.gradcheck(lambda *xs: tuple(LOSSES[name](*xs, DIMS).values()), leaves)


@every_loss
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_single_precision_agrees_with_double_even_far_from_zero(name, offset):
    single = [x.float() + offset for x in inputs(name)]
    double = LOSSES[name](*[x.double() for x in single], DIMS)
    assert_same(LOSSES[name](*single, DIMS), double, rtol=1e-4, atol=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_and_autocast_leave_the_arithmetic_in_single(name, dtype, autocast):
    rounded = [x.to(dtype) for x in inputs(name)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = LOSSES[name](*rounded, DIMS)
    assert all(value.dtype == torch.float32 for value in values.values())
    assert_same(values, LOSSES[name](*[x.float() for x in rounded], DIMS), atol=1e-6)


@every_loss
@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_inputs_give_finite_values_and_gradients(name, degenerate, dtype):
    leaves = [DEGENERATE[degenerate](x).to(dtype).requires_grad_() for x in inputs(name)]
    values = LOSSES[name](*leaves, DIMS)
    assert all(value.isfinite() for value in values.values())
    sum(values.values()).backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


# Invariances and known values


@every_loss
def test_a_width_depends_neither_on_other_widths_nor_on_the_order_within_a_band(name):
    nested = LOSSES[name](*inputs(name), DIMS)
    assert_same({d: LOSSES[name](*inputs(name), [d])[d] for d in nested}, nested)
    within_bands = [0, 1, 2, 4, 3, 7, 5, 6]
    assert_same(LOSSES[name](*[x[..., within_bands] for x in inputs(name)], DIMS), nested)


@pytest.mark.parametrize("name", ["infonce", "isotropy-coordinate", "isotropy-eigen"])
@pytest.mark.parametrize("d", DIMS)
def test_a_prefix_loss_is_the_loss_of_the_truncated_and_ignores_the_residual(name, d):
    nested = {d: LOSSES[name](*inputs(name), DIMS)[d]}
    turn = torch.block_diag(torch.eye(d), rotation(WIDTH - d)).double()
    assert_same(LOSSES[name](*[x[:, :d] for x in inputs(name)], [d]), nested)
    assert_same(LOSSES[name](*[x @ turn for x in inputs(name)], [d]), nested)


@pytest.mark.parametrize("d", DIMS)
def test_infonce_ignores_rotations_of_the_prefix_and_the_length_of_rows(d):
    q, k = inputs("infonce")
    turn = torch.block_diag(rotation(d), rotation(WIDTH - d))
    lengths = gaussian(len(k), 1, seed=3).exp()
    turned = nested_infonce(q @ turn * lengths[: len(q)], k @ turn * lengths, [d])
    assert_same(turned, nested_infonce(q, k, [d]))


def test_correlation_ignores_scales_signs_and_shifts_of_coordinates_and_the_order_of_sequences():
    hidden, mask = gaussian(4, 6, WIDTH), MASKS["holes"]
    signed = gaussian(WIDTH, seed=1).sign() * gaussian(WIDTH, seed=2).exp()
    assert signed.sign().unique().tolist() == [-1, 1]
    moved = hidden * signed + 10 * gaussian(4, 1, WIDTH, seed=3)
    assert_same(correlation(moved), correlation(hidden))
    order = [2, 0, 3, 1]
    assert_same(soft_collapse(hidden[order], mask[order], DIMS), soft_collapse(hidden, mask, DIMS))


def test_only_the_eigen_spread_sees_an_anisotropy_that_a_rotation_hides():
    pooled = gaussian(64, WIDTH) * torch.logspace(0, -2, WIDTH)
    hadamard = torch.tensor([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)])
    hidden = pooled @ (hadamard / math.sqrt(8)).double()
    assert_same(spread(hidden, "eigen", [WIDTH]), spread(pooled, "eigen", [WIDTH]))
    assert spread(hidden, "coordinate")[WIDTH] < 0.3 * spread(pooled, "coordinate")[WIDTH]


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_least_on_a_regular_simplex(d, t):
    least = uniformity(simplex(d), d, t)
    assert least == pytest.approx(-2 * t * (1 + 1 / d))
    for seed in range(20 * (d > 1)):  # two points on a line have no smaller perturbation
        noise = gaussian(d + 1, d, seed=seed)
        assert uniformity(noise, d, t) > least
        assert uniformity(simplex(d) + 0.05 * noise, d, t) > least


@pytest.mark.parametrize("batch", [16, 64])
def test_isotropic_noise_leaves_the_coordinate_spread_that_its_batch_size_explains(batch):
    noise = gaussian(batch, 20_000)
    expected = math.sqrt(2 / (batch - 1))
    assert spread(noise, "coordinate", [20_000])[20_000].item() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("batch", [4, 16])
def test_isotropic_noise_has_no_eigen_spread_on_average(batch):
    dims = [2, 5, 16]
    draws = [spectral_variation(gaussian(batch, 16, seed=s), dims, "eigen") for s in range(500)]
    for d in dims:
        values = torch.stack([draw[d] for draw in draws])
        error = values.std() / math.sqrt(len(values))
        assert values.mean().abs() < 3 * error
        assert error < 0.05 * (d - 1) * (d + 2) / (d * (batch - 1) + 2)  # sharp enough to tell


@pytest.mark.parametrize("n", [4, 9])
def test_infonce_of_indistinguishable_rows_is_log_n_and_of_separated_ones_zero(n):
    same = gaussian(1, WIDTH).expand(n, WIDTH)
    assert_same(nested_infonce(same[:4], same, DIMS), dict.fromkeys(DIMS, math.log(n)))
    apart = simplex(WIDTH)[:n]
    assert_same(nested_infonce(apart, apart, [WIDTH], temperature=0.01), {WIDTH: 0.0})


# Errors name the value and the cure


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ([6, 3], r"dims \[6, 3\]: widths must increase; did you mean \[3, 6\]\?"),
        ([3, 3], r"dims \[3, 3\]: widths must increase; did you mean \[3\]\?"),
        ([0, 3], r"\[0, 3\].* width 0 .*1"),
        ([-2, 3], r"\[-2, 3\].* width -2 .*1"),
        ([3, 9], r"\[3, 9\].* width 9 .*8"),
        ([], r"dims \[\]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [*LOSSES, "collapse-terms", "isotropy-terms"])
def test_impossible_widths_are_refused(name, dims, says):
    terms = {"collapse-terms": correlation, "isotropy-terms": partial(spread, isotropy="eigen")}
    with pytest.raises(ValueError, match=says):
        (LOSSES | terms)[name](*inputs(name), dims=dims)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nested_infonce(cloud(5), cloud(3), DIMS), "3 keys .*5 queries"),
        (lambda: spectral_isotropy(cloud(1), DIMS), "1 row.* 2"),
        (lambda: spread(cloud(5), "pca"), "isotropy 'pca'.*coordinate.*eigen"),
        (lambda: correlation(tokens(4), floor="low"), "variance_floor 'low'.*mean.*per_dim"),
    ],
)
def test_impossible_batches_and_switches_are_refused(call, says, monkeypatch):
    # as a user meets them: without the tests' own type checker, which would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        call()
