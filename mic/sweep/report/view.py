"""Hold what a sweep's panels show: its settings, their values, and the best of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.loading import leaf_values
from mic.config.schema import Config
from mic.report.panel import View, format_last, format_number
from mic.sweep.report.read import Setting
from mic.sweep.search_space import Parameter
from mic.sweep.sweep_file import Metric, Sweep
from mic.tracking.reader import Run, logged_widths
from mic.tracking.seed_groups import Interval, SeedGroup, format_value, interval

KNOWN = ("objective.", "trainer.")  # sections that short names leave out


class SettingValue(NamedTuple):
    """A setting with its value of some metric."""

    setting: Setting
    value: Interval


class SweepView(NamedTuple):
    """The state of a sweep, and the command that reports it."""

    folder: Path
    sweep: Sweep
    base: Config  # that the trials change
    settings: list[Setting]
    command: str

    @property
    def name(self) -> str:
        """The folder's: the file in it may have another."""
        return self.folder.resolve().name

    @property
    def complete(self) -> list[Setting]:
        """The settings that are finished with all seeds: those that are compared."""
        return [setting for setting in self.settings if setting.complete]

    @property
    def metric(self) -> Metric:
        """The metric that the best is chosen by."""
        return self.sweep.metrics[0]

    def values(self, name: str) -> list[SettingValue]:
        """The complete settings with their finite values of a metric."""
        values = [(setting, metric_value(setting, name)) for setting in self.complete]
        return [
            SettingValue(setting, value)
            for setting, value in values
            if value and isfinite(value.mean)
        ]

    def ranked(self, metric: Metric) -> list[SettingValue]:
        """The complete settings, the best first; of equals the first."""
        return sorted(self.values(metric.name), key=lambda value: -metric.sign * value.value.mean)

    @property
    def best(self) -> Setting | None:
        ranked = self.ranked(self.metric)
        return ranked[0].setting if ranked else None

    @property
    def runs(self) -> list[Run]:
        """Every run that has begun."""
        return [trial.run for setting in self.settings for trial in setting.trials if trial.run]

    def dims(self, family: str) -> list[int]:
        return logged_widths(self.runs, family)

    def families(self) -> dict[str, Metric]:
        """What the metrics measure at every width: the name above d<width>, with its goal."""
        families: dict[str, Metric] = {}
        for metric in self.sweep.metrics:
            if name := family_of(metric.name):
                families.setdefault(name, metric)
        return {name: metric for name, metric in families.items() if self.dims(name)}

    def names(self) -> list[str]:
        """The sweep's metrics, and those of their kind at every other width."""
        wide = [f"{above}/d{dim}" for above in self.families() for dim in self.dims(above)]
        return list(dict.fromkeys([*(metric.name for metric in self.sweep.metrics), *wide]))

    def caption(
        self, what: str, settings: Sequence[Setting], rows: bool = True, intervals: bool = True
    ) -> str:
        """What a picture shows, of how many settings and seeds, with which interval."""
        view = View(
            [
                SeedGroup(setting.label, setting.finished)
                for setting in settings
                if setting.finished
            ],
            "",
        )
        sizes = {len(group.runs) for group in view.groups}
        many = f"{len(settings)} setting{'s' * (len(settings) != 1)}"
        seeds = "one seed each, so that there is no interval" if sizes else "none of them finished"
        if max(sizes, default=0) > 1:
            least, most = min(sizes), max(sizes)
            span = f"{least} to {most}" if least < most else f"{most}"
            seeds = f"mean{' and 95 % t-interval' * intervals} over {span} seeds"
        trained = view.trained_on() if rows and view.groups else ""
        parts = [what, f"{many}, {seeds}.", trained, f"Made by `{self.command}`."]
        return " ".join(part for part in parts if part)


def metric_value(setting: Setting, name: str) -> Interval | None:
    """A metric's last value, over the finished runs that logged it."""
    values = last_values(setting, name)
    return interval(values) if values else None


def last_values(setting: Setting, name: str) -> list[float]:
    series = [run.metrics[name] for run in setting.finished if run.metrics.get(name)]
    return [values[max(values)] for values in series]


def family_of(name: str) -> str:
    """The name above a width; nothing where there is none.

    >>> family_of("val/sts/spearman/d16"), family_of("val/loss")
    ('val/sts/spearman', '')
    """
    above, _, end = name.rpartition("/d")
    return above if end.isdigit() else ""


def short_names(axes: Sequence[Parameter]) -> dict[str, str]:
    """The parameters' names as tables and pictures have room for them, by key.

    >>> short_names([Parameter("objective.gamma", None), Parameter("data.batches", None)])
    {'objective.gamma': 'gamma', 'data.batches': 'data.batches'}
    """
    names = {axis.key: axis.key for axis in axes}
    for section in KNOWN:
        names = {key: name.removeprefix(section) for key, name in names.items()}
    names = {key: name.removesuffix(".weight") for key, name in names.items()}
    taken = Counter(names.values())
    return {key: name if taken[name] == 1 else key for key, name in names.items()}


def format_parameter(value: Any) -> str:
    """A parameter's value as text.

    >>> format_parameter(0.0123456), format_parameter([16, 64]), format_parameter(None)
    ('0.01235', '[16,64]', 'null')
    >>> format_parameter({"cv": {"weight": 0.5}, "gamma": 1}), format_parameter({})
    ('cv 0.5, gamma 1', 'as it is')
    """
    if value == {}:
        return "as it is"
    if isinstance(value, dict):
        named = [
            f"{'.'.join(map(str, path)).removesuffix('.weight')} {format_parameter(inner)}"
            for path, inner in leaf_values(value)
        ]
        return ", ".join(named)
    return format_number(value) if isinstance(value, float) else format_value(value)


def format_point(setting: Setting, names: Mapping[str, str]) -> str:
    """
    >>> format_point(Setting(0, {"objective.gamma": 0.5}, [], ()), {"objective.gamma": "gamma"})
    'gamma=0.5'
    """
    return ", ".join(
        f"{names[key]}={format_parameter(value)}" for key, value in setting.point.items()
    )


def format_metric(value: Interval | None) -> str:
    """A value with its interval, or a dash."""
    return "-" if value is None else format_last({0: value})
