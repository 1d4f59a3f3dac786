"""AdamW with its schedule, and an encoder that is sharded over ranks (FSDP2).

A sharded encoder's weights, gradients and optimiser state are split over the ranks; the rest of the
module is not.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import get_scheduler

from mic.collectives import rank
from mic.config.schema import Config, TrainerConfig
from mic.encoder.encoder import Encoder
from mic.errors import InputError


def adamw(module: nn.Module, trainer: TrainerConfig) -> dict[str, Any]:
    """The optimiser of a module's trainable weights with its schedule, as Lightning wants them."""
    optimizer = torch.optim.AdamW(decay_groups(module, trainer), lr=trainer.learning_rate)
    schedule = get_scheduler(
        trainer.schedule,
        optimizer,
        num_warmup_steps=math.ceil(trainer.warmup * trainer.max_steps),
        num_training_steps=trainer.max_steps,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def decay_groups(module: nn.Module, trainer: TrainerConfig) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; biases and norms, vectors, do not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": trainer.weight_decay,
        },
        {
            "params": [parameter for parameter in parameters if parameter.ndim < 2],
            "weight_decay": 0,
        },
    ]


def refuse_sharding(config: Config, objective: nn.Module) -> None:
    """Raise an InputError where something besides the encoder has weights that it must follow."""
    if any(True for _ in objective.parameters()) or config.teacher.kind == "ema":
        raise InputError(
            "trainer.strategy=fsdp: shards the encoder alone; an objective with weights of its "
            "own (chain, attention) and teacher.kind=ema need trainer.strategy=ddp"
        )


def shard(encoder: Encoder, mesh: DeviceMesh) -> None:
    """Keep this rank's share of every block, and gather the rest whenever the block computes.

    Gradients are averaged over the ranks, as DDP does. From now on every forward pass is one of all
    ranks.
    """
    for block in encoder.blocks():
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)


def is_sharded(encoder: Encoder) -> bool:
    """Whether `shard` has split the encoder over the ranks."""
    return isinstance(encoder, FSDPModule)


def whole_encoder(encoder: Encoder, load: Callable[[], Encoder]) -> Encoder:
    """The encoder with all its weights: itself, or for a sharded one a copy on rank 0's CPU.

    `load` gives an unsharded encoder of the same architecture. All ranks have to call it; those
    other than 0 get their share back.
    """
    if not is_sharded(encoder):
        return encoder
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(encoder, options=options)
    if rank() > 0:
        return encoder
    whole = load()
    whole.load_state_dict(weights)
    return whole
