"""Score similarity at every width from embeddings encoded once."""

import math
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

    NaN when either side is constant, or of fewer than two pairs. Raises InputError for widths that
    do not increase or exceed D.
    """
    metric = NestedSpearman(check_dims(dims, a.shape[1]), sync_on_compute=False)
    metric.update(a, b, torch.tensor(scores, dtype=torch.double))
    return metric.compute()


class NestedSpearman(Metric):
    """`nested_spearman` of pairs that come in any number of batches, on any rank.

    The state is a score and a cosine at every width for each pair, one after the other. Without
    `sync_on_compute` a rank's figures are of its own pairs.
    """

    full_state_update = False
    pairs: list[Tensor] | Tensor

    def __init__(self, dims: Sequence[int], *, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute, compute_with_cache=False)
        self.dims = check_dims(dims, max(dims, default=1))
        # a rank without pairs joins in with an empty vector of the metric's dtype: so all have one
        self.set_dtype(torch.double)
        self.add_state("pairs", [], dist_reduce_fx="cat")

    def update(
        self,
        a: Float[Tensor, "pairs dim"],
        b: Float[Tensor, "pairs dim"],
        scores: Float[Tensor, " pairs"],
    ) -> None:
        """Add pairs: row i of `a` with row i of `b`, and the scores of their similarity."""
        cosines = paired_cosines(a, b, check_dims(self.dims, a.shape[1]))
        columns = [scores.to(a.device), *cosines.values()]
        assert isinstance(self.pairs, list)
        self.pairs.append(torch.stack([column.double() for column in columns], dim=1).flatten())

    def compute(self) -> dict[int, float]:
        parts = self.pairs if isinstance(self.pairs, list) else [self.pairs]
        values = torch.cat([part.cpu() for part in parts]) if parts else torch.empty(0)
        scores, *cosines = values.view(-1, 1 + len(self.dims)).numpy().T
        return {
            dim: 100 * float(spearmanr(cosine, scores).statistic) if len(scores) > 1 else math.nan
            for dim, cosine in zip(self.dims, cosines, strict=True)
        }
