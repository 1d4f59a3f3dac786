"""Spectral Isotropy Regularization (SIR): the prefix must fill its space."""

from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mic.errors import InputError, check_choice
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, chunked, cosines, prefix, segment_sums

DIVISION_FLOOR = 1e-12
TINY = 1e-36  # about the square of what fp32 can still divide by

Isotropy = Literal["coordinate", "eigen"]


def spectral_isotropy(
    pooled: Float[Tensor, "batch dim"],
    dims: Sequence[int],
    *,
    t: float = 2.0,
    isotropy: Isotropy = "coordinate",
) -> PerWidth:
    """Spectral Isotropy Regularization (SIR): the prefix must fill its space.

    `L_SIR(d) = (L_cv(d) + L_unif(d)) / 2`, the terms being those of `spectral_isotropy_terms`.
    Often negative.

    Source: L_SIR of MIC. Raises ValueError as `spectral_isotropy_terms` does.
    """
    terms = spectral_isotropy_terms(pooled, dims, t=t, isotropy=isotropy)
    return {dim: (cv + terms["uniformity"][dim]) / 2 for dim, cv in terms["cv"].items()}


@full_precision
def spectral_isotropy_terms(
    pooled: Float[Tensor, "batch dim"],
    dims: Sequence[int],
    *,
    t: float = 2.0,
    isotropy: Isotropy = "coordinate",
) -> dict[str, PerWidth]:
    """The two terms of SIR, unweighted: {"cv": {d: scalar}, "uniformity": {d: scalar}}.

    `L_cv(d)`, coordinate: the (population) standard deviation over the mean of the coordinates'
    variances over the batch. Isotropic data of B rows still give sqrt(2 / (B - 1)). It cannot see
    correlated coordinates; "eigen" can: `d * |S|_F^2 / tr(S)^2 - 1` is the squared coefficient of
    variation of the eigenvalues of the covariance S, here less the value that isotropic Gaussian
    data of B rows give on average, so that 0 means as isotropic as a sample of B can show.

    `L_unif(d) = log mean_{i != j} exp(-2 t (1 - cos_ij))` (Wang and Isola 2020, section 4.1.2): 0
    when all prefixes point one way, about -4 when they spread over a sphere of many dimensions.

    Raises ValueError for fewer than 2 rows, widths that do not increase or exceed D, or an unknown
    `isotropy`.
    """
    dims = check_dims(dims, pooled.shape[1])
    positions = torch.arange(len(pooled), device=pooled.device)
    variation = spectral_variation(pooled, dims, isotropy)
    return {
        "cv": variation,
        "uniformity": uniformity_from_sums(
            potential_sums(pooled, pooled, positions, dims, t), len(pooled), dims
        ),
    }


@full_precision
def spectral_variation(
    pooled: Float[Tensor, "batch dim"], dims: Sequence[int], isotropy: Isotropy
) -> PerWidth:
    """`L_cv` at every width, of coordinates or of eigenvalues."""
    check_choice("isotropy", isotropy, get_args(Isotropy))
    if len(pooled) < 2:
        raise InputError(f"{len(pooled)} row: isotropy is a property of at least 2; batch more")
    centred = pooled - pooled.mean(0)
    variation = coordinate_variation if isotropy == "coordinate" else eigenvalue_variation
    return variation(centred, dims)


@full_precision
def potential_sums(
    rows: Float[Tensor, "rows dim"],
    all_rows: Float[Tensor, "all_rows dim"],
    positions: Int[Tensor, " rows"],
    dims: Sequence[int],
    t: float,
) -> Float[Tensor, " widths"]:
    """Gaussian potentials of `rows` with all other rows of `all_rows`, summed, at every width.

    `positions` says where in `all_rows` the rows themselves stand. Ranks add these sums up.
    """

    def sums(rows: Tensor, positions: Tensor) -> Tensor:
        itself = positions[:, None]

        def pairs(scores: Tensor) -> Tensor:
            potential = torch.exp(scores - 2 * t)
            return potential.sum() - potential.gather(1, itself).sum()

        return torch.stack(
            [pairs(scores) for _, scores in cosines(rows, all_rows, dims, scale=2 * t)]
        )

    return chunked(sums, len(dims) * len(all_rows), rows, positions)


def uniformity_from_sums(
    sums: Float[Tensor, " widths"], count: int, dims: Sequence[int]
) -> PerWidth:
    """`L_unif` at every width from the potentials summed over `count` rows."""
    logs = torch.log(sums / (count * (count - 1)) + DIVISION_FLOOR)
    return dict(zip(dims, logs, strict=True))


def coordinate_variation(centred: Float[Tensor, "batch dim"], dims: Sequence[int]) -> PerWidth:
    """The coefficient of variation of the coordinates' variances at every width."""
    variances = centred.square().mean(0)

    def variation(v: Tensor) -> Tensor:
        # a square root has no gradient at 0, which is where equal variances are
        spread = (v - v.mean()).square().mean()
        return spread.clamp_min(TINY).sqrt() / (v.mean() + DIVISION_FLOOR)

    return {dim: variation(prefix(variances, dim)) for dim in dims}


def eigenvalue_variation(centred: Float[Tensor, "batch dim"], dims: Sequence[int]) -> PerWidth:
    """CV(eigenvalues)^2 of the covariance at every width, less its expectation under isotropy.

    Needs no eigenvalues: their sum is the trace and their sum of squares the Frobenius norm. The
    expectation is that of a Wishart matrix with B - 1 degrees of freedom, exact because the ratio
    does not depend on the trace.
    """
    freedom = len(centred) - 1
    covariance = prefix(centred, dims[-1]).T @ prefix(centred, dims[-1]) / freedom
    squares = segment_sums(covariance.square(), dims)
    traces = accumulate((part.sum() for part in covariance.diagonal().tensor_split(dims[:-1])), add)

    def variation(dim: int, frobenius: Tensor, trace: Tensor) -> Tensor:
        expected = (dim - 1) * (dim + 2) / (dim * freedom + 2)
        return dim * frobenius / trace.square().clamp_min(TINY) - 1 - expected

    return {
        dim: variation(dim, squares[:k, :k].sum(), trace)
        for k, (dim, trace) in enumerate(zip(dims, traces, strict=True), 1)
    }
