"""AdamW and its schedule."""

import math
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from mic.config.schema import TrainerConfig


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
