"""Compare configs: the keys whose values differ, and which of these do not affect the training."""

from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from mic.config.loading import values
from mic.config.schema import Config

NAMES = ("name", "runs")  # say where a run is, not what

# keys that a resumed run may change: names, paths, logging, and how work is spread over processes
HARMLESS = (
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


def plain(config: Config) -> dict[str, Any]:
    """The config as plain dicts, lists and scalars."""
    return asdict(config)


def dotted(config: Config) -> dict[str, Any]:
    """Every value of a config by its dotted key."""
    return {".".join(map(str, path)): value for path, value in values(plain(config))}


def config_diff(config: Config, base: Config | None = None) -> dict[str, Any]:
    """The values of a config that differ from those of `base`, by default the defaults.

    >>> config_diff(Config(name="mine", seed=3))
    {'seed': 3}
    """
    own, other = dotted(config), dotted(base or Config())
    return {
        key: value
        for key, value in own.items()
        if (key not in other or other[key] != value) and key not in NAMES
    }


def title(config: Config, longest: int = 120) -> str:
    """A run's name with what sets it apart, without its data and paths, for lists of runs."""
    told = [
        f"{key.removeprefix('objective.').removeprefix('trainer.')}={value}"
        for key, value in config_diff(config).items()
        if not key.startswith(("data.", "evaluation.", "logging.", "monitor.", "encoder."))
    ]
    whole = " ".join([config.name, *told])
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"


def differences(old: Config, new: Config) -> dict[str, list[Any]]:
    """The keys whose values differ, with the old and the new value; null for one that is not there.

    >>> differences(Config(seed=1), Config(seed=2))
    {'seed': [1, 2]}
    """
    before, now = dotted(old), dotted(new)
    keys = [*before, *(key for key in now if key not in before)]
    found = {key: [before.get(key), now.get(key)] for key in keys}
    return {key: values for key, values in found.items() if values[0] != values[1]}


def harmless(key: str, values: Sequence[Any]) -> bool:
    """Whether a run may go on with another value of a key.

    >>> harmless("trainer.max_steps", [10, 20]), harmless("trainer.max_steps", [20, 10])
    (True, False)
    >>> harmless("data.train.mine.path", ["a", "b"]), harmless("seed", [1, 2])
    (True, False)
    """
    if key == "trainer.max_steps":
        return bool(values[1] > values[0])
    return any(fnmatchcase(key, pattern) for pattern in HARMLESS)


def within(key: str, allowed: str) -> bool:
    """Whether a key is the allowed one or of the allowed section."""
    return key == allowed or key.startswith(f"{allowed}.")
