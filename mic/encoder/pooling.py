"""Pool the hidden states of a text's tokens into one vector."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mic.nested import mean_pool

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
