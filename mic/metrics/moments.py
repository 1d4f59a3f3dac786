"""Accumulate the second moment of embeddings over any number of batches and ranks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torchmetrics import Metric

from mic.metrics.geometry import linear_cka, prefix_measures, without_rounding


def sum_over_ranks(state: Tensor, group: Any = None) -> list[Tensor]:
    """The sum of a state over all ranks, in a list of one, in place of torchmetrics' gather."""
    summed = state.clone()
    distributed.all_reduce(summed, group=group)
    return [summed]


def exact_device(device: torch.device) -> torch.device:
    """Where sums in fp64 can be kept: on the device, or on the CPU for MPS, which has no fp64.

    >>> exact_device(torch.device("mps"))
    device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


class Moment(NamedTuple):
    """The sum of the outer products of rows (1, embedding, teacher's embedding), [1 + D + E, same].

    Every statistic of embeddings `width` wide is a block of it.
    """

    total: Float[Tensor, "all all"]
    width: int

    @property
    def rows(self) -> int:
        return int(self.total[0, 0].item())

    @property
    def joint(self) -> Float[Tensor, "joint joint"]:
        """The covariance (population) of embeddings and teacher beside each other."""
        mean = self.total[0, 1:] / self.total[0, 0]
        second = self.total[1:, 1:] / self.total[0, 0]
        return without_rounding(second - torch.outer(mean, mean), second.diagonal())

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        return self.joint[: self.width, : self.width]

    @property
    def second_moment(self) -> Float[Tensor, "dim dim"]:
        """Not centred."""
        return self.total[1 : self.width + 1, 1 : self.width + 1] / self.total[0, 0]

    def measures(self, dims: Sequence[int]) -> dict[str, float]:
        """`<measure>/d<dim>` of `mic.metrics.geometry.measures` at every width.

        Where there is a teacher, `teacher_cka/d<dim>` is how far a prefix agrees with it.
        """
        joint, second, rows = self.joint, self.second_moment, self.rows
        values = {
            f"{name}/d{dim}": value
            for dim in dims
            for name, value in prefix_measures(joint[:dim, :dim], second[:dim, :dim], rows).items()
        }
        for dim in dims if len(joint) > self.width else ():
            columns = [*range(dim), *range(self.width, len(joint))]
            values[f"teacher_cka/d{dim}"] = float(linear_cka(joint[columns][:, columns], dim))
        return values


class Moments(Metric):
    """The `Moment` of all rows of all ranks, whatever each of them has seen.

    Its matrix is the state, in fp64: count, sum and second moment travel in one reduction. Move it
    to the rows' device, or to that of `exact_device`, to which rows then follow.
    """

    full_state_update = False
    total: Tensor

    def __init__(self, width: int, teacher_width: int = 0) -> None:
        super().__init__(dist_sync_fn=sum_over_ranks, compute_with_cache=False)
        self.width = width
        size = 1 + width + teacher_width
        self.add_state("total", torch.zeros(size, size, dtype=torch.double), dist_reduce_fx="sum")

    def update(
        self,
        embeddings: Float[Tensor, "rows dim"],
        teacher: Float[Tensor, "rows teacher"] | None = None,
    ) -> None:
        """Add rows, which have the full width; with a teacher, its embeddings of the same texts."""
        columns = [embeddings.new_ones(len(embeddings), 1), embeddings]
        columns += [] if teacher is None else [teacher]
        rows = torch.cat([column.to(self.total.device).double() for column in columns], dim=1)
        self.total += rows.T @ rows

    def compute(self) -> Moment:
        return Moment(self.total.clone(), self.width)
