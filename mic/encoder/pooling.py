"""One vector from a sequence of token states."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pooling = Literal["mean", "cls", "last"]


def pool(
    hidden: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"], how: Pooling
) -> Float[Tensor, "batch dim"]:
    """Pool the valid tokens of every sequence: their mean, the first, or the last of them.

    Padding may stand on either side. Means are taken in at least fp32 and returned so.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    match how:
        case "mean":
            return mean_pool(hidden, mask)
        case "cls":
            return hidden[rows, mask.int().argmax(1)]
        case "last":
            return hidden[rows, mask.shape[1] - 1 - mask.flip(1).int().argmax(1)]


def mean_pool(
    hidden: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch dim"]:
    """The mean of the valid tokens of every sequence, in at least fp32; 0 for an empty one."""
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return torch.where(mask[:, :, None], hidden, 0).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
