"""Group runs that differ by their seed alone; means over a group, with Student's interval."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from string import digits
from typing import Any, NamedTuple

from scipy.stats import t

from mic.config.diff import NAMES, dotted
from mic.config.loading import load
from mic.config.schema import Config
from mic.errors import InputError
from mic.tracking import run_directory
from mic.tracking.metrics_log import Series
from mic.tracking.reader import Run

LEVEL = 0.95
LONGEST = 40  # letters of a label
MARKS = "-_.= "
STARTS = ("encoder.name", "teacher.name")  # may be runs themselves, of a seed of their own


class Interval(NamedTuple):
    """A mean over `runs` runs, and half the width of its interval; 0 for one run."""

    mean: float
    half: float
    runs: int

    def shown(self, digits: int) -> str:
        """
        >>> Interval(81.25, 0.31, 3).shown(1), Interval(81.25, 0.0, 1).shown(2)
        ('81.2 ± 0.3', '81.25')
        """
        half = f" ± {self.half:.{digits}f}" if self.half else ""
        return f"{self.mean:.{digits}f}{half}"


class Group(NamedTuple):
    label: str
    runs: list[Run]

    def series(self, name: str) -> dict[int, Interval]:
        """A logged name over the runs that have it, at the steps that all of these have."""
        found = [run.metrics[name] for run in self.runs if name in run.metrics]
        return over_runs(found)


def over_runs(found: Sequence[Series]) -> dict[int, Interval]:
    steps = set(found[0]).intersection(*found) if found else set()
    return {step: interval([one[step] for one in found]) for step in sorted(steps)}


def interval(values: Sequence[float]) -> Interval:
    """The mean, and the 95 % interval of Student's t over the runs."""
    if len(values) < 2:
        return Interval(values[0], 0.0, len(values))
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Interval(mean(values), float(half), len(values))


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs of one config, whatever their seed, together; in the order of their first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(digest(but_for_seed(run.config)), []).append(run)
    groups = list(found.values())
    labels = distinct(groups)
    return [
        Group(label, sorted(group, key=lambda run: run.config.seed))
        for label, group in zip(labels, groups, strict=True)
    ]


def differences(groups: Sequence[Sequence[Run]]) -> list[dict[str, Any]]:
    """What sets every group apart: the values of the keys that not all groups agree on."""
    configs = [but_for_seed(group[0].config) for group in groups]
    shown = [dotted(group[0].config) for group in groups]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    apart = [
        key
        for key in keys
        if any(repr(one.get(key)) != repr(configs[0].get(key)) for one in configs)
    ]
    return [{key: config[key] for key in apart if key in config} for config in shown]


def distinct(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A label a group: what sets it apart, where that is short, else the runs' common name."""
    stems = [stem(group) for group in groups]
    if len(groups) == 1:
        return stems
    apart = [
        ", ".join(f"{key}={plain(value)}" for key, value in one.items())
        for one in differences(groups)
    ]
    if all(0 < len(one) <= LONGEST for one in apart):
        return apart
    taken = Counter(stems)
    return [
        name if taken[name] == 1 else f"{name} ({group[0].name})"
        for name, group in zip(stems, groups, strict=True)
    ]


def plain(value: Any) -> str:
    """A value as one writes it on the command line.

    >>> plain(None), plain(True), plain([16, 64]), plain(2.0), plain(1e-5), plain({"weight": 1})
    ('null', 'true', '[16,64]', '2', '1e-05', '{weight:1}')
    """
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{plain(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def stem(group: Sequence[Run]) -> str:
    """The name of a group's runs without the number of the seed."""
    return common([run.name for run in group])


def common(names: Sequence[str]) -> str:
    """What names begin with, less the number that sets them apart; a single name as it is.

    >>> common(["mic-d16-seed0", "mic-d16-seed1"]), common(["mic-10", "mic-11"]), common(["mic-0"])
    ('mic-d16', 'mic', 'mic-0')
    """
    if len(names) == 1:
        return names[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    start = shared.rstrip(digits).rstrip(MARKS).removesuffix("seed").rstrip(MARKS)
    return start or names[0]


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
