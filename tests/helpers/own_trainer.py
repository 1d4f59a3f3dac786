"""A Lightning Trainer of one's own, as in a script: what each rank of test_own_trainer.py does.

Each rank writes the losses of its steps, and how many texts were embedded before the first step.
"""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from mic.config.loading import load
from mic.data.datamodule import PairDataModule
from mic.distributed.process_group import cluster_environment, rank_info
from mic.encoder.encoder import Encoder
from mic.train.module import MICModule


class Watch(Callback):
    """Keeps the loss of every step, and the number of texts embedded before and after the first."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.embedded = {"before": 0, "training": 0}
        self.when = "before"

    def on_train_start(self, trainer: Trainer, pl_module: MICModule) -> None:
        self.when = "training"

    def on_train_batch_end(self, trainer: Trainer, pl_module: MICModule, outputs: Any, *_: Any):
        self.losses.append(outputs["loss"].item())


def fit(config_file: str, *overrides: str) -> tuple[Watch, Trainer]:
    """Train on the ranks that there are, with nothing called before `fit`; what was seen."""
    config, ranks, watch = load(config_file, *overrides), rank_info().ranks, Watch()
    embed = Encoder.embed

    def counted(encoder: Encoder, texts: list[str], **options: Any) -> torch.Tensor:
        watch.embedded[watch.when] += len(texts)
        return embed(encoder, texts, **options)

    Encoder.embed = counted
    try:
        seed_everything(config.seed, verbose=False)
        module = MICModule(config)
        data = PairDataModule(
            config.data,
            module.encoder.tokenize,
            batch_size=config.trainer.batch_size,
            seed=config.seed,
        )
        trainer = Trainer(
            max_steps=config.trainer.max_steps,
            max_epochs=-1,
            accelerator="cpu",
            devices=ranks,
            strategy="ddp" if ranks > 1 else "auto",
            plugins=[cluster_environment()] if ranks > 1 else None,
            gradient_clip_val=config.trainer.gradient_clip,
            use_distributed_sampler=False,
            logger=False,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
    finally:
        Encoder.embed = embed
    return watch, trainer


def main(config_file: str, into: str, *overrides: str) -> None:
    watch, trainer = fit(config_file, *overrides)
    seen = {"losses": watch.losses, "embedded": watch.embedded}
    Path(into, f"{trainer.global_rank}.json").write_text(json.dumps(seen))
