"""What a config changes: the keys whose values are not the defaults, or not another config's."""

from dataclasses import asdict
from typing import Any

from mic.config.loading import values
from mic.config.schema import Config

NAMES = ("name", "runs")  # say where a run is, not what


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
