"""Lightning's loop for one run, with everything that watches it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from mic.callbacks import (
    CollapseAlarm,
    CrossCorrelationMap,
    LastValidation,
    NestedEvaluation,
    NestedRetrievalEval,
    Progress,
    SpectralIsotropy,
    TermBalance,
    Throughput,
)
from mic.data import PairDataModule
from mic.errors import RunError
from mic.loggers import RunLogger
from mic.module import MICModule
from mic.settings import Config
from mic.tasks import Task

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def fit(
    module: MICModule,
    data: PairDataModule,
    tasks: Sequence[Task],
    dims: Sequence[int],
    logger: RunLogger,
    folder: Path,
) -> Throughput:
    """Train as the module's config says, watched at `dims`; what was counted on the way.

    Ctrl-C, a loss that is not finite, and an alarm that stops the run end it with a RunError.
    """
    config, settings = module.config, module.config.trainer
    throughput = Throughput(settings.log_every)
    watching = watchers(config, dims, folder) if config.monitor.geometry else []
    trainer = Trainer(
        max_steps=settings.max_steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision=PRECISIONS[settings.precision],  # type: ignore[arg-type]
        gradient_clip_val=settings.gradient_clip or None,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=-1 if watching else 0,  # the geometry before training
        logger=logger,
        callbacks=[
            throughput,
            TermBalance(config.monitor.balance_every, throughput),
            Progress(settings.log_every, throughput),
            LastValidation(),
            *watching,
            NestedEvaluation(tasks, dims, config.evaluation.batch_size),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        with warnings.catch_warnings():
            quiet()
            trainer.fit(module, data)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise RunError(
            f"stopped at step {trainer.global_step} of {settings.max_steps}; no model was saved"
        ) from None
    for alarm in watching:
        if isinstance(alarm, CollapseAlarm) and alarm.reason and config.monitor.alarm.stop:
            raise RunError(f"{alarm.reason}; stopped, the state is in {alarm.saved}")
    return throughput


def watchers(config: Config, dims: Sequence[int], folder: Path) -> list[Callback]:
    """The callbacks that watch the embeddings of the validation rows."""
    monitor = config.monitor
    spectral = SpectralIsotropy(dims, monitor.map_dim, monitor.pair_rows, folder)
    return [
        spectral,
        CrossCorrelationMap(spectral, folder),
        NestedRetrievalEval(dims),
        CollapseAlarm(spectral, monitor.alarm, folder),
    ]


def quiet() -> None:
    """Silence what Lightning warns of that is as it should be."""
    about: Any = (
        "does not have many workers",
        "in eval mode at the start of training",  # a teacher, which stays so
        "smaller than the logging interval",
    )
    for text in about:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
