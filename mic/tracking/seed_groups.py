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

from mic.config.diff import NAMES, flat_values
from mic.config.schema import Config
from mic.errors import InputError
from mic.tracking import run_directory
from mic.tracking.metrics_log import Series
from mic.tracking.reader import Run

LEVEL = 0.95
LONGEST = 40  # characters of a label
MARKS = "-_.= "
STARTS = ("encoder.name", "teacher.name")  # may be runs, which have seeds too


class Interval(NamedTuple):
    """A mean over `runs` runs, and half the width of its interval; 0 for one run."""

    mean: float
    half: float
    runs: int

    def shown(self, digits: int) -> str:
        """The mean and the half width as text.

        >>> Interval(81.25, 0.31, 3).shown(1), Interval(81.25, 0.0, 1).shown(2)
        ('81.2 ± 0.3', '81.25')
        """
        half = f" ± {self.half:.{digits}f}" if self.half else ""
        return f"{self.mean:.{digits}f}{half}"


class SeedGroup(NamedTuple):
    """Runs that differ by their seed alone, and a label for tables and figures."""

    label: str
    runs: list[Run]

    def series(self, name: str) -> dict[int, Interval]:
        """A logged name over the runs that have it, at the steps that all of these have."""
        return series_over_runs([run.metrics[name] for run in self.runs if name in run.metrics])


def series_over_runs(series: Sequence[Series]) -> dict[int, Interval]:
    """Means and intervals over several runs' series, at the steps that all of them have."""
    steps = set(series[0]).intersection(*series) if series else set()
    return {step: interval([values[step] for values in series]) for step in sorted(steps)}


def interval(values: Sequence[float]) -> Interval:
    """The mean, and the 95 % interval of Student's t over the runs."""
    if len(values) < 2:
        return Interval(values[0], 0.0, len(values))
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Interval(mean(values), float(half), len(values))


def group_by_seed(runs: Iterable[Run]) -> list[SeedGroup]:
    """Group the runs that differ by their seed alone, in the order of each group's first run."""
    by_digest: dict[str, list[Run]] = {}
    for run in runs:
        by_digest.setdefault(config_digest(values_without_seed(run.config)), []).append(run)
    groups = list(by_digest.values())
    labels = group_labels(groups)
    return [
        SeedGroup(label, sorted(group, key=lambda run: run.config.seed))
        for label, group in zip(labels, groups, strict=True)
    ]


def group_differences(groups: Sequence[Sequence[Run]]) -> list[dict[str, Any]]:
    """For each group, its values of the keys whose values differ between groups."""
    configs = [values_without_seed(group[0].config) for group in groups]
    shown = [flat_values(group[0].config) for group in groups]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    apart = [
        key
        for key in keys
        if any(repr(config.get(key)) != repr(configs[0].get(key)) for config in configs)
    ]
    return [{key: config[key] for key in apart if key in config} for config in shown]


def group_labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A label for each group: its differing values, where these are short, else its common name."""
    stems = [group_name(group) for group in groups]
    if len(groups) == 1:
        return stems
    apart = [
        ", ".join(f"{key}={format_value(value)}" for key, value in values.items())
        for values in group_differences(groups)
    ]
    if all(0 < len(label) <= LONGEST for label in apart):
        return apart
    taken = Counter(stems)
    return [
        name if taken[name] == 1 else f"{name} ({group[0].name})"
        for name, group in zip(stems, groups, strict=True)
    ]


def format_value(value: Any) -> str:
    """A value as it is written on the command line.

    >>> [format_value(value) for value in (None, True, [16, 64], 2.0, 1e-5, {"weight": 1})]
    ['null', 'true', '[16,64]', '2', '1e-05', '{weight:1}']
    """
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{format_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def group_name(group: Sequence[Run]) -> str:
    """The common name of a group's runs, without the number of the seed."""
    return common_name([run.name for run in group])


def common_name(names: Sequence[str]) -> str:
    """What names begin with, without a number at the end; a single name as it is.

    >>> common_name(["mic-d16-seed0", "mic-d16-seed1"]), common_name(["mic-10", "mic-11"])
    ('mic-d16', 'mic')
    >>> common_name(["mic-0"])
    'mic-0'
    """
    if len(names) == 1:
        return names[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    start = shared.rstrip(digits).rstrip(MARKS).removesuffix("seed").rstrip(MARKS)
    return start or names[0]


def values_without_seed(config: Config, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Every value that decides what is trained, by its dotted key, except the seed.

    An encoder or a teacher that is itself a run is named by the digest of its values without the
    seed. `above` are the runs that start from this one.
    """
    values = {
        key: value
        for key, value in flat_values(config).items()
        if key not in ("seed", *NAMES) and not key.startswith("logging.")
    }
    return values | {key: start_key(values[key], above) for key in STARTS}


def start_key(name: str | None, above: tuple[Path, ...]) -> str | None:
    """A model's name; for a run, a key that its runs with other seeds share."""
    folder = Path(name or "").expanduser().resolve()
    if name is None or folder in above or not run_directory.is_run(folder):
        return name
    try:
        config = run_directory.read_config(folder)
    except InputError:  # of a version with other keys
        return name
    return f"run:{config_digest(values_without_seed(config, (*above, folder)))}"


def config_digest(values: dict[str, Any]) -> str:
    """The SHA-256 of a config's values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()
