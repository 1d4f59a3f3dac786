"""A sweep's folder as data: its trials, and the settings that they are seeds of.

Whatever is there so far, by mic's own workers or by W&B's agents: a trial is a run directory, or a
folder with nothing but trial.json when it failed before it could begin.
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

SWEEP, BASE, ABOUT, LOGS = "sweep.yaml", "base.yaml", "trial.json", "logs"
STATES = ("finished", "unfinished", "waiting", "running", "pruned", "failed")
LINES = 20  # of a log's end


class Trial(NamedTuple):
    """One run of a sweep. `run` is None where nothing was begun; `lines` say why it failed."""

    folder: Path
    number: int | None  # of its setting, where the sweep's own workers gave it one
    seed: int
    point: Point
    state: str
    run: Run | None
    about: Mapping[str, Any]
    lines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seconds(self) -> float | None:
        seconds = self.about.get("seconds")
        return seconds if seconds is not None or self.run is None else self.run.meta.get("seconds")


class Setting(NamedTuple):
    """A value for every parameter, and the trials that tried it, by seed; `seeds` are to."""

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
        """Finished when all seeds are; else what its other trials are, the worst of several."""
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
    trials = [read_trial(place, sweep) for place in sorted(places(folder))]
    return sweep, settings([trial for trial in trials if trial.run or trial.about], sweep.seeds)


def places(folder: Path) -> Iterator[Path]:
    """The folders that may be those of trials."""
    for inner in folder.iterdir():
        known = (inner / ABOUT).is_file() or (inner / "config.yaml").is_file()
        if known and not inner.name.startswith("."):
            yield inner


def read_trial(folder: Path, sweep: Sweep) -> Trial:
    about = read_about(folder / ABOUT)
    run = read_begun(folder)
    state = about.get("state", "unfinished")
    if run and run.finished:
        state = "finished"
    elif state == "finished" or state not in STATES:  # its worker has died since
        state = "unfinished"
    number = about.get("setting")
    seed = run.config.seed if run else about.get("seed", sweep.seeds[0])
    content = asdict(run.config) if run else about.get("parameters") or {}
    lines = (about.get("lines") or log_end(folder)) if state == "failed" else ()
    point = point_of(content, sweep.parameters)
    return Trial(folder, number, seed, point, state, run, about, tuple(map(str, lines)))


def read_begun(folder: Path) -> Run | None:
    """A run as far as it is; None where none was begun, or where it is begun anew just now."""
    try:
        return read_run(folder, geometry=False)
    except InputError:
        if is_run(folder):
            raise
    return None


def read_about(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{file}: not JSON; remove it, and its trial counts by its run") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not about a trial; remove it")
    return content


def log_end(folder: Path) -> list[str]:
    """The last lines of a trial's log."""
    file = folder.parent / LOGS / f"{folder.name}.log"
    if not file.is_file():
        return []
    return file.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]


def point_of(content: Any, parameters: Sequence[Parameter]) -> Point:
    """The values that a config has for the parameters, as the sweep file writes them."""
    return {axis.key: meant(value_at(content, axis.key), axis) for axis in parameters}


def value_at(node: Any, key: str) -> Any:
    """What stands at a dotted key; a name on the way may itself hold dots.

    >>> value_at({"data": {"a.b": {"weight": 2}}}, "data.a.b.weight")
    2
    """
    if not key:
        return node
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if isinstance(node, Mapping) and name in node:
            return value_at(node[name], ".".join(parts[count:]))
    return None


def meant(value: Any, axis: Parameter) -> Any:
    """The parameter's own value that a config's stands for: a section may be given in part."""
    fitting = [candidate for candidate in axis.values or () if holds(value, candidate)]
    return max(
        fitting,
        key=lambda candidate: len(candidate) if isinstance(candidate, dict) else 0,
        default=value,
    )


def holds(value: Any, part: Any) -> bool:
    """Whether a config's value is what was asked for.

    >>> holds({"weight": 1.0, "warmup_steps": 0}, {"weight": 1}), holds([16], [16]), holds(1, True)
    (True, True, False)
    """
    if isinstance(part, Mapping):
        return isinstance(value, Mapping) and all(
            name in value and holds(value[name], part_value) for name, part_value in part.items()
        )
    return bool(value == part) and isinstance(value, bool) == isinstance(part, bool)


def settings(trials: Sequence[Trial], seeds: tuple[int, ...]) -> list[Setting]:
    """Trials of the same values together, under the workers' numbers where there are some."""
    numbered: dict[int, list[Trial]] = {}
    others: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.number is not None:
            numbered.setdefault(trial.number, []).append(trial)
        else:
            others.setdefault(repr(trial.point), []).append(trial)
    known = {repr(values_of(group)): number for number, group in reversed(numbered.items())}
    free = (number for number in range(len(trials)) if number not in numbered)
    for values, group in others.items():
        number = known[values] if values in known else next(free)
        numbered[number] = [*numbered.get(number, ()), *group]
    return [
        Setting(number, values_of(group), sorted(group, key=lambda trial: trial.seed), seeds)
        for number, group in sorted(numbered.items())
    ]


def values_of(trials: Sequence[Trial]) -> Point:
    """The values of one setting: a trial that never began may not say them."""
    return next((trial.point for trial in trials if trial.run), trials[0].point)
