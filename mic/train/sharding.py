"""An encoder that ranks share out among themselves (FSDP2): weights, gradients, optimiser state."""

from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from mic.encoder.encoder import Encoder


def shard(encoder: Encoder, mesh: DeviceMesh) -> None:
    """Keep of every block this rank's share alone, and gather the rest when it computes.

    Gradients are averaged over the ranks, as DDP does. From now on every forward pass is one of all
    ranks.
    """
    for block in encoder.blocks():
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)


def whole_weights(encoder: Encoder) -> dict[str, Tensor]:
    """The state dict of all shares, on rank 0's CPU; empty on the others, which have to ask."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: dict[str, Any] = get_model_state_dict(encoder, options=options)
    return found
