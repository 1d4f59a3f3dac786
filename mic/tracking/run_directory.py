"""Create and describe a run directory: one folder a run, complete without any account or server.

config.yaml, metrics.jsonl, results.json, figures/ and encoder/ are the contract between training,
reports and people; results.json is written last, so that a folder with it is a finished run.
run.json holds the run's id, and a segment for every time that it was begun or gone on with.
"""

import json
import os
import secrets
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.errors import InputError
from mic.files import free_bytes, write_json, write_text

RESULTS = "results.json"
METRICS = "metrics.jsonl"
ABOUT = "run.json"
ENCODER = "encoder"
FIGURES = "figures"
PACKAGES = (
    "mic-embeddings",
    "torch",
    "lightning",
    "transformers",
    "datasets",
    "numpy",
    "scikit-learn",
)


def path_of(config: Config) -> Path:
    return Path(config.runs) / config.name


def refuse_foreign(folder: Path) -> None:
    """Raise an InputError when something else than a run is at the place of one."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: is a file or a link; choose another name=...")
    if folder.exists() and any(folder.iterdir()) and not is_run(folder):
        raise InputError(f"{folder}: holds files that are no run of mic; choose another name=...")


def is_run(folder: Path) -> bool:
    """Whether mic wrote the folder's config.yaml: other programs' projects have one, too."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and {item.name for item in fields(Config)} <= content.keys()


def create(config: Config) -> Path:
    """Make the run's folder anew with its config; whatever run was there is gone."""
    folder = path_of(config)
    refuse_foreign(folder)
    if folder.exists():
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; set runs=FOLDER") from None
    write_text(folder / "config.yaml", to_yaml(config))
    return folder


def refuse_full_disk(config: Config, needed: int) -> None:
    """Raise an InputError when the disk of `runs` has less than `needed` bytes free."""
    free = free_bytes(path_of(config))
    if free < needed:
        raise InputError(
            f"runs={config.runs}: {free / 1e6:.0f} MB free, and the checkpoints and the trained "
            f"model take {needed / 1e6:.0f} MB; free some, or set runs=FOLDER on another disk"
        )


def about(folder: Path) -> dict[str, Any]:
    """What run.json says of a run: its id, made at the first call and kept, and what was synced.

    A sweep's agent names the run before it begins: then WANDB_RUN_ID is the id.
    """
    file = folder / ABOUT
    if file.is_file():
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{file}: not JSON; remove it (W&B then makes a new run)") from None
        return found
    letters = string.ascii_lowercase + string.digits
    chosen = "".join(secrets.choice(letters) for _ in range(8))
    found = {"id": os.environ.get("WANDB_RUN_ID") or chosen}
    write_json(file, found)
    return found


def begin_segment(folder: Path, segment: Mapping[str, Any]) -> int:
    """Add to run.json where a process began or went on; how many have so far."""
    known = about(folder)
    segments = [*known.get("segments", []), segment]
    write_json(folder / ABOUT, {**known, "segments": segments})
    return len(segments)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    return {
        "python": sys.version.split()[0],
        **{package: version(package) for package in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of the checkout that mic runs from; None outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
