"""Read a sweep's folder: its trials, and the settings whose seeds they are.

The trials may be of mic's workers or of W&B's agents, and unfinished. A trial is a run directory,
or a folder with trial.json alone when it failed before it began.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from mic.errors import InputError
from mic.sweep.search_space import Parameter, Point
from mic.sweep.sweep_file import Sweep, read_sweep
from mic.tracking.reader import Run, read_run
from mic.tracking.run_directory import is_run

SWEEP, BASE, TRIAL, LOGS = "sweep.yaml", "base.yaml", "trial.json", "logs"
STATES = ("finished", "unfinished", "waiting", "running", "pruned", "failed")
LINES = 20  # of a log's end


class Trial(NamedTuple):
    """One trial of a sweep: `run` is None where none began, `lines` are the end of a failed log."""

    folder: Path
    number: int | None  # of its setting, where the sweep's own workers gave it one
    seed: int
    point: Point
    state: str
    run: Run | None
    record: Mapping[str, Any]  # of trial.json
    lines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seconds(self) -> float | None:
        seconds = self.record.get("seconds")
        if seconds is None and self.run is not None:
            seconds = self.run.meta.get("seconds")
        return seconds


class Setting(NamedTuple):
    """A value for every parameter, and the trials that have it, by seed; `seeds` are all wanted."""

    number: int
    point: Point
    trials: list[Trial]
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        return f"t{self.number:03d}"

    @property
    def finished(self) -> list[Run]:
        return [trial.run for trial in self.trials if trial.run and trial.state == "finished"]

    @property
    def complete(self) -> bool:
        """Whether it is finished with every seed, so that its mean is to be compared."""
        return set(self.seeds) <= {run.config.seed for run in self.finished}

    @property
    def state(self) -> str:
        """`finished` when all seeds are; else the worst state of its other trials."""
        if self.complete:
            return "finished"
        others = [trial.state for trial in self.trials if trial.state != "finished"]
        return max(others, key=STATES.index, default="unfinished")


def read_folder(folder: Path) -> tuple[Sweep, list[Setting]]:
    """A sweep and the settings that it has begun, in the order of their numbers.

    Raises InputError for a folder without a sweep, and a damaged file.
    """
    if not folder.is_dir():
        raise InputError(f"--sweep {folder}: no such folder; `mic sweep FILE` makes it")
    if not (folder / SWEEP).is_file():
        raise InputError(
            f"--sweep {folder}: no {SWEEP} in it; name the folder that `mic sweep` wrote, or "
            "put a copy of the sweep's file there"
        )
    base = folder / BASE
    sweep = read_sweep(folder / SWEEP, base=base if base.is_file() else None)
    trials = [read_trial(inner, sweep) for inner in sorted(trial_folders(folder))]
    started = [trial for trial in trials if trial.run or trial.record]
    return sweep, group_into_settings(started, sweep.seeds)


def trial_folders(folder: Path) -> Iterator[Path]:
    """The folders that may be those of trials."""
    for inner in folder.iterdir():
        known = (inner / TRIAL).is_file() or (inner / "config.yaml").is_file()
        if known and not inner.name.startswith("."):
            yield inner


def read_trial(folder: Path, sweep: Sweep) -> Trial:
    record = read_trial_file(folder / TRIAL)
    run = read_started_run(folder)
    state = record.get("state", "unfinished")
    if run and run.finished:
        state = "finished"
    elif state == "finished" or state not in STATES:  # its worker has died since
        state = "unfinished"
    number = record.get("setting")
    seed = run.config.seed if run else record.get("seed", sweep.seeds[0])
    content = asdict(run.config) if run else record.get("parameters") or {}
    lines = (record.get("lines") or log_end(folder)) if state == "failed" else ()
    point = point_of(content, sweep.parameters)
    return Trial(folder, number, seed, point, state, run, record, tuple(map(str, lines)))


def read_started_run(folder: Path) -> Run | None:
    """The run in a trial's folder; None where none has begun, or one is just starting again."""
    try:
        return read_run(folder, geometry=False)
    except InputError:
        if is_run(folder):
            raise
    return None


def read_trial_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{file}: not JSON; remove it, and its trial counts by its run") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not the record of a trial; remove it")
    return content


def log_end(folder: Path) -> list[str]:
    """The last lines of a trial's log."""
    file = folder.parent / LOGS / f"{folder.name}.log"
    if not file.is_file():
        return []
    return file.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]


def point_of(content: Any, parameters: Sequence[Parameter]) -> Point:
    """The values that a config has for the parameters, as the sweep file writes them."""
    return {axis.key: listed_value(config_value(content, axis.key), axis) for axis in parameters}


def config_value(node: Any, key: str) -> Any:
    """What stands at a dotted key; a name on the way may itself hold dots.

    >>> config_value({"data": {"a.b": {"weight": 2}}}, "data.a.b.weight")
    2
    """
    if not key:
        return node
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if isinstance(node, Mapping) and name in node:
            return config_value(node[name], ".".join(parts[count:]))
    return None


def listed_value(value: Any, axis: Parameter) -> Any:
    """The choice of the parameter that a config's value is, or that is a part of its section."""
    fitting = [choice for choice in axis.values or () if contains_value(value, choice)]
    return max(
        fitting, key=lambda choice: len(choice) if isinstance(choice, dict) else 0, default=value
    )


def contains_value(value: Any, wanted: Any) -> bool:
    """Whether a config's value is the wanted one, or a section that holds it.

    >>> contains_value({"weight": 1.0, "warmup_steps": 0}, {"weight": 1}), contains_value(1, True)
    (True, False)
    """
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            name in value and contains_value(value[name], inner) for name, inner in wanted.items()
        )
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def group_into_settings(trials: Sequence[Trial], seeds: tuple[int, ...]) -> list[Setting]:
    """Trials of the same values together, under the workers' numbers where there are some."""
    numbered: dict[int, list[Trial]] = {}
    others: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.number is not None:
            numbered.setdefault(trial.number, []).append(trial)
        else:
            others.setdefault(repr(trial.point), []).append(trial)
    known = {repr(setting_point(group)): number for number, group in reversed(numbered.items())}
    free = (number for number in range(len(trials)) if number not in numbered)
    for values, group in others.items():
        number = known[values] if values in known else next(free)
        numbered[number] = [*numbered.get(number, ()), *group]
    return [
        Setting(number, setting_point(group), sorted(group, key=lambda trial: trial.seed), seeds)
        for number, group in sorted(numbered.items())
    ]


def setting_point(trials: Sequence[Trial]) -> Point:
    """The values of a setting, of a trial with a run if there is one: others may lack them."""
    return next((trial.point for trial in trials if trial.run), trials[0].point)
