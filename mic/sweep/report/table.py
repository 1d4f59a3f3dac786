"""Write the table of settings, the best first, as CSV, as Markdown and for the page."""

import csv
from collections.abc import Sequence
from io import StringIO
from math import isfinite
from statistics import mean

from mic.report.tables import Table, markdown_table
from mic.sweep.report.read import Setting
from mic.sweep.report.view import (
    SweepView,
    format_metric,
    format_parameter,
    metric_value,
    short_names,
)
from mic.tracking.seed_groups import Interval, format_value

LONG = 15  # settings that the head of the page shows


def order_settings(view: SweepView) -> list[Setting]:
    """All settings: those with all seeds by the first metric, then those with some, then none."""

    def place(setting: Setting) -> tuple[int, float]:
        value = metric_value(setting, view.metric.name)
        if value is None or not isfinite(value.mean):
            return 2, 0.0
        return int(not setting.complete), -view.metric.sign * value.mean

    return sorted(view.settings, key=place)


def settings_csv(view: SweepView) -> str:
    """The values in full precision; an unknown one is an empty cell."""
    names, axes = view.names(), view.sweep.parameters
    head = ["setting", *(axis.key for axis in axes), "state", "n"]
    head += [column for name in names for column in (name, f"{name} half")]
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, "minutes"])
    for setting in order_settings(view):
        cells = [setting.label, *(format_value(setting.point[axis.key]) for axis in axes)]
        cells += [setting.state, str(len(setting.finished))]
        for name in names:
            cells += mean_and_half(metric_value(setting, name))
        spent = mean_minutes(setting)
        writer.writerow([*cells, "" if spent is None else repr(spent)])
    return stream.getvalue()


def mean_and_half(value: Interval | None) -> list[str]:
    """A mean and half of its interval, which one run does not have."""
    if value is None:
        return ["", ""]
    return [repr(value.mean), repr(value.half) if value.runs > 1 else ""]


def mean_minutes(setting: Setting) -> float | None:
    """The mean duration of a seed."""
    seconds = [trial.seconds for trial in setting.trials if trial.seconds is not None]
    return mean(seconds) / 60 if seconds else None


def settings_table(view: SweepView) -> Table:
    """A row a setting: values with their intervals."""
    axes, names = view.sweep.parameters, view.names()
    first, *others = metric_heads(names)
    head = ["setting", first, "n", *short_names(axes).values(), *others, "state", "minutes"]
    rows = []
    for setting in order_settings(view):
        value, *more = (format_metric(metric_value(setting, name)) for name in names)
        points = [format_parameter(setting.point[axis.key]) for axis in axes]
        took = mean_minutes(setting)
        spent = "-" if took is None else f"{took:,.1f}"
        seeds = str(len(setting.finished))
        rows.append([setting.label, value, seeds, *points, *more, setting.state, spent])
    metric = view.metric
    way = "highest" if metric.goal == "maximize" else "lowest"
    return Table(f"Settings, the {way} {metric.name} first", head, rows)


def shorten_table(whole: Table) -> Table:
    """The beginning of a long table."""
    if len(whole.rows) <= LONG:
        return whole
    title = f"{whole.title}: the first {LONG} of {len(whole.rows)}, all of them are below"
    return Table(title, whole.head, whole.rows[:LONG])


def metric_heads(names: Sequence[str]) -> list[str]:
    """Metrics as heads of columns: a width alone where only widths set them apart.

    >>> metric_heads(["val/sts/spearman/d16", "val/sts/spearman/d32"]), metric_heads(["val/loss"])
    (['d16', 'd32'], ['val/loss'])
    """
    families = {name.rpartition("/")[0] for name in names}
    alike = len(names) > 1 and len(families) == 1
    return [name.rpartition("/")[2] for name in names] if alike else list(names)


def settings_markdown(view: SweepView, notes: Sequence[str]) -> str:
    """The table below its notes."""
    table = settings_table(view)
    names = ", ".join(f"{metric.name} ({metric.goal})" for metric in view.sweep.metrics)
    lines = [
        f"# Sweep {view.name}",
        "",
        f"{table.title}. Metrics: {names}; the mean over n seeds of the last value, with half of "
        f"the 95 % t-interval. Minutes are a seed's. Made by `{view.command}`.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
        markdown_table(table.head, table.rows),
    ]
    return "\n".join(lines) + "\n"
