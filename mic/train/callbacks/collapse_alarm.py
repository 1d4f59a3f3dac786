"""An alarm when a prefix collapses."""

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
    """Say which prefix has collapsed once it did at `config.checks` validations in a row.

    A prefix has collapsed when its effective rank, as a share of its width, its share of dead
    coordinates or the mean cosine of its rows cross their thresholds; one that is not a number
    counts at once. A language model that was never trained for similarity may be beyond them before
    training: then what it had is the threshold. Said once a prefix, on standard error and as a W&B
    alert. With `config.stop` the state is saved into `folder`/checkpoints and training stops;
    `reason` says why.

    The figures are those of `spectral`, an earlier callback of the trainer, and the same on every
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
        self._said: set[int] = set()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.sanity_checking:
            self._before = dict(self.spectral.values)
        if trainer.sanity_checking or not self.spectral.values:
            return
        for dim in self.spectral.dims:
            limits = thresholds(self._before, dim, self.config)
            wrong = collapse(self.spectral.values, dim, limits)
            self._bad[dim] = self._bad.get(dim, 0) + 1 if wrong else 0
            if wrong is None:
                self._said.discard(dim)
            elif dim not in self._said and (
                wrong == NOT_A_NUMBER or self._bad[dim] >= self.config.checks
            ):
                self._said.add(dim)
                self.sound(trainer, dim, wrong)

    def sound(self, trainer: Trainer, dim: int, wrong: str) -> None:
        """Say it, and stop the run if the config wants that."""
        checks = "" if wrong == NOT_A_NUMBER else f" at {self._bad[dim]} validations in a row"
        text = (
            f"step {trainer.global_step}: the first {dim} numbers of the embedding have collapsed: "
            f"{wrong}{checks}; lower trainer.learning_rate, look at the weights of the objective "
            "(balance/ in metrics.jsonl), or set monitor.alarm"
        )
        first, self.reason = self.reason is None, self.reason or text
        if trainer.is_global_zero:
            notice(f"collapse: {text}")
            for logger in trainer.loggers:
                if hasattr(logger, "alert"):
                    logger.alert(f"collapse of the first {dim}", text)
        if self.config.stop and first:
            self.saved = self.folder / CHECKPOINTS / f"collapse-step={trainer.global_step}.ckpt"
            save(trainer, self.saved)
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "bad": dict(self._bad),
            "before": dict(self._before),
            "said": sorted(self._said),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._bad, self._before = dict(state_dict["bad"]), dict(state_dict["before"])
        self._said = set(state_dict["said"])


def thresholds(before: Mapping[str, float], dim: int, config: AlarmConfig) -> AlarmConfig:
    """The config's thresholds, or what a prefix had before training where that was worse.

    >>> thresholds({"geometry/mean_cosine/d16": 0.98}, 16, AlarmConfig()).mean_cosine
    0.98
    """

    def had(name: str, otherwise: float) -> float:
        value = before.get(f"geometry/{name}/d{dim}", otherwise)
        return value if math.isfinite(value) else otherwise

    rank, dead, cosine = config.effective_rank, config.dead_share, config.mean_cosine
    return replace(
        config,
        effective_rank=min(rank, had("effective_rank_share", rank)),
        dead_share=max(dead, had("dead_share", dead)),
        mean_cosine=max(cosine, had("mean_cosine", cosine)),
    )


def collapse(values: Mapping[str, float], dim: int, limits: AlarmConfig) -> str | None:
    """What is wrong with a prefix, with its figure and threshold; None if nothing is.

    >>> healthy = {"effective_rank_share": 0.8, "dead_share": 0.0, "mean_cosine": 0.1}
    >>> named = {f"geometry/{name}/d16": value for name, value in healthy.items()}
    >>> collapse(named, 16, AlarmConfig())
    >>> collapse(named | {"geometry/mean_cosine/d16": 0.99}, 16, AlarmConfig())
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


def save(trainer: Trainer, file: Path) -> None:
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
