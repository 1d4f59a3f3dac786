"""Similarity at every width from embeddings encoded once."""

from collections.abc import Sequence

from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from mic.nested import check_dims, paired_cosines


def nested_spearman(
    a: Float[Tensor, "pairs dim"],
    b: Float[Tensor, "pairs dim"],
    scores: Sequence[float],
    dims: Sequence[int],
) -> dict[int, float]:
    """Spearman's correlation, times 100, of cosine similarity with `scores` at every width.

    NaN when either side is constant. Raises InputError for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, a.shape[1])
    return {
        dim: 100 * float(spearmanr(cosine.double().numpy(), scores).statistic)
        for dim, cosine in paired_cosines(a, b, dims).items()
    }
