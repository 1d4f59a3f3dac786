"""Compare configs: the keys whose values differ, and which of these a resumed run may change."""

from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from mic.config.loading import leaf_values
from mic.config.schema import Config

NAMES = ("name", "runs")  # say where a run is, not what

# names, paths, logging, and how work is spread over processes: they do not affect what is trained
CHANGEABLE = (
    "name",
    "runs",
    "logging.*",
    "data.num_workers",
    "data.*.path",
    "evaluation.*.path",
    "evaluation.*.corpus",
    "evaluation.*.queries",
    "evaluation.*.qrels",
    "teacher.folder",
    "trainer.devices",
    "trainer.strategy",
    "trainer.save_every",
)


def flat_values(config: Config) -> dict[str, Any]:
    """Every value of a config by its dotted key."""
    return {".".join(map(str, path)): value for path, value in leaf_values(asdict(config))}


def config_diff(config: Config, base: Config | None = None) -> dict[str, Any]:
    """The values of a config that differ from those of `base`, by default the defaults.

    >>> config_diff(Config(name="mine", seed=3))
    {'seed': 3}
    """
    values, base_values = flat_values(config), flat_values(base or Config())
    return {
        key: value
        for key, value in values.items()
        if (key not in base_values or base_values[key] != value) and key not in NAMES
    }


def run_title(config: Config, longest: int = 120) -> str:
    """A run's name with the values that differ from the defaults, for lists of runs.

    Values of data, evaluation, logging, monitor and encoder are left out.
    """
    changes = [
        f"{key.removeprefix('objective.').removeprefix('trainer.')}={value}"
        for key, value in config_diff(config).items()
        if not key.startswith(("data.", "evaluation.", "logging.", "monitor.", "encoder."))
    ]
    title = " ".join([config.name, *changes])
    return title if len(title) <= longest else f"{title[: longest - 1]}…"


def changed_values(old: Config, new: Config) -> dict[str, list[Any]]:
    """The keys whose values differ, with the old and the new value; None for a key that is missing.

    >>> changed_values(Config(seed=1), Config(seed=2))
    {'seed': [1, 2]}
    """
    before, after = flat_values(old), flat_values(new)
    keys = [*before, *(key for key in after if key not in before)]
    pairs = {key: [before.get(key), after.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def may_change(key: str, values: Sequence[Any]) -> bool:
    """Whether a run may be resumed with another value of a key; `values` are the old and the new.

    >>> may_change("trainer.max_steps", [10, 20]), may_change("trainer.max_steps", [20, 10])
    (True, False)
    >>> may_change("data.train.mine.path", ["a", "b"]), may_change("seed", [1, 2])
    (True, False)
    """
    if key == "trainer.max_steps":
        return bool(values[1] > values[0])
    return any(fnmatchcase(key, pattern) for pattern in CHANGEABLE)


def in_section(key: str, section: str) -> bool:
    """Whether a key is `section` itself or stands below it."""
    return key == section or key.startswith(f"{section}.")
