"""Spread-out regularization (GOR) of every prefix: unrelated texts should be orthogonal."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, chunked, cosines


def spread_out(pooled: Float[Tensor, "batch dim"], dims: Sequence[int]) -> PerWidth:
    """Global orthogonal regularization (GOR): cosines of unrelated texts as of random directions.

    `L(d) = M1^2 + max(0, M2 - 1 / d)` with M1 the mean over i != j of cos_ij and M2 the mean of
    cos_ij^2, of prefixes. Directions that are uniform on the sphere of R^d have M1 = 0 and
    M2 = 1 / d, thus 0; prefixes that all point one way have 1 + 1 - 1 / d.

    Source: Zhang et al. 2017 (Learning spread-out local feature descriptors), L_gor. There the
    pairs are drawn at random from different classes; here they are all pairs of the batch.

    Raises ValueError for fewer than 2 rows and for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, pooled.shape[1])
    positions = torch.arange(len(pooled), device=pooled.device)
    return spread(spread_sums(pooled, pooled, positions, dims), len(pooled), dims)


@full_precision
def spread_sums(
    rows: Float[Tensor, "rows dim"],
    all_rows: Float[Tensor, "all_rows dim"],
    positions: Int[Tensor, " rows"],
    dims: Sequence[int],
) -> Float[Tensor, "widths 2"]:
    """Cosines of `rows` with all other rows of `all_rows`, and their squares, summed per width.

    `positions` says where in `all_rows` the rows themselves stand. Ranks add these sums up.
    """
    dims = check_dims(dims, rows.shape[1])

    def sums(rows: Tensor, positions: Tensor) -> Tensor:
        def pairs(cosine: Tensor) -> Tensor:
            others = cosine.scatter(1, positions[:, None], 0.0)
            return torch.stack([others.sum(), others.square().sum()])

        return torch.stack([pairs(cosine) for _, cosine in cosines(rows, all_rows, dims)])

    return chunked(sums, len(dims) * len(all_rows), rows, positions)


def spread(sums: Float[Tensor, "widths 2"], count: int, dims: Sequence[int]) -> PerWidth:
    """`L` at every width from the cosines and their squares summed over `count` rows."""
    if count < 2:
        raise InputError(f"{count} row: spread is a property of at least 2; batch more")
    means = sums / (count * (count - 1))
    return {
        dim: mean.square() + (square - 1 / dim).relu()
        for dim, (mean, square) in zip(dims, means, strict=True)
    }
