"""Gathers and sums over ranks with exact gradients; the identity in one process.

A loss over the rows of all ranks must, once DDP has averaged the parameters' gradients over W
ranks, give the gradient of one process on the joined rows. Every rank computes the same loss, so
the backward pass of both functions sums the gradients of all W ranks: W times the gradient, which
DDP divides by W. A rank that kept only its own gradient would give 1/W of it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """The number of ranks; 1 outside a process group."""
    return distributed.get_world_size() if in_group() else 1


def rank() -> int:
    """This process' rank; 0 outside a process group."""
    return distributed.get_rank() if in_group() else 0


def in_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def counts(rows: int, device: torch.device) -> list[int]:
    """How many rows every rank has, in the order of ranks. No gradient."""
    if world_size() == 1:
        return [rows]
    sizes = torch.zeros(world_size(), dtype=torch.long, device=device)
    sizes[rank()] = rows
    distributed.all_reduce(sizes)
    return [int(size) for size in sizes.tolist()]


def gather(
    x: Float[Tensor, "rows ..."], sizes: Sequence[int] | None = None
) -> Float[Tensor, "all_rows ..."]:
    """The rows of all ranks, in the order of ranks, which may hold different numbers of them.

    `sizes` are the ranks' numbers of rows; without it they are summed over the ranks first.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = Gather.apply(x, sizes or counts(len(x), x.device))  # type: ignore[no-untyped-call]
    return gathered


def total(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum of a tensor over all ranks."""
    if world_size() == 1:
        return x
    summed: Tensor = Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


def gather_columns(columns: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """`gather` of several matrices [rows, _] of the same rows, in one collective.

    At least one is floating; the others have its dtype, or are int64 and are sent as its bits.
    """
    if world_size() == 1:
        return list(columns)
    kind = next(column.dtype for column in columns if column.is_floating_point())
    sent = [
        column if column.is_floating_point() else column.contiguous().view(kind)
        for column in columns
    ]
    gathered = gather(torch.cat(sent, dim=1), sizes)
    parts = torch.split(gathered, [column.shape[1] for column in sent], dim=1)
    return [
        part if column.is_floating_point() else part.detach().contiguous().view(torch.int64)
        for part, column in zip(parts, columns, strict=True)
    ]


def total_together(values: Sequence[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
    """`total` of several tensors of one dtype, in one collective."""
    if world_size() == 1:
        return list(values)
    summed = total(torch.cat([value.flatten() for value in values]))
    parts = torch.split(summed, [value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]


def any_rank(flag: bool) -> bool:
    """Whether any rank's flag is set, the same answer on all; on the CPU where gloo is there, so as
    not to wait for the GPU."""
    if world_size() == 1:
        return flag
    cpu = "gloo" in distributed.get_backend_config()
    device = torch.device("cpu" if cpu else f"cuda:{torch.cuda.current_device()}")
    raised = torch.tensor(int(flag), device=device)
    distributed.all_reduce(raised, distributed.ReduceOp.MAX)
    return bool(raised)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's object, in the order of ranks, on all of them."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


class Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.sizes = sizes
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        gathered = x.new_empty(len(sizes) * max(sizes), *x.shape[1:])
        distributed.all_gather_into_tensor(gathered, padded)
        blocks = torch.split(gathered, max(sizes))
        return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return torch.split(gradient, list(ctx.sizes))[rank()], None


class Total(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        summed = x.contiguous().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient
