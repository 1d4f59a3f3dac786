"""Soft Collapse Regularization (SCR): prefix and residual must not repeat each other."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mic.errors import check_choice
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, prefix, residual, segment_sums, with_full

VARIANCE_FLOOR = 1e-10  # inside square roots: a deviation far below 1e-5 counts as none
SHORTEST = 3  # two tokens standardise to +1 and -1 in every coordinate: no information
GRAM_BLOCK = 192  # rows of a symmetric product taken at once: narrower ones multiply slower

VarianceFloor = Literal["mean", "per_dim"]
Mask = Bool[Tensor, "batch length"] | Int[Tensor, "batch length"]


class CollapseSums(NamedTuple):
    """The sums over a batch's sequences that SCR needs: ranks add theirs up.

    `correlation` sums (1 / N_i) sum_l X_il X_il^T, `deviations` the standard deviations within a
    sequence, `sequences` counts those of three tokens or more; shorter ones are in neither.
    """

    correlation: Float[Tensor, "dim dim"]
    deviations: Float[Tensor, " dim"]
    sequences: Float[Tensor, ""]


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
    and the width is skipped. The two terms are those of `soft_collapse_terms`.

    Source: L_SCR of MIC. Raises ValueError as `soft_collapse_terms` does.
    """
    terms = soft_collapse_terms(
        hidden, mask, dims, threshold=threshold, variance_floor=variance_floor
    )
    return {
        dim: correlation + variance_weight * terms["variance"][dim]
        for dim, correlation in terms["correlation"].items()
    }


def soft_collapse_terms(
    hidden: Float[Tensor, "batch length dim"],
    mask: Mask,
    dims: Sequence[int],
    *,
    threshold: float = 0.1,
    variance_floor: VarianceFloor = "mean",
) -> dict[str, PerWidth]:
    """The two terms of SCR, unweighted: {"correlation": {d: scalar}, "variance": {d: scalar}}.

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
    sums = collapse_sums(hidden, mask)
    return collapse_terms(sums, dims, threshold=threshold, variance_floor=variance_floor)


@full_precision
def collapse_sums(hidden: Float[Tensor, "batch length dim"], mask: Mask) -> CollapseSums:
    """The sums of a batch of sequences. Differentiable once."""
    return CollapseSums(*StandardisedGram.apply(hidden, mask.bool()))  # type: ignore[no-untyped-call]


class StandardisedGram(Function):
    """The sums with one product forward, one backward and one [batch, length, dim] kept between.

    With `sigma` a coordinate's deviation, `N` the tokens, `A = dC + dC^T`, `Y = X A` and `g` the
    gradient of the deviations: `dH = (Y / sigma + X (g - mean_l(Y X) / sigma)) / N`. The mean of Y,
    which standardisation takes off its gradient, is 0 as that of X is.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, deviations, counts = standardise(hidden, mask)
        long_enough = (counts >= SHORTEST).to(hidden.dtype)
        scales = (long_enough / counts.clamp_min(1)).sqrt()
        rows *= scales[:, None, None]
        ctx.save_for_backward(rows, deviations, scales, mask)
        sequences = long_enough.sum()
        ctx.mark_non_differentiable(sequences)
        return gram(rows.flatten(0, 1)[valid_rows(mask)]), long_enough @ deviations, sequences

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_correlation: Tensor, to_deviations: Tensor, _: Tensor
    ) -> tuple[Tensor, None]:
        rows, deviations, scales, mask = ctx.saved_tensors
        tokens = valid_rows(mask)
        gradient = torch.zeros_like(rows)
        gradient.flatten(0, 1)[tokens] = rows.flatten(0, 1)[tokens] @ (
            to_correlation + to_correlation.T
        )
        # rows = scales X, so that scales^2 = 1 / N stands in the sum over tokens already
        along = to_deviations - (gradient * rows).sum(1) / deviations
        gradient *= (scales[:, None] / deviations)[:, None]
        return gradient.addcmul_(rows, (scales[:, None] * along)[:, None]), None


def valid_rows(mask: Bool[Tensor, "batch length"]) -> Tensor | slice:
    """Where the valid tokens stand among all: padding multiplies nothing.

    On a GPU every row: to count the valid ones would wait for it, and rows of zeros cost little.
    """
    return mask.flatten().nonzero().squeeze(1) if mask.device.type == "cpu" else slice(None)


def gram(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "dim dim"]:
    """`rows^T rows`, multiplied on and above the diagonal blocks and mirrored below."""
    product = rows.new_empty(rows.shape[1], rows.shape[1])
    for start in range(0, rows.shape[1], GRAM_BLOCK):
        stop = start + GRAM_BLOCK
        torch.mm(rows[:, start:stop].T, rows[:, start:], out=product[start:stop, start:])
        product[stop:, start:stop] = product[start:stop, stop:].T
    return product


def collapse_terms(
    sums: CollapseSums, dims: Sequence[int], *, threshold: float, variance_floor: VarianceFloor
) -> dict[str, PerWidth]:
    """The terms of SCR at every width below D from the sums over all sequences."""
    full = len(sums.deviations)
    nested = [dim for dim in check_dims(dims, full) if dim < full]
    check_choice("variance_floor", variance_floor, get_args(VarianceFloor))
    correlation = sums.correlation / sums.sequences.clamp_min(1)
    deviations = sums.deviations / sums.sequences.clamp_min(1)
    # softshrink squared is max(0, |C| - threshold)^2 in fewer passes over the matrix
    excess = segment_sums(
        functional.softshrink(correlation, threshold).square(), with_full(nested, full)
    )
    return {
        "correlation": {
            dim: excess[:k, k:].sum() / (dim * (full - dim)) for k, dim in enumerate(nested, 1)
        },
        "variance": {
            dim: (
                variance_hinge(prefix(deviations, dim), variance_floor)
                + variance_hinge(residual(deviations, dim), variance_floor) / 2
            )
            * (sums.sequences > 0)
            for dim in nested
        },
    }


def standardise(
    hidden: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise every coordinate over the valid tokens of its own sequence.

    Returns the standardised tokens (0 at padding) [batch, length, dim], the population standard
    deviations [batch, dim] and the token counts [batch] in the dtype of `hidden`. In place, for
    `StandardisedGram`, which knows the gradient.
    """
    valid = mask[:, :, None]
    counts = mask.sum(1).to(hidden.dtype)
    divisor = counts.clamp_min(1)[:, None]
    # where, not a product: padding may hold anything, NaN included
    standardised = torch.where(valid, hidden, 0)
    standardised -= (standardised.sum(1) / divisor)[:, None]
    standardised *= valid
    deviations = (standardised.square().sum(1) / divisor + VARIANCE_FLOOR).sqrt()
    standardised /= deviations[:, None]
    return standardised, deviations, counts


def variance_hinge(deviations: Float[Tensor, " dim"], floor: VarianceFloor) -> Float[Tensor, ""]:
    """How far standard deviations fall below 1: of their mean, or each on its own."""
    if floor == "mean":
        return (1 - deviations.mean()).relu()
    return (1 - deviations).relu().mean()
