"""The gradient of a whole batch from chunks of it: for batches whose activations do not fit.

A contrastive loss cannot be summed over chunks, for every row is held against all others. But it
needs no more of a chunk than its summary. So the batch is encoded twice: chunk by chunk without
gradients, for the loss and its gradient by the summaries; then again with gradients, one chunk at a
time, to carry that gradient on to the parameters (GradCache, Gao et al. 2021, section 3.2). The
second time replays the random state of the first, or dropout would differ. Nothing here knows a
loss, a width or a rank: what summaries can hold, chunks can.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mic.objective.statistics import Summary, join, tensors

Chunk = TypeVar("Chunk")
Found = TypeVar("Found")


class RandomState(NamedTuple):
    """The state of the CPU's generator and of the current GPU's, where there is one."""

    cpu: Tensor
    gpu: Tensor | None


def chunked_step(
    chunks: Sequence[Chunk],
    summarise: Callable[[Chunk], Summary],
    finish: Callable[[Summary], Found],
    value: Callable[[Found], Tensor],
    backward: Callable[[Tensor], None],
    parameters: Iterable[nn.Parameter] = (),
) -> tuple[Found, Tensor]:
    """What `finish` finds of the joined summaries, and a scalar to call backward on.

    `value` takes the loss from what was found. The scalar has the loss's value; its gradient is
    that of the last chunk, while `backward` has been called for the chunks before, so that ranks
    need wait for each other only once. `parameters` are those that `finish` itself uses.
    """
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(random_state())
            parts.append(summarise(chunk))
    # a weight that autocast cast without gradients has none; torch 2.13 casts it anew by itself
    torch.clear_autocast_cache()
    with torch.enable_grad():
        leaves = [[leaf(tensor) for tensor in tensors(part)] for part in parts]
        found = finish(join([refill(part, own) for part, own in zip(parts, leaves, strict=True)]))
    wanted = [one for own in leaves for one in own if one.requires_grad]
    used = [parameter for parameter in parameters if parameter.requires_grad]
    loss = value(found)
    unaided = torch.autocast(loss.device.type, enabled=False)  # it would multiply gradients in bf16
    with unaided:
        gradients = torch.autograd.grad(loss, [*wanted, *used], allow_unused=True)
    by_leaf = {id(one): gradient for one, gradient in zip(wanted, gradients, strict=False)}

    # every parameter is in the last graph, or DDP would wait for its gradient for ever
    carried = inner_product(used, gradients[len(wanted) :])
    for chunk, state, own in zip(chunks, states, leaves, strict=True):
        with replayed(state):
            again = tensors(summarise(chunk))
        share = inner_product(again, [by_leaf.get(id(one)) for one in own])
        if chunk is chunks[-1]:
            carried = carried + share
        else:
            with unaided:
                backward(share)
    return found, carried + (loss - carried).detach()


def leaf(tensor: Tensor) -> Tensor:
    """A tensor whose own gradient is asked for; whole numbers have none."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def refill(summary: Summary, values: Sequence[Tensor]) -> Summary:
    """The summary with other tensors in the order of `tensors`."""
    new = iter(values)
    rows = {key: next(new) for key in summary.rows}
    sums = {key: type(old)(*(next(new) for _ in old)) for key, old in summary.sums.items()}
    return Summary(rows, sums)


def inner_product(values: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """A scalar whose gradient by `values` is `gradients`, where there is one."""
    products = [
        (value * gradient).sum()
        for value, gradient in zip(values, gradients, strict=True)
        if gradient is not None and value.requires_grad
    ]
    return torch.stack(products).sum() if products else torch.zeros(())


def random_state() -> RandomState:
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return RandomState(torch.get_rng_state(), gpu)


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw what was drawn from this state on; afterwards go on as if nothing had been drawn."""
    devices = [] if state.gpu is None else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state.cpu)
        if state.gpu is not None:
            torch.cuda.set_rng_state(state.gpu)
        yield
