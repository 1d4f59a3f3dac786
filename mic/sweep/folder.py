"""Write a sweep's folder: the sweep file, the base config, and the state of every trial.

sweep.yaml is the file, base.yaml the config that its trials change; a trial.json in every run
directory holds the trial's state. Reports read them; workers read the queue (sweep/queue) alone.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from mic.config.diff import changed_values, may_change
from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.errors import InputError
from mic.files import write_json, write_text
from mic.sweep.queue.state import QueuedTrial
from mic.sweep.sweep_file import Sweep, as_override
from mic.tracking import run_directory

SWEEP, BASE, TRIAL = "sweep.yaml", "base.yaml", "trial.json"


def create_folder(sweep: Sweep) -> Path:
    """Make the sweep's folder, or use the one that is there.

    Raises InputError when it is something else, or belongs to a sweep of another base config.
    """
    folder = sweep.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the sweep another `name:`")
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder}: is a run; give the sweep another `name:`")
    base = folder / BASE
    if base.is_file():
        changed = changed_values(load(base), sweep.base)
        forbidden = [
            f"{key} was {old}, is {new}"
            for key, (old, new) in changed.items()
            if key == "trainer.max_steps" or not may_change(key, [old, new])
        ]
        if forbidden:
            raise InputError(
                f"{folder}: a sweep over another config has begun: {'; '.join(forbidden)}; give "
                "this one another `name:`"
            )
    write_sweep(sweep, folder)
    return folder


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write the sweep file and the base config, which reports need, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(sweep.content, sort_keys=False, allow_unicode=True)
    write_text(folder / SWEEP, text)
    write_text(folder / BASE, to_yaml(sweep.base))


def trial_config(sweep: Sweep, trial: QueuedTrial) -> Config:
    """The config of a trial, in its own run directory, grouped with the other seeds in W&B."""
    logging = sweep.base.logging
    group = logging.group or f"{sweep.name}/{trial.setting.name}"
    return sweep.config_of(
        trial.setting.point,
        trial.seed,
        f"name={trial.name}",
        f"runs={as_override(str(sweep.folder))}",
        f"logging.group={as_override(group)}",
        f"logging.tags={as_override([*logging.tags, sweep.name])}",
    )


def write_trial(
    trial: QueuedTrial, config: Config, state: str, worker: str, lines: Sequence[str] = ()
) -> None:
    """Write trial.json, the state of a trial, into its folder."""
    folder = run_directory.path_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "setting": trial.setting.label,
        "seed": trial.seed,
        "state": state,
        "parameters": trial.setting.point,
        "attempts": len(trial.attempts),
        "worker": worker,
        "seconds": sum(attempt.seconds for attempt in trial.attempts),
        "lines": list(lines),
    }
    write_json(folder / TRIAL, content)
