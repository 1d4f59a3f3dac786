"""How prefixes spread over the sphere, over any number of batches and ranks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from mic.collectives import counts, gather, rank, total
from mic.geometry import different_rows_cosine
from mic.losses.isotropy import potential_sums
from mic.metrics.moments import sum_over_ranks
from mic.nested import check_dims, paired_cosines, prefix, unit


class Spread(Metric):
    """Uniformity, alignment and mean cosine of prefixes at length 1, at every width.

    Mean cosine and alignment are sums, exact over all rows and ranks. Uniformity compares every two
    of the rows that are kept: each rank its own with those of all.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, dims: Sequence[int], t: float = 2.0) -> None:
        super().__init__(dist_sync_fn=sum_over_ranks)
        self.dims = check_dims(dims, dims[-1])
        self.t = t
        # pairs, then alignment at every width, then the sums of unit prefixes
        size = 1 + len(self.dims) + sum(self.dims)
        self.add_state("sums", torch.zeros(size, dtype=torch.double), dist_reduce_fx="sum")
        self.kept: list[Tensor] = []

    def update(
        self,
        queries: Float[Tensor, "rows dim"],
        keys: Float[Tensor, "rows dim"],
        keep: bool = True,
    ) -> None:
        """Add pairs; `keep` them for uniformity, which takes the square of their number."""
        device = self.sums.device
        a, b = queries.to(device, torch.double), keys.to(device, torch.double)
        distances = [(2 - 2 * cosine).sum() for cosine in paired_cosines(a, b, self.dims).values()]
        units = [unit(prefix(a, dim)).sum(0) + unit(prefix(b, dim)).sum(0) for dim in self.dims]
        count = self.sums.new_full((1,), len(a))
        self.sums += torch.cat([count, torch.stack(distances), *units])
        if keep:
            self.kept += [a, b]

    def reset(self) -> None:
        super().reset()
        self.kept = []

    def compute(self) -> dict[str, float]:
        """`<measure>/d<dim>` of all ranks' rows. Every rank has to call it."""
        pairs = float(self.sums[0])
        first = 1 + len(self.dims)
        ends = torch.tensor([0, *self.dims]).cumsum(0).tolist()
        totals = [self.sums[first + start : first + stop] for start, stop in pairwise(ends)]
        found = {}
        for k, (dim, units) in enumerate(zip(self.dims, totals, strict=True)):
            found[f"alignment/d{dim}"] = float(self.sums[1 + k]) / pairs
            found[f"mean_cosine/d{dim}"] = float(different_rows_cosine(units, int(2 * pairs)))
        potentials, rows = self.potentials()
        logs = (potentials / (rows * (rows - 1))).log().tolist()
        return found | {f"uniformity/d{dim}": one for dim, one in zip(self.dims, logs, strict=True)}

    def potentials(self) -> tuple[Float[Tensor, " widths"], int]:
        """The Gaussian potentials of every two kept rows, summed, and how many are kept."""
        own = torch.cat([self.sums.new_zeros(0, self.dims[-1]), *self.kept])
        sizes = counts(len(own), own.device)
        everyone = gather(own, sizes)
        places = torch.arange(len(own), device=own.device) + sum(sizes[: rank()])
        sums = potential_sums(own, everyone, places, self.dims, self.t)
        return total(sums), sum(sizes)
