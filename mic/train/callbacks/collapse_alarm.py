"""Raise an alarm when a prefix of the embedding collapses."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.config.schema import AlarmConfig
from mic.console import notice
from mic.distributed.process_group import from_rank_zero
from mic.errors import RunError
from mic.files import partial_path
from mic.train.callbacks.geometry import SpectralIsotropy
from mic.train.resume.checkpoint_files import CHECKPOINTS

NOT_A_NUMBER = "its geometry is not a number"


class CollapseAlarm(Callback):
    """Name a prefix that has collapsed at `config.checks` validations in a row.

    A prefix has collapsed when its effective rank, as a share of its width, its share of dead
    coordinates or the mean cosine of its rows cross their thresholds; one that is not a number
    counts at once. A language model that was never trained for similarity may be beyond them before
    training: then its own value before training is the threshold. Each prefix is named once, on
    standard error and as a W&B alert. With `config.stop` the state is saved into
    `folder`/checkpoints and training stops; `reason` has the message.

    The values are those of `spectral`, an earlier callback of the trainer, and the same on every
    rank, so that all stop together.
    """

    def __init__(self, spectral: SpectralIsotropy, config: AlarmConfig, folder: Path) -> None:
        self.spectral = spectral
        self.config = config
        self.folder = folder
        self.reason: str | None = None
        self.saved: Path | None = None
        self._bad: dict[int, int] = {}
        self._before: dict[str, float] = {}
        self._alarmed: set[int] = set()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.sanity_checking:
            self._before = dict(self.spectral.values)
        if trainer.sanity_checking or not self.spectral.values:
            return
        for dim in self.spectral.dims:
            limits = thresholds(self._before, dim, self.config)
            reason = collapse_reason(self.spectral.values, dim, limits)
            self._bad[dim] = self._bad.get(dim, 0) + 1 if reason else 0
            if reason is None:
                self._alarmed.discard(dim)
            elif dim not in self._alarmed and (
                reason == NOT_A_NUMBER or self._bad[dim] >= self.config.checks
            ):
                self._alarmed.add(dim)
                self.sound(trainer, dim, reason)

    def sound(self, trainer: Trainer, dim: int, reason: str) -> None:
        """Give the alarm for a prefix, and stop the run if the config says so."""
        checks = "" if reason == NOT_A_NUMBER else f" at {self._bad[dim]} validations in a row"
        text = (
            f"step {trainer.global_step}: the first {dim} dimensions of the embedding have "
            f"collapsed: {reason}{checks}; lower trainer.learning_rate, look at the weights of the "
            "objective (balance/ in metrics.jsonl), or set monitor.alarm"
        )
        first, self.reason = self.reason is None, self.reason or text
        if trainer.is_global_zero:
            notice(f"collapse: {text}")
            for logger in trainer.loggers:
                if hasattr(logger, "alert"):
                    logger.alert(f"collapse of the first {dim}", text)
        if self.config.stop and first:
            self.saved = self.folder / CHECKPOINTS / f"collapse-step={trainer.global_step}.ckpt"
            save_state(trainer, self.saved)
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "bad": dict(self._bad),
            "before": dict(self._before),
            "said": sorted(self._alarmed),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._bad, self._before = dict(state_dict["bad"]), dict(state_dict["before"])
        self._alarmed = set(state_dict["said"])


def thresholds(before: Mapping[str, float], dim: int, config: AlarmConfig) -> AlarmConfig:
    """The config's thresholds, or a prefix's values before training where those were worse.

    >>> thresholds({"geometry/mean_cosine/d16": 0.98}, 16, AlarmConfig()).mean_cosine
    0.98
    """

    def before_training(name: str, otherwise: float) -> float:
        value = before.get(f"geometry/{name}/d{dim}", otherwise)
        return value if math.isfinite(value) else otherwise

    rank, dead, cosine = config.effective_rank, config.dead_share, config.mean_cosine
    return replace(
        config,
        effective_rank=min(rank, before_training("effective_rank_share", rank)),
        dead_share=max(dead, before_training("dead_share", dead)),
        mean_cosine=max(cosine, before_training("mean_cosine", cosine)),
    )


def collapse_reason(values: Mapping[str, float], dim: int, limits: AlarmConfig) -> str | None:
    """Why a prefix counts as collapsed, with its value and threshold; None if it does not.

    >>> healthy = {"effective_rank_share": 0.8, "dead_share": 0.0, "mean_cosine": 0.1}
    >>> named = {f"geometry/{name}/d16": value for name, value in healthy.items()}
    >>> collapse_reason(named, 16, AlarmConfig())
    >>> collapse_reason(named | {"geometry/mean_cosine/d16": 0.99}, 16, AlarmConfig())
    'mean_cosine 0.990 (above 0.95)'
    """
    rank, dead, cosine = (
        values[f"geometry/{name}/d{dim}"]
        for name in ("effective_rank_share", "dead_share", "mean_cosine")
    )
    if not all(map(math.isfinite, (rank, dead, cosine))):
        return NOT_A_NUMBER
    if rank < limits.effective_rank:
        return f"effective_rank_share {rank:.3f} (below {limits.effective_rank:.3g})"
    if dead > limits.dead_share:
        return f"dead_share {dead:.3f} (above {limits.dead_share:.3g})"
    if cosine > limits.mean_cosine:
        return f"mean_cosine {cosine:.3f} (above {limits.mean_cosine:.3g})"
    return None


def save_state(trainer: Trainer, file: Path) -> None:
    """Save the whole state, whole or not at all; all ranks have to call it.

    Raises RunError where the disk does not take it.
    """
    partial = partial_path(file)
    if trainer.is_global_zero:
        file.parent.mkdir(exist_ok=True)
    trainer.strategy.barrier()
    trainer.save_checkpoint(partial, weights_only=False)

    def rename() -> None:
        error = getattr(trainer.strategy.checkpoint_io, "error", None)
        if error is not None:
            partial.unlink(missing_ok=True)
            raise RunError(f"{file}: could not be written: {error}; make room")
        partial.replace(file)

    from_rank_zero(rename)
