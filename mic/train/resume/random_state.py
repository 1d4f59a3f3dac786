"""Capture and restore the random state of a process: torch (CPU and device), numpy and Python.

It consists of tensors and numbers, so that a checkpoint that holds it loads without unpickling.
"""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mic.data.order.permutation import derive_key

RandomState = dict[str, Any]


def capture_random_state(device: torch.device) -> RandomState:
    """The state that the next random numbers depend on."""
    version, internal, gauss = random.getstate()
    state: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = state
    assert (version, kind) == (3, "MT19937")
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else device_state(device),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [torch.tensor(internal), gauss],
    }


def restore_random_state(state: RandomState, device: torch.device) -> None:
    """Draw from now on the numbers that were drawn after `capture_random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"].cpu())
    keys, *others = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *others))
    internal, gauss = state["python"]
    random.setstate((3, tuple(internal.tolist()), gauss))


def device_state(device: torch.device) -> Tensor:
    state: Tensor = torch.get_device_module(device).get_rng_state()
    return state


def seed_rank(seed: int, rank: int, batch: int = 0) -> None:
    """Seed a rank's random stream, from a batch on: two ranks' dropout must not be the same."""
    key = derive_key(seed, rank, batch)
    torch.manual_seed(key % 2**63)
    np.random.seed(key % 2**32)
    random.seed(key)
