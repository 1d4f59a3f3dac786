"""Compute the gradient of a whole batch in chunks, for batches whose activations do not fit.

A contrastive loss cannot be summed over chunks, because every row is compared with all others. But
all that it needs of a chunk are its statistics. So the batch is encoded twice: chunk by chunk
without gradients, for the loss and its gradient by the statistics; then again with gradients, one
chunk at a time, to carry that gradient on to the parameters (GradCache, Gao et al. 2021, section
3.2). The second pass replays the random state of the first, or dropout would differ. Nothing here
depends on a loss, a width or a rank.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mic.objective.statistics import BatchStatistics, join, tensors

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


class GeneratorState(NamedTuple):
    """The state of the CPU's generator and of the current GPU's, where there is one."""

    cpu: Tensor
    gpu: Tensor | None


def chunked_step(
    chunks: Sequence[Chunk],
    summarise: Callable[[Chunk], BatchStatistics],
    finish: Callable[[BatchStatistics], Result],
    value: Callable[[Result], Tensor],
    backward: Callable[[Tensor], None],
    parameters: Iterable[nn.Parameter] = (),
) -> tuple[Result, Tensor]:
    """The result of `finish` on the joined statistics, and a scalar to call backward on.

    `value` takes the loss from the result. The scalar has the loss's value; its gradient is
    that of the last chunk, while `backward` has been called for the chunks before, so that ranks
    need wait for each other only once. `parameters` are those that `finish` itself uses.
    """
    states, statistics = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(generator_state())
            statistics.append(summarise(chunk))
    # a weight that autocast cast without gradients has none; torch 2.13 casts it anew by itself
    torch.clear_autocast_cache()
    with torch.enable_grad():
        leaves = [[leaf(tensor) for tensor in tensors(chunk)] for chunk in statistics]
        result = finish(join(list(map(refill, statistics, leaves))))
    wanted = [tensor for row in leaves for tensor in row if tensor.requires_grad]
    used = [parameter for parameter in parameters if parameter.requires_grad]
    loss = value(result)
    unaided = torch.autocast(loss.device.type, enabled=False)  # it would multiply gradients in bf16
    with unaided:
        gradients = torch.autograd.grad(loss, [*wanted, *used], allow_unused=True)
    by_leaf = {id(tensor): gradient for tensor, gradient in zip(wanted, gradients, strict=False)}

    # every parameter is in the last graph, or DDP would wait for its gradient for ever
    carried = inner_product(used, gradients[len(wanted) :])
    for chunk, state, row in zip(chunks, states, leaves, strict=True):
        with replayed(state):
            again = tensors(summarise(chunk))
        share = inner_product(again, [by_leaf.get(id(tensor)) for tensor in row])
        if chunk is chunks[-1]:
            carried = carried + share
        else:
            with unaided:
                backward(share)
    return result, carried + (loss - carried).detach()


def leaf(tensor: Tensor) -> Tensor:
    """A detached tensor that gets a gradient; integers get none."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def refill(statistics: BatchStatistics, values: Sequence[Tensor]) -> BatchStatistics:
    """The statistics with other tensors, in the order of `tensors`."""
    new = iter(values)
    rows = {key: next(new) for key in statistics.rows}
    sums = {key: type(old)(*(next(new) for _ in old)) for key, old in statistics.sums.items()}
    return BatchStatistics(rows, sums)


def inner_product(values: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """A scalar whose gradient by `values` is `gradients`, where there is one."""
    products = [
        (value * gradient).sum()
        for value, gradient in zip(values, gradients, strict=True)
        if gradient is not None and value.requires_grad
    ]
    return torch.stack(products).sum() if products else torch.zeros(())


def generator_state() -> GeneratorState:
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return GeneratorState(torch.get_rng_state(), gpu)


@contextmanager
def replayed(state: GeneratorState) -> Iterator[None]:
    """Run with the generators in this state; afterwards they are as they were before."""
    devices = [] if state.gpu is None else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state.cpu)
        if state.gpu is not None:
            torch.cuda.set_rng_state(state.gpu)
        yield
