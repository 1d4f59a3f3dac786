"""Settings of what is watched while a run trains, and where it is shown."""

from dataclasses import dataclass
from typing import Literal

from mic.config.fields import option


@dataclass
class AlarmConfig:
    """A prefix has collapsed when one of these is crossed at `checks` validations in a row."""

    effective_rank: float = option(
        0.1, "least effective rank, as a share of the width (or of the rows, if fewer)", least=0
    )
    dead_share: float = option(0.5, "largest share of dead coordinates", least=0)
    mean_cosine: float = option(0.95, "largest mean cosine of two different texts", above=-1)
    checks: int = option(3, "validations in a row; a NaN is one too many at once", least=1)
    stop: bool = option(False, "stop the run, with a checkpoint and exit code 1")


@dataclass
class MonitorConfig:
    geometry: bool = option(
        True, "measure every prefix's geometry on the validation rows, at each validation"
    )
    map_dim: int = option(
        128, "width of the correlation map of prefix and residual; the nearest of `dims`", least=1
    )
    pair_rows: int = option(
        2048, "validation rows that uniformity compares with each other at most", least=2
    )
    balance_every: int = option(
        100, "steps between measurements of each term's share of the gradient; 0: never", least=0
    )
    batches: bool = option(False, "write the rows of every global batch into batches.jsonl")
    alarm: AlarmConfig = option(AlarmConfig, "")


@dataclass
class LoggingConfig:
    """metrics.jsonl is always written; these mirror it."""

    wandb: Literal["disabled", "online", "offline"] = option(
        "disabled",
        "mirror into Weights & Biases; without a key online is offline: `mic sync` later",
    )
    project: str = option("mic", "W&B project")
    entity: str | None = option(None, "W&B user or team; null: the key's own")
    group: str | None = option(None, "W&B group, for example of one config's seeds")
    job_type: str = option("train", "W&B job type")
    tags: list[str] = option([], "W&B tags")
    tensorboard: bool = option(False, "mirror into RUN/tensorboard")
    csv: bool = option(False, "mirror into RUN/csv/metrics.csv")
