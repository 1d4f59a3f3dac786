"""Similarity at every width from embeddings encoded once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor
from torchmetrics import Metric

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


class NestedSpearman(Metric):
    """`nested_spearman` of pairs that come in any number of batches, on any rank.

    The state is a row a pair: its score and its cosine at every width.
    """

    full_state_update = False
    pairs: list[Tensor] | Tensor

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = check_dims(dims, dims[-1])
        self.add_state("pairs", [], dist_reduce_fx="cat")

    def update(
        self,
        a: Float[Tensor, "pairs dim"],
        b: Float[Tensor, "pairs dim"],
        scores: Float[Tensor, " pairs"],
    ) -> None:
        """Add pairs: row i of `a` with row i of `b`, and how alike they were judged."""
        cosines = paired_cosines(a, b, self.dims)
        columns = [scores.to(a.device), *cosines.values()]
        assert isinstance(self.pairs, list)
        self.pairs.append(torch.stack([one.double() for one in columns], dim=1))

    def compute(self) -> dict[int, float]:
        pairs = torch.cat(self.pairs) if isinstance(self.pairs, list) else self.pairs
        scores, *cosines = pairs.cpu().numpy().T
        return {
            dim: 100 * float(spearmanr(one, scores).statistic)
            for dim, one in zip(self.dims, cosines, strict=True)
        }
