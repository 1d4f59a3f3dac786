"""Statistics in full precision: fp32 at least, with autocast off."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

PerWidth = dict[int, Tensor]

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Run `loss` with autocast off and its floating tensors in at least fp32."""

    def promote(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(torch.promote_types(value.dtype, torch.float32))
        return value

    @wraps(loss)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = [v.device.type for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        with torch.autocast(devices[0], enabled=False):
            return loss(*map(promote, args), **{k: promote(v) for k, v in kwargs.items()})  # type: ignore[arg-type]

    return exact
