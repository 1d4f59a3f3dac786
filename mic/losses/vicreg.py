"""Variance and covariance regularization (VICReg) of every prefix: a generic baseline."""

from collections.abc import Sequence
from itertools import accumulate
from operator import add

from jaxtyping import Float
from torch import Tensor

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, prefix, segment_sums

VARIANCE_FLOOR = 1e-4  # epsilon of the paper, inside the square root


@full_precision
def vicreg_terms(pooled: Float[Tensor, "batch dim"], dims: Sequence[int]) -> dict[str, PerWidth]:
    """The two regularizers of VICReg, unweighted, of every prefix of a batch of embeddings.

    Returns {"vicreg_variance": {d: scalar}, "vicreg_covariance": {d: scalar}}. With C the unbiased
    covariance of the B rows (divided by B - 1), `variance(d)` is the mean over j < d of
    `max(0, 1 - sqrt(C_jj + 1e-4))` and `covariance(d) = (1 / d) sum_{i != j < d} C_ij^2`. Variance
    runs from 0, every coordinate deviates by 1 or more, to 0.99, none deviates; covariance is 0
    for uncorrelated coordinates and has no upper limit.

    Source: Bardes et al. 2022 (VICReg), equations 1 to 4, with its gamma of 1.

    Raises ValueError for fewer than 2 rows and for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, pooled.shape[1])
    if len(pooled) < 2:
        raise InputError(f"{len(pooled)} row: variance is a property of at least 2; batch more")
    widest = prefix(pooled, dims[-1])
    centred = widest - widest.mean(0)
    covariance = centred.T @ centred / (len(pooled) - 1)
    variances = covariance.diagonal()
    hinges = (1 - (variances + VARIANCE_FLOOR).sqrt()).relu()
    totals = accumulate((part.sum() for part in hinges.tensor_split(dims[:-1])), add)
    squares = segment_sums((covariance - variances.diag()).square(), dims)
    return {
        "vicreg_variance": {dim: total / dim for dim, total in zip(dims, totals, strict=True)},
        "vicreg_covariance": {dim: squares[:k, :k].sum() / dim for k, dim in enumerate(dims, 1)},
    }
