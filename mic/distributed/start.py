"""Start the ranks of a run on this machine, each as `mic train` of the resolved config."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.distributed.environment import in_slurm
from mic.distributed.launcher import launch, watch_parent
from mic.errors import InputError, Preempted


def starts_ranks(config: Config) -> bool:
    """Whether it is on this process to start the ranks: nobody else, as torchrun or srun, did."""
    return config.trainer.devices > 1 and "RANK" not in os.environ and not in_slurm()


def start_ranks(config: Config, overwrite: bool, allow_change: Sequence[str]) -> None:
    """Run `trainer.devices` ranks to their end.

    Raises InputError or RunError for the one that failed, whose cause is named first, and Preempted
    when all were asked to stop.
    """
    refuse_batch(config)
    watch_parent()
    with tempfile.TemporaryDirectory(prefix="mic-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        options = [f"--allow-change={key}" for key in allow_change]
        options += ["--overwrite"] if overwrite else []
        command = [sys.executable, "-m", "mic.cli", "train", str(file), *options]
        if launch(command, config.trainer.devices):
            stopped = Preempted("stopped")
            stopped.said = True  # by rank 0
            raise stopped


def refuse_batch(config: Config, ranks: int | None = None) -> None:
    """Raise an InputError for a batch that the ranks cannot share."""
    ranks = ranks or config.trainer.devices
    batch_size, tokens = config.trainer.batch_size, config.trainer.batch_tokens
    if config.trainer.strategy == "fsdp" and (tokens is not None or batch_size % ranks):
        below, above = batch_size - batch_size % ranks, batch_size + -batch_size % ranks
        works = " or ".join(f"trainer.batch_size={size}" for size in (below, above) if size)
        raise InputError(
            f"trainer.strategy=fsdp: {ranks} ranks must have as many rows each; set {works} and no "
            "trainer.batch_tokens, or trainer.strategy=ddp"
        )
    if tokens is None and batch_size < ranks:
        raise InputError(
            f"trainer.batch_size={batch_size}: a row for each of {ranks} ranks at least; take "
            f"{batch_size} ranks or fewer, or trainer.batch_size={ranks}"
        )
