"""The second moment of embeddings over any number of batches and ranks."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torchmetrics import Metric

from mic.geometry import linear_cka, measures
from mic.nested import check_dims


def sum_over_ranks(state: Tensor, group: Any = None) -> list[Tensor]:
    """What torchmetrics asks for in the place of a gather: one sum, in a list of one."""
    summed = state.clone()
    distributed.all_reduce(summed, group=group)
    return [summed]


class Moments(Metric):
    """Every measure of `mic.geometry` at every width, exactly, from one matrix.

    The state is the sum of the outer products of (1, embedding, teacher's embedding), in fp64
    wherever the device has it: count, sum and second moment travel between ranks in one reduction,
    whatever rows each of them has seen. `compute()` maps `<measure>/d<dim>` to its value;
    with a teacher of `teacher_width`, `teacher_cka/d<dim>` says how far the prefix agrees with it.
    """

    full_state_update = False
    moment: Tensor

    def __init__(self, dims: Sequence[int], teacher_width: int | None = None) -> None:
        super().__init__(dist_sync_fn=sum_over_ranks)
        self.dims = check_dims(dims, dims[-1])
        self.width = self.dims[-1]
        size = 1 + self.width + (teacher_width or 0)
        self.taught = teacher_width is not None
        zeros = torch.zeros(size, size, dtype=torch.double)
        self.add_state("moment", zeros, dist_reduce_fx="sum")

    def update(
        self,
        embeddings: Float[Tensor, "rows dim"],
        teacher: Float[Tensor, "rows teacher"] | None = None,
    ) -> None:
        """Add rows, which have the full width; with a teacher, its embeddings of the same texts."""
        device = self.moment.device
        columns = [embeddings.new_ones(len(embeddings), 1), embeddings]
        columns += [] if teacher is None else [teacher]
        rows = torch.cat([one.to(device, torch.double) for one in columns], dim=1)
        self.moment += rows.T @ rows

    @property
    def rows(self) -> int:
        """How many rows there are; within `compute`, those of all ranks."""
        return int(self.moment[0, 0].item())

    @property
    def joint(self) -> Float[Tensor, "joint joint"]:
        """The covariance (population) of embeddings and teacher beside each other."""
        mean = self.moment[0, 1:] / self.moment[0, 0]
        return self.moment[1:, 1:] / self.moment[0, 0] - torch.outer(mean, mean)

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        return self.joint[: self.width, : self.width]

    @property
    def second_moment(self) -> Float[Tensor, "dim dim"]:
        """Not centred."""
        return self.moment[1 : self.width + 1, 1 : self.width + 1] / self.moment[0, 0]

    def compute(self) -> dict[str, float]:
        covariance, second, rows = self.covariance, self.second_moment, self.rows
        found = {
            f"{name}/d{dim}": value
            for dim in self.dims
            for name, value in measures(covariance[:dim, :dim], second[:dim, :dim], rows).items()
        }
        if self.taught:
            joint = self.joint
            for dim in self.dims:
                kept = [*range(dim), *range(self.width, len(joint))]
                found[f"teacher_cka/d{dim}"] = float(linear_cka(joint[kept][:, kept], dim))
        return found
