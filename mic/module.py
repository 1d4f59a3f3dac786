"""The LightningModule: encode, weigh, log; an optimiser; nothing else."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers import get_scheduler

from mic.data import Batch
from mic.encoder import Encoder
from mic.errors import InputError, RunError
from mic.nested import check_dims
from mic.objective import Loss, Objective
from mic.settings import Config, TrainerConfig


class MICModule(LightningModule):
    """An encoder trained with the MIC objective.

    `config` is a `Config`, or the plain dict of one that a checkpoint keeps, so that
    `MICModule.load_from_checkpoint(path)` needs nothing else. A batch is a list of token dicts, one
    a column: queries, positives, then hard negatives.

    Raises InputError for an encoder that cannot be loaded, or widths and layers it does not have.
    """

    def __init__(self, config: Config | Mapping[str, Any]) -> None:
        super().__init__()
        plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
        self.save_hyperparameters({"config": plain})  # plain dicts load with weights_only=True
        merged = OmegaConf.merge(OmegaConf.structured(Config), plain)
        self.config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
        self.encoder = load_encoder(self.config)
        self.objective = Objective(self.config.objective)
        for view in range(2):
            self.encoder.watch(self.objective.layers(view))
        if self.config.trainer.compile:
            self.encoder.backbone.compile()  # in place: wrapping would rename the weights
        self.train()  # transformers loads in eval mode, where dropout, our augmentation, is off

    def forward(self, batch: Batch) -> Loss:
        """The loss of one tokenized batch and its terms."""
        views = [
            self.encoder(tokens, self.objective.layers(view)) for view, tokens in enumerate(batch)
        ]
        found: Loss = self.objective(views, self.global_step)
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        loss: Loss = self(batch)
        taken, settings = self.global_step + 1, self.config.trainer
        if taken % settings.log_every == 0 or taken == settings.max_steps:
            values = scalars(loss)  # waits for a GPU: not at every step
            refuse_nan(values, self.global_step, self.config)
            values["learning_rate"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        return loss.total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        loss: Loss = self(batch)
        size = len(batch[0]["input_ids"])
        self.log("val/loss", loss.total, batch_size=size, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        trainer = self.config.trainer
        optimizer = torch.optim.AdamW(decay_groups(self, trainer), lr=trainer.learning_rate)
        schedule = get_scheduler(
            trainer.schedule,
            optimizer,
            num_warmup_steps=math.ceil(trainer.warmup * trainer.max_steps),
            num_training_steps=trainer.max_steps,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def load_encoder(config: Config) -> Encoder:
    """The encoder of a config, frozen where asked, its widths checked."""
    wanted = config.encoder
    encoder = Encoder.from_pretrained(
        wanted.name,
        pooling=wanted.pooling,
        max_length=wanted.max_length,
        projection=wanted.projection,
        sha256=wanted.sha256,
        trust_remote_code=wanted.trust_remote_code,
    )
    for dims in (config.objective.dims, config.evaluation.dims):
        if dims:
            check_dims(dims, encoder.width)
    encoder.freeze(wanted.freeze_embeddings, wanted.freeze_layers)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InputError(
            f"encoder.freeze_layers={wanted.freeze_layers}: nothing is left to train; freeze fewer "
            "layers or set encoder.projection"
        )
    if wanted.gradient_checkpointing:
        try:
            encoder.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise InputError(f"encoder.gradient_checkpointing=true: {error}") from None
    return encoder


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


def scalars(loss: Loss) -> dict[str, float]:
    """Every value of a loss by its logged name: total, raw terms, their weighted parts, widths."""
    values = {"loss": loss.total}
    for name, term in loss.terms.items():
        values[name] = torch.stack(list(term.values())).mean()
        values[f"{name}/weighted"] = loss.parts[name]
        values |= {f"{name}/d{dim}": value for dim, value in term.items()}
    values["negatives"] = torch.tensor(loss.negatives, device=loss.total.device)
    stacked = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, stacked, strict=True))


def refuse_nan(values: Mapping[str, float], step: int, config: Config) -> None:
    """Raise a RunError when the loss is not finite."""
    if math.isfinite(values["loss"]):
        return
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    raise RunError(
        f"step {step + 1}: loss is {values['loss']} ({', '.join(broken[:4])}); lower "
        f"trainer.learning_rate ({config.trainer.learning_rate}) or raise objective.temperature "
        f"({config.objective.temperature})"
    )
