"""The random state of a process: torch's on the CPU and on its device, numpy's and Python's.

As tensors and numbers, so that a checkpoint that holds it loads without unpickling.
"""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mic.data.order.permutation import derive_key

RandomState = dict[str, Any]


def random_state(device: torch.device) -> RandomState:
    """All that the next random numbers depend on."""
    version, internal, gauss = random.getstate()
    found: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = found
    assert (version, kind) == (3, "MT19937")
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else device_state(device),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [torch.tensor(internal), gauss],
    }


def restore(state: RandomState, device: torch.device) -> None:
    """Draw from now on what was drawn after `random_state` found this."""
    torch.set_rng_state(state["torch"].cpu())
    if state["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"].cpu())
    keys, *others = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *others))
    internal, gauss = state["python"]
    random.setstate((3, tuple(internal.tolist()), gauss))


def device_state(device: torch.device) -> Tensor:
    found: Tensor = torch.get_device_module(device).get_rng_state()
    return found


def seed_rank(seed: int, rank: int, batch: int = 0) -> None:
    """A stream of a rank's own, from a batch on: two ranks' dropout must not be the same."""
    key = derive_key(seed, rank, batch)
    torch.manual_seed(key % 2**63)
    np.random.seed(key % 2**32)
    random.seed(key)
