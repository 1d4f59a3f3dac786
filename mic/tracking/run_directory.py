"""Create and describe a run directory: one folder a run, complete without any account or server.

config.yaml, metrics.jsonl, results.json, figures/ and encoder/ are what training, reports and users
share; results.json is written last, so that a folder with it is a finished run. run.json holds the
run's id, and a segment for every time that it was begun or resumed.
"""

import json
import os
import secrets
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.errors import InputError
from mic.files import free_bytes, write_json, write_text

CONFIG = "config.yaml"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
RUN_INFO = "run.json"
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


def refuse_other_folder(folder: Path) -> None:
    """Raise an InputError when the folder exists and is not a run of mic."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: is a file or a link; choose another name=...")
    if folder.exists() and any(folder.iterdir()) and not is_run(folder):
        raise InputError(f"{folder}: holds files that are no run of mic; choose another name=...")


def is_run(folder: Path) -> bool:
    """Whether mic wrote the folder's config.yaml: other programs write files of that name, too."""
    try:
        content = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and {item.name for item in fields(Config)} <= content.keys()


def read_config(folder: Path, *overrides: str) -> Config:
    """The config of a run, with overrides.

    Before version 0.2 `encoder.max_length` was the length for everything, which it stays for a run
    of then. Raises InputError for one that cannot be read.
    """
    if (length := earlier_length(folder)) is not None:
        same = (f"encoder.{use}_max_length={length}" for use in ("eval", "save"))
        overrides = (*same, *overrides)
    return load(folder / CONFIG, *overrides)


def earlier_length(folder: Path) -> int | None:
    """The one length of a run of before version 0.2; None for any other folder."""
    if not is_run(folder):
        return None
    encoder = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["encoder"]
    return None if "eval_max_length" in encoder else int(encoder["max_length"])


def with_earlier_length(config: Config) -> Config:
    """The config with the one length of the run that its folder holds, if it is of before 0.2."""
    length, encoder = earlier_length(path_of(config)), config.encoder
    if length is None:
        return config
    kept = replace(
        encoder,
        eval_max_length=encoder.eval_max_length or length,
        save_max_length=encoder.save_max_length or length,
    )
    return replace(config, encoder=kept)


def create(config: Config) -> Path:
    """Create the run's folder with its config; an earlier run in it is removed."""
    folder = path_of(config)
    refuse_other_folder(folder)
    if folder.exists():
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; set runs=FOLDER") from None
    write_text(folder / CONFIG, to_yaml(config))
    return folder


def require_free_disk(config: Config, needed: int) -> None:
    """Raise an InputError when the disk of `runs` has less than `needed` bytes free."""
    free = free_bytes(path_of(config))
    if free < needed:
        raise InputError(
            f"runs={config.runs}: {free / 1e6:.0f} MB free, and the checkpoints and the trained "
            f"model take {needed / 1e6:.0f} MB; free some, or set runs=FOLDER on another disk"
        )


def run_info(folder: Path) -> dict[str, Any]:
    """Read run.json: the run's id, its segments, and what was synced.

    The first call creates the file and the id, which is WANDB_RUN_ID where a sweep's agent sets it.
    """
    file = folder / RUN_INFO
    if file.is_file():
        try:
            info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{file}: not JSON; remove it (W&B then makes a new run)") from None
        return info
    letters = string.ascii_lowercase + string.digits
    chosen = "".join(secrets.choice(letters) for _ in range(8))
    info = {"id": os.environ.get("WANDB_RUN_ID") or chosen}
    write_json(file, info)
    return info


def begin_segment(folder: Path, segment: Mapping[str, Any]) -> int:
    """Add a segment to run.json: a process that began or resumed the run. Return their number."""
    info = run_info(folder)
    segments = [*info.get("segments", []), segment]
    write_json(folder / RUN_INFO, {**info, "segments": segments})
    return len(segments)


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    return {
        "python": sys.version.split()[0],
        **{package: version(package) for package in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of the checkout that mic runs from; None outside one."""
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()
