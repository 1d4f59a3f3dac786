"""Sketched isotropic Gaussian regularization (SIGReg) of every prefix: a generic baseline."""

from collections.abc import Sequence
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, prefix, unit

SKETCHES = 256  # random directions at every width
REACH, POINTS = 5.0, 9  # of the 17 points of [-5, 5] those at 0 and above: the integrand is even


def sigreg(pooled: Float[Tensor, "batch dim"], dims: Sequence[int], *, seed: int = 0) -> PerWidth:
    """Sketched isotropic Gaussian regularization (SIGReg): prefixes distributed as N(0, I).

    `L(d) = mean_a N int |phi_a(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt` over 256 random unit
    directions a of R^d, with `phi_a(t) = mean_n exp(i t a.x_n)` the characteristic function of the
    N projected prefixes: the statistic of Epps and Pulley, by the trapezoid rule on 17 points in
    [-5, 5]. N standard Gaussian rows have sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.06 on average, whatever
    N; other rows grow with N, those all at the origin as 0.41 N. Not scale-free: rows of length 1
    are far from N(0, I).

    Source: Balestriero and LeCun 2025 (LeJEPA, arXiv 2511.08544), section 4 and algorithm 1. The
    paper draws new directions at every step: give the step as `seed`.

    Raises ValueError for no rows and for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, pooled.shape[1])
    return epps_pulley(sketch_sums(pooled, dims, seed), len(pooled), dims)


@full_precision
def sketch_sums(
    rows: Float[Tensor, "rows dim"], dims: Sequence[int], seed: int
) -> Float[Tensor, "widths 2 sketches points"]:
    """Sums over `rows` of cos(t x) and sin(t x), x the projections of a prefix, at every width.

    Ranks add these sums up.
    """
    points, _ = quadrature(rows)

    def waves(projections: Tensor) -> Tensor:
        # point by point: rows x sketches x points at once would be the largest tensor of a step
        angles = (projections * point for point in points)
        return torch.stack([torch.stack([x.cos().sum(0), x.sin().sum(0)]) for x in angles], -1)

    return torch.stack(
        [
            waves(prefix(rows, dim) @ directions(seed, dim, rows).T)
            for dim in check_dims(dims, rows.shape[1])
        ]
    )


@full_precision
def epps_pulley(
    sums: Float[Tensor, "widths 2 sketches points"], count: int, dims: Sequence[int]
) -> PerWidth:
    """The statistic at every width, averaged over directions, from the sums over `count` rows."""
    if count < 1:
        raise InputError(f"{count} rows: a distribution needs at least 1; batch more")
    points, weights = quadrature(sums)
    normal = torch.exp(-points.square() / 2)
    real, imaginary = (sums / count).unbind(1)
    distances = (real - normal).square() + imaginary.square()
    statistics = count * (distances @ (weights * normal)).mean(-1)
    return dict(zip(dims, statistics, strict=True))


def directions(seed: int, dim: int, like: Tensor) -> Float[Tensor, "sketches dim"]:
    """Random unit vectors of R^dim in the dtype and on the device of `like`.

    A function of the seed and the width alone, so that every rank and device has the same.
    """
    # a digest of both, because the generator keeps no more than 32 bits of its seed
    generator = torch.Generator().manual_seed(crc32(f"{seed} {dim}".encode()))
    drawn = torch.randn(SKETCHES, dim, generator=generator, dtype=torch.float32)
    return unit(drawn.to(like))


def quadrature(like: Tensor) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """The points t >= 0 of the trapezoid rule on [-5, 5] and their weights, mirror images added."""
    points = torch.linspace(0, REACH, POINTS, dtype=like.dtype, device=like.device)
    step = REACH / (POINTS - 1)
    weights = torch.full_like(points, 2 * step)
    weights[0] = weights[-1] = step  # 0 has no mirror image, and the ends count half
    return points, weights
