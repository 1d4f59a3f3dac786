"""Measure how prefixes spread over the sphere, over any number of batches and ranks."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from mic.collectives import counts, gather, rank, total
from mic.losses.spectral_isotropy import potential_sums
from mic.metrics.geometry import different_rows_product
from mic.metrics.moments import sum_over_ranks
from mic.nested import check_dims, paired_cosines, prefix, unit


class Spread(Metric):
    """Uniformity, alignment and mean cosine of prefixes at length 1, at every width.

    Mean cosine and alignment are sums, exact over all rows and ranks. Uniformity compares every two
    of the sampled rows: each rank compares its rows with those of all. NaN of no rows.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, dims: Sequence[int], t: float = 2.0) -> None:
        super().__init__(dist_sync_fn=sum_over_ranks, compute_with_cache=False)
        self.dims = check_dims(dims, dims[-1])
        self.t = t
        # pairs; at every width squared distances, then squared lengths; the sums of unit prefixes
        size = 1 + 2 * len(self.dims) + sum(self.dims)
        self.add_state("sums", torch.zeros(size, dtype=torch.double), dist_reduce_fx="sum")
        self.sampled: list[Tensor] = []

    def update(
        self,
        queries: Float[Tensor, "rows dim"],
        keys: Float[Tensor, "rows dim"],
        keep: bool = True,
    ) -> None:
        """Add pairs; `keep` samples them for uniformity, at the cost of their number squared."""
        device = self.sums.device
        a, b = queries.to(device).double(), keys.to(device).double()
        distances = [(2 - 2 * cosine).sum() for cosine in paired_cosines(a, b, self.dims).values()]
        units = [unit(prefix(torch.cat([a, b]), dim)) for dim in self.dims]
        squares = [rows.square().sum() for rows in units]
        count = self.sums.new_tensor(len(a))
        scalars = torch.stack([count, *distances, *squares])
        self.sums += torch.cat([scalars, *(rows.sum(0) for rows in units)])
        if keep:
            self.sampled += [a, b]

    def reset(self) -> None:
        super().reset()
        self.sampled = []

    def compute(self) -> dict[str, float]:
        """`<measure>/d<dim>` of all ranks' rows. Every rank has to call it."""
        widths = len(self.dims)
        pairs, distances, squares, *totals = torch.split(self.sums, [1, widths, widths, *self.dims])
        rows = 2 * pairs[0]
        cosine = [
            different_rows_product(total, square, rows)
            for total, square in zip(totals, squares, strict=True)
        ]
        potentials, count = self.potentials()
        columns = {
            "alignment": distances / pairs,
            "mean_cosine": torch.stack(cosine),
            "uniformity": (potentials / (count * (count - 1))).log(),
        }
        return {
            f"{name}/d{dim}": value
            for name, values in columns.items()
            for dim, value in zip(self.dims, values.tolist(), strict=True)
        }

    def potentials(self) -> tuple[Float[Tensor, " widths"], int]:
        """The summed Gaussian potentials of every two sampled rows, and the number of rows."""
        rows = torch.cat([self.sums.new_zeros(0, self.dims[-1]), *self.sampled])
        sizes = counts(len(rows), rows.device)
        if not sum(sizes):
            return rows.new_zeros(len(self.dims)), 0
        all_rows = gather(rows, sizes)
        positions = torch.arange(len(rows), device=rows.device) + sum(sizes[: rank()])
        sums = potential_sums(rows, all_rows, positions, self.dims, self.t)
        return total(sums), sum(sizes)
