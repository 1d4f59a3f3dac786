"""Run Lightning's Trainer for one run, with its callbacks."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor

from mic.config.schema import Config
from mic.data.datamodule import PairDataModule
from mic.distributed.preemption import Stop
from mic.distributed.process_group import cluster_environment, rank_info
from mic.errors import RunError
from mic.evaluation.tasks.tasks import Task
from mic.tracking.loggers import RunLogger
from mic.train.callbacks import (
    BatchRecord,
    BestSoFar,
    CollapseAlarm,
    CrossCorrelationMap,
    ExactResume,
    FirstValidation,
    LastValidation,
    NestedEvaluation,
    NestedRetrievalEval,
    Progress,
    SpectralIsotropy,
    TermBalance,
    Throughput,
)
from mic.train.module import MICModule
from mic.train.resume.checkpoint_files import CHECKPOINTS

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def fit(
    module: MICModule,
    data: PairDataModule,
    tasks: Sequence[Task],
    dims: Sequence[int],
    logger: RunLogger,
    folder: Path,
    checkpoint: Path | None = None,
    stop: Stop | None = None,
    known: Mapping[int, Tensor] | None = None,
) -> tuple[Throughput, BestSoFar]:
    """Train as the module's config says, and watch the widths `dims`; the counted speed, the best.

    Training goes on from `checkpoint`, if given. `known` has the validation rows' embeddings before
    training, for `FirstValidation`.

    Raises Preempted, when asked to `stop` and the state is saved, and RunError for a loss that is
    not finite, an alarm that stops the run, and a checkpoint that cannot be written.
    """
    config, settings = module.config, module.config.trainer
    sharding = settings.strategy == "fsdp" and rank_info().ranks > 1
    throughput = Throughput(settings.log_every)
    watching = watchers(config, dims, folder) if config.monitor.geometry else []
    exact = ExactResume(folder / CHECKPOINTS, settings.save_every, seed=config.seed, stop=stop)
    best = BestSoFar({task.name: task.headline for task in tasks})
    evaluation = NestedEvaluation(tasks, dims, config.evaluation.batch_size, exact.check)
    trainer = Trainer(
        max_steps=settings.max_steps,
        max_epochs=-1,
        accelerator="auto",
        **device_options(settings.strategy),
        precision=PRECISIONS[settings.precision],  # type: ignore[arg-type]
        gradient_clip_val=settings.gradient_clip or None,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=-1 if watching else 0,  # the geometry before training
        logger=logger,
        callbacks=[
            throughput,
            # it goes backward more than once, which a sharded encoder cannot
            TermBalance(0 if sharding else config.monitor.balance_every, throughput),
            Progress(settings.log_every, throughput),
            FirstValidation(known or {}),
            LastValidation(),
            *([BatchRecord(folder)] if config.monitor.batches else []),
            evaluation,  # before all that store a validation's values: it may be broken off
            *watching,
            best,
            exact,
        ],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        ignore_expected_warnings()
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    for alarm in watching:
        if isinstance(alarm, CollapseAlarm) and alarm.reason and config.monitor.alarm.stop:
            raise RunError(f"{alarm.reason}; stopped, the state is in {alarm.saved}")
    return throughput, best


def device_options(strategy: str) -> dict[str, Any]:
    """The Trainer's arguments for the processes of this run, however they were started."""
    process = rank_info()
    if process.ranks == 1:
        return {"devices": 1}
    # otherwise DDP packs gradients anew after a process's first step, into other buckets: sums of
    # three ranks or more would then be rounded in another order after a resume
    fixed = process.ranks > 2
    return {
        "devices": process.local_ranks,
        "num_nodes": process.nodes,
        "strategy": DDPStrategy(find_unused_parameters=fixed)
        if strategy == "ddp"
        else fsdp_strategy(process.ranks),
        "plugins": [cluster_environment()],
    }


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


def fsdp_strategy(ranks: int) -> ModelParallelStrategy:
    """FSDP2 over all ranks; `MICModule.configure_model` shards the encoder."""
    return ModelParallelStrategy(
        data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def ignore_expected_warnings() -> None:
    """Silence those of Lightning's warnings that do not apply process."""
    expected: Any = (
        "does not have many workers",
        "in eval mode at the start of training",  # a teacher, which stays so
        "smaller than the logging interval",
        "your dataloader is not resumable",  # its sampler is
        "It is recommended to use `self.log",  # the value is that of all ranks already
        "find_unused_parameters=True was specified",  # see `device_options`
    )
    for text in expected:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
