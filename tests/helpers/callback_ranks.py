"""A run in fp64 without dropout with every callback: what each rank of test_callback_ranks.py does.

Rank 0 writes metrics.jsonl, and every rank the figures that it saw itself.
"""

import json
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from mic.config.loading import load
from mic.data.datamodule import PairDataModule
from mic.distributed.process_group import cluster_environment, rank_info
from mic.evaluation.tasks.tasks import build_tasks
from mic.tracking.loggers import build_logger
from mic.train.callbacks import (
    CrossCorrelationMap,
    NestedEvaluation,
    NestedRetrievalEval,
    SpectralIsotropy,
    TermBalance,
    Throughput,
)
from mic.train.module import MICModule

DIMS = (4, 8, 16, 32)


class Seen(Callback):
    """Keeps what every rank itself would log."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def on_validation_end(self, trainer, pl_module) -> None:
        self.values |= {name: float(value) for name, value in trainer.callback_metrics.items()}


def main(config_file: str, into: str) -> None:
    config, folder, world = load(config_file), Path(into), rank_info().ranks
    seed_everything(0, verbose=False)
    module = MICModule(config)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # every rank draws its own
    module.encoder.backbone.config._attn_implementation = "eager"
    data = PairDataModule(
        config.data, module.encoder.tokenize, batch_size=config.trainer.batch_size
    )
    throughput, seen = Throughput(1), Seen()
    spectral = SpectralIsotropy(DIMS, 8, pair_rows=config.monitor.pair_rows, folder=folder)
    trainer = Trainer(
        max_steps=4,
        max_epochs=-1,
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        precision="64-true",
        plugins=[cluster_environment()] if world > 1 else None,
        use_distributed_sampler=False,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,
        log_every_n_steps=1,
        logger=build_logger(config, folder),
        callbacks=[
            throughput,
            TermBalance(2, throughput),
            spectral,
            CrossCorrelationMap(spectral),
            NestedRetrievalEval(DIMS),
            NestedEvaluation(build_tasks(config.evaluation.validation), DIMS, 16),
            seen,
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    (folder / f"seen-{trainer.global_rank}.json").write_text(json.dumps(seen.values))
    (folder / f"values-{trainer.global_rank}.json").write_text(json.dumps(spectral.values))
