"""What a run is but for its seed: runs that share it are one method, shown as mean and interval."""

import hashlib
from pathlib import Path
from typing import Any

from mic.config.diff import NAMES, dotted
from mic.config.loading import load
from mic.config.schema import Config
from mic.errors import InputError
from mic.tracking import run_directory

STARTS = ("encoder.name", "teacher.name")  # may be runs themselves, of a seed of their own


def but_for_seed(config: Config, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Every value that decides what is trained, by its dotted key, but the seed.

    A start or a teacher that is a run counts as what that run is but for its seed. `above` are the
    runs that start from this one.
    """
    kept = {
        key: value
        for key, value in dotted(config).items()
        if key not in ("seed", *NAMES) and not key.startswith("logging.")
    }
    return kept | {key: start_of(kept[key], above) for key in STARTS}


def start_of(name: str | None, above: tuple[Path, ...]) -> str | None:
    """A model's name; of a run that is there, what its runs with other seeds have as well."""
    folder = Path(name or "").expanduser().resolve()
    if name is None or folder in above or not run_directory.is_run(folder):
        return name
    try:
        config = load(folder / "config.yaml")
    except InputError:  # of a version with other keys
        return name
    return f"run:{digest(but_for_seed(config, (*above, folder)))}"


def digest(found: dict[str, Any]) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()
