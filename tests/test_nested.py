"""Values at every width at once equal those of each width on its own."""

import pytest
import torch
from references import gaussian

from mic.errors import InputError
from mic.nested import (
    check_dims,
    cosines,
    paired_cosines,
    prefix,
    prefix_norms,
    residual,
    segment_sums,
    unit,
    with_full,
)

FULL = 7
NESTINGS = [[1], [FULL], [2, 5], [1, 3, 4, FULL], list(range(1, FULL + 1))]

every_nesting = pytest.mark.parametrize("dims", NESTINGS, ids=str)
every_dtype = pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)]
)


def truncated(x, d):
    """The rows cut to `d`, then scaled to length 1, in fp64."""
    cut = x[:, :d].double()
    return cut / cut.norm(dim=1, keepdim=True)


def assert_close(actual, expected, atol, dtype):
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=atol)


@every_nesting
@every_dtype
def test_cosines_are_those_of_the_truncated_rows(dims, dtype, atol):
    a, b = gaussian(4, FULL).to(dtype), gaussian(6, FULL, seed=1).to(dtype)
    actual = dict(cosines(a, b, dims))
    assert list(actual) == dims
    for d, cosine in actual.items():
        assert_close(cosine, truncated(a, d) @ truncated(b, d).T, atol, dtype)


@every_nesting
@every_dtype
def test_paired_cosines_are_the_diagonal_of_the_cosines(dims, dtype, atol):
    a, b = gaussian(5, FULL).to(dtype), gaussian(5, FULL, seed=1).to(dtype)
    actual = paired_cosines(a, b, dims)
    assert list(actual) == dims
    for d, cosine in actual.items():
        assert_close(cosine, (truncated(a, d) * truncated(b, d)).sum(1), atol, dtype)


@every_nesting
@every_dtype
def test_prefix_norms_are_the_lengths_of_the_truncated_rows(dims, dtype, atol):
    x = gaussian(5, FULL).to(dtype)
    for d, norm in zip(dims, prefix_norms(x, dims), strict=True):
        assert_close(norm, x[:, :d].double().norm(dim=1), atol, dtype)


@pytest.mark.parametrize("dims", [dims for dims in NESTINGS if dims[-1] == FULL], ids=str)
def test_segment_sums_are_those_of_the_blocks_between_the_widths(dims):
    x = gaussian(FULL, FULL)
    actual = segment_sums(x, dims)
    assert actual.shape == (len(dims), len(dims))
    edges = [0, *dims]
    for i in range(len(dims)):
        for j in range(len(dims)):
            block = x[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            assert actual[i, j].item() == pytest.approx(block.sum().item())
    for k, d in enumerate(dims, 1):
        assert actual[:k, k:].sum().item() == pytest.approx(x[:d, d:].sum().item())


@pytest.mark.parametrize("shape", [(FULL,), (3, FULL), (2, 3, FULL)], ids=str)
def test_a_prefix_and_its_residual_are_the_whole_and_views_of_it(shape):
    x = gaussian(*shape)
    for d in range(1, FULL + 1):
        assert prefix(x, d).shape[-1] == d
        assert torch.equal(torch.cat([prefix(x, d), residual(x, d)], dim=-1), x)
        assert prefix(x, d).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
@every_dtype
def test_unit_keeps_the_direction_and_sets_the_length(length, dtype, atol):
    x = (length * gaussian(2, 3, FULL)).to(dtype)
    expected = x.double() / x.double().norm(dim=-1, keepdim=True)
    assert_close(unit(x), expected, atol, dtype)
    torch.testing.assert_close(unit(x).norm(dim=-1), torch.ones(2, 3, dtype=dtype))


def test_normalising_before_truncating_is_another_embedding():
    x = gaussian(3, FULL)
    assert not torch.allclose(prefix(unit(x), 2), unit(prefix(x, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_zeros_is_at_a_right_angle_to_every_row_and_has_a_finite_gradient(dtype):
    zero = torch.zeros(1, FULL, dtype=dtype, requires_grad=True)
    other = gaussian(3, FULL).to(dtype)
    across = dict(cosines(zero, other, [1, FULL]))
    paired = paired_cosines(zero, other[:1], [1, FULL])
    for values in (*across.values(), *paired.values(), unit(zero)):
        assert not values.any()
    sum(values.sum() for values in (*across.values(), *paired.values(), unit(zero))).backward()
    assert zero.grad.isfinite().all()


# Widths


@pytest.mark.parametrize("dims", [*NESTINGS, (2, 5), range(1, 4)], ids=str)
def test_widths_that_increase_from_1_to_the_full_one_pass(dims):
    assert check_dims(dims, FULL) == tuple(dims)


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ([], r"dims \[\]: give at least one width, for example \[7\]"),
        ([5, 2], r"dims \[5, 2\]: widths must increase; did you mean \[2, 5\]\?"),
        ([2, 5, 2], r"dims \[2, 5, 2\]: widths must increase; did you mean \[2, 5\]\?"),
        ([0, 5], r"dims \[0, 5\]: width 0 is below 1; remove it"),
        ([2, 8], r"dims \[2, 8\]: width 8 is above the embedding's 7; remove it"),
    ],
    ids=str,
)
def test_other_widths_are_refused_with_a_cure(dims, says):
    with pytest.raises(InputError, match=says):
        check_dims(dims, FULL)


@pytest.mark.parametrize(
    ("dims", "whole"), [([], (7,)), ([2, 5], (2, 5, 7)), ([2, 7], (2, 7)), ([7], (7,))], ids=str
)
def test_the_full_width_is_put_last_and_only_once(dims, whole):
    assert with_full(dims, FULL) == whole


@pytest.mark.parametrize("dims", [[5, 2], [2, 8], [0]], ids=str)
def test_putting_the_full_width_last_refuses_what_checking_refuses(dims):
    with pytest.raises(InputError, match="dims"):
        with_full(dims, FULL)
