"""The MIC losses as pure functions of tensors (arXiv 2605.29987).

Each returns one unweighted scalar per width; weights, sums and schedules are the objective's
business. All statistics are taken in at least fp32 with autocast off: under autocast even
`x.float() @ y.float()` multiplies in bf16, and a correlation of 0.05 drowns in its rounding.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import accumulate
from operator import add
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mic.errors import InputError
from mic.nested import check_dims, cosines, prefix, residual, segment_sums, with_full

VARIANCE_FLOOR = 1e-10  # inside square roots: a deviation far below 1e-5 counts as none
DIVISION_FLOOR = 1e-12
TINY = 1e-36  # about the square of what fp32 can still divide by
SHORTEST = 3  # two tokens standardise to +1 and -1 in every coordinate: no information

Isotropy = Literal["coordinate", "eigen"]
VarianceFloor = Literal["mean", "per_dim"]
PerWidth = dict[int, Tensor]
Mask = Bool[Tensor, "batch length"] | Int[Tensor, "batch length"]

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Run `loss` with autocast off and its floating tensors in at least fp32."""

    def promote(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(torch.promote_types(value.dtype, torch.float32))
        return value

    @wraps(loss)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = [v.device.type for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        with torch.autocast(devices[0], enabled=False):
            return loss(*map(promote, args), **{k: promote(v) for k, v in kwargs.items()})  # type: ignore[arg-type]

    return exact


@full_precision
def nested_infonce(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "keys dim"],
    dims: Sequence[int],
    *,
    temperature: float = 0.05,
) -> PerWidth:
    """Contrast every query with all keys at every width; row i's positive is key i.

    `L(d) = -mean_i log( exp(s_ii) / sum_j exp(s_ij) )`, `s_ij = cos(q_i, k_j) / temperature`, with
    q and k truncated to d, then normalised. Keys beyond the queries' count are hard negatives
    that every query sees. log(keys) means chance, 0 means that every positive stands alone.

    Source: InfoNCE (van den Oord et al. 2018) nested as in Matryoshka representation learning
    (Kusupati et al. 2022, equation 1); L_MRL of MIC.

    Raises ValueError for widths that do not increase or exceed D, and for fewer keys than queries.

    >>> losses = nested_infonce(torch.eye(4), torch.eye(4), [1, 4])
    >>> {dim: round(loss.item(), 4) for dim, loss in losses.items()}
    {1: 1.0397, 4: 0.0}
    """
    dims = check_dims(dims, queries.shape[1])
    if keys.shape[1] != queries.shape[1]:
        raise InputError(
            f"keys of width {keys.shape[1]} for queries of width {queries.shape[1]}: encode both "
            "with the same encoder"
        )
    if len(keys) < len(queries):
        raise InputError(
            f"{len(keys)} keys for {len(queries)} queries: key i is query i's positive, "
            "so give at least as many keys as queries"
        )
    positives = torch.arange(len(queries), device=queries.device)
    return {
        dim: functional.cross_entropy(scores / temperature, positives)
        for dim, scores in cosines(queries, keys, dims)
    }


def soft_collapse(
    hidden: Float[Tensor, "batch length dim"],
    mask: Mask,
    dims: Sequence[int],
    *,
    threshold: float = 0.1,
    variance_weight: float = 0.1,
    variance_floor: VarianceFloor = "mean",
) -> PerWidth:
    """Soft Collapse Regularization (SCR): prefix and residual must not repeat each other.

    `L_SCR(d) = L_corr(d) + variance_weight * L_var(d)` for every d < D; at D there is no residual
    and the width is skipped. The two parts are those of `soft_collapse_terms`.

    Source: L_SCR of MIC. Raises ValueError as `soft_collapse_terms` does.
    """
    terms = soft_collapse_terms(
        hidden, mask, dims, threshold=threshold, variance_floor=variance_floor
    )
    return {
        dim: correlation + variance_weight * terms["variance"][dim]
        for dim, correlation in terms["correlation"].items()
    }


@full_precision
def soft_collapse_terms(
    hidden: Float[Tensor, "batch length dim"],
    mask: Mask,
    dims: Sequence[int],
    *,
    threshold: float = 0.1,
    variance_floor: VarianceFloor = "mean",
) -> dict[str, PerWidth]:
    """The two parts of SCR, unweighted: {"correlation": {d: scalar}, "variance": {d: scalar}}.

    Tokens are standardised per coordinate within their sequence (masked, population variance) to X;
    `C = mean_i (1 / N_i) sum_l X_il X_il^T` over the sequences of at least three tokens.
    `L_corr(d)` is the mean of `max(0, |C_uv| - threshold)^2` over the block u <= d < v.
    `L_var(d) = max(0, 1 - s_prefix) + max(0, 1 - s_residual) / 2` with s the mean
    standard deviation within a sequence over the block's coordinates (`variance_floor="mean"`), or
    the mean of each coordinate's own hinge ("per_dim", as VICReg, Bardes et al. 2022, equation 1).
    Without a sequence of three tokens every value is 0.

    Every block is cut from ONE D x D product. |C| ranges from 0 to 1; independent features still
    give an rms of about 0.1 for 8 sequences of 8-28 tokens: a threshold below that punishes noise.

    Raises ValueError for widths that do not increase or exceed D, or an unknown `variance_floor`.
    """
    full = hidden.shape[-1]
    nested = [dim for dim in check_dims(dims, full) if dim < full]
    check_choice("variance_floor", variance_floor, get_args(VarianceFloor))
    standardised, deviations, counts = standardise(hidden, mask.bool())
    kept = counts >= SHORTEST
    # each kept sequence's part of the batch mean
    share = kept.to(hidden.dtype) / kept.sum().clamp_min(1)
    rows = standardised * (share / counts.clamp_min(1)).sqrt()[:, None, None]
    correlation = rows.flatten(0, 1).T @ rows.flatten(0, 1)
    excess = segment_sums((correlation.abs() - threshold).relu().square(), with_full(nested, full))
    deviation = share @ deviations
    return {
        "correlation": {
            dim: excess[:k, k:].sum() / (dim * (full - dim)) for k, dim in enumerate(nested, 1)
        },
        "variance": {
            dim: (
                variance_hinge(prefix(deviation, dim), variance_floor)
                + variance_hinge(residual(deviation, dim), variance_floor) / 2
            )
            * kept.any()
            for dim in nested
        },
    }


def standardise(
    hidden: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise every coordinate over the valid tokens of its own sequence.

    Returns the standardised tokens (0 at padding) [batch, length, dim], the population standard
    deviations [batch, dim] and the token counts [batch] in the dtype of `hidden`.
    """
    valid = mask[:, :, None]
    counts = mask.sum(1).to(hidden.dtype)
    divisor = counts.clamp_min(1)[:, None]
    # where, not a product: padding may hold anything, NaN included
    mean = torch.where(valid, hidden, 0).sum(1) / divisor
    centred = torch.where(valid, hidden - mean[:, None], 0)
    deviations = (centred.square().sum(1) / divisor + VARIANCE_FLOOR).sqrt()
    return centred / deviations[:, None], deviations, counts


def variance_hinge(deviations: Float[Tensor, " dim"], floor: VarianceFloor) -> Float[Tensor, ""]:
    """How far standard deviations fall below 1: of their mean, or each on its own."""
    if floor == "mean":
        return (1 - deviations.mean()).relu()
    return (1 - deviations).relu().mean()


def spectral_isotropy(
    pooled: Float[Tensor, "batch dim"],
    dims: Sequence[int],
    *,
    t: float = 2.0,
    isotropy: Isotropy = "coordinate",
) -> PerWidth:
    """Spectral Isotropy Regularization (SIR): the prefix must fill its space.

    `L_SIR(d) = (L_cv(d) + L_unif(d)) / 2`, the parts being those of `spectral_isotropy_terms`.
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
    """The two parts of SIR, unweighted: {"cv": {d: scalar}, "uniformity": {d: scalar}}.

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
    check_choice("isotropy", isotropy, get_args(Isotropy))
    if len(pooled) < 2:
        raise InputError(f"{len(pooled)} row: isotropy is a property of at least 2; batch more")
    centred = pooled - pooled.mean(0)
    variation = coordinate_variation if isotropy == "coordinate" else eigenvalue_variation
    return {
        "cv": variation(centred, dims),
        "uniformity": {dim: log_potential(cos, t) for dim, cos in cosines(pooled, pooled, dims)},
    }


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


def log_potential(cosine: Float[Tensor, "batch batch"], t: float) -> Float[Tensor, ""]:
    """The logarithm of the mean Gaussian potential over pairs of different rows."""
    count = len(cosine)
    potential = torch.exp(-2 * t * (1 - cosine))
    pairs = potential.sum() - potential.diagonal().sum()
    return torch.log(pairs / (count * (count - 1)) + DIVISION_FLOOR)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that names the choices when `value` is none of them."""
    if value not in choices:
        raise InputError(f"{name} {value!r}: choose {' or '.join(choices)}")
