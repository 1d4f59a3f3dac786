"""Two ranks train on streams, stop, and go on: what each rank of test_loader.py does.

It writes the numbers of the texts of its batches: of a run without a stop, and of one that goes on
from the first one's checkpoint.
"""

import json
from pathlib import Path

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from mic.config.loading import load
from mic.data.datamodule import PairDataModule
from mic.distributed.process_group import cluster_environment
from mic.train.module import MICModule

STEPS, SAVED = 14, 9


class Watch(Callback):
    """Keeps the numbers of the texts, and the sizes, of all batches."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[list[int]], list[int]]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append((batch.ids.tolist(), batch.sizes))


def fit(config: str, folder: Path, callbacks: list[Callback], resume: Path | None = None) -> None:
    seed_everything(0, verbose=False)
    module = MICModule(load(config, f"trainer.max_steps={STEPS}"))
    data = PairDataModule(module.config.data, module.encoder.tokenize, batch_size=15)
    watch = Watch()
    trainer = Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        plugins=[cluster_environment()],
        use_distributed_sampler=False,
        logger=False,
        callbacks=[watch, *callbacks],
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    name = f"{'resumed' if resume else 'whole'}-{trainer.global_rank}.json"
    (folder / name).write_text(json.dumps(watch.seen))


def main(config: str, into: str) -> None:
    folder = Path(into)
    saving = ModelCheckpoint(folder, "saved", every_n_train_steps=SAVED, save_top_k=1)
    fit(config, folder, [saving])
    fit(config, folder, [], folder / "saved.ckpt")
