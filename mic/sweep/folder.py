"""A sweep's folder: what it sweeps, and what became of every run, for reports and people.

sweep.yaml is the file; base.yaml the config that its trials change; every run's trial.json says how
far it is. The queue is elsewhere (sweep/queue): nothing here is read to decide anything.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from mic.config.diff import changed_values, may_change
from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.errors import InputError
from mic.files import write_json, write_text
from mic.sweep.queue.state import Run
from mic.sweep.sweep_file import Sweep, as_override
from mic.tracking import run_directory

SWEEP, BASE, TRIAL = "sweep.yaml", "base.yaml", "trial.json"


def lay_out(sweep: Sweep) -> Path:
    """Make the sweep's folder, or find it as it is.

    Raises InputError when it is something else, or belongs to a sweep of another base config.
    """
    folder = sweep.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the sweep another `name:`")
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder}: is a run; give the sweep another `name:`")
    known = folder / BASE
    if known.is_file():
        changed = changed_values(load(known), sweep.base)
        wrong = [
            f"{key} was {old}, is {new}"
            for key, (old, new) in changed.items()
            if key == "trainer.max_steps" or not may_change(key, [old, new])
        ]
        if wrong:
            raise InputError(
                f"{folder}: a sweep over another config has begun: {'; '.join(wrong)}; give this "
                "one another `name:`"
            )
    write_down(sweep, folder)
    return folder


def write_down(sweep: Sweep, folder: Path) -> None:
    """Write into a folder what is swept, which its reports need."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(sweep.content, sort_keys=False, allow_unicode=True)
    write_text(folder / SWEEP, text)
    write_text(folder / BASE, to_yaml(sweep.base))


def config_of(sweep: Sweep, run: Run) -> Config:
    """The config of a run, in its own folder, grouped with the other seeds in W&B."""
    base = sweep.base.logging
    group = base.group or f"{sweep.name}/{run.setting.name}"
    return sweep.config_of(
        run.setting.point,
        run.seed,
        f"name={run.name}",
        f"runs={as_override(str(sweep.folder))}",
        f"logging.group={as_override(group)}",
        f"logging.tags={as_override([*base.tags, sweep.name])}",
    )


def tell(run: Run, config: Config, state: str, worker: str, lines: Sequence[str] = ()) -> None:
    """Say in a run's folder how far it is."""
    folder = run_directory.path_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "setting": run.setting.label,
        "seed": run.seed,
        "state": state,
        "parameters": run.setting.point,
        "attempts": len(run.attempts),
        "worker": worker,
        "seconds": sum(one.seconds for one in run.attempts),
        "lines": list(lines),
    }
    write_json(folder / TRIAL, content)
