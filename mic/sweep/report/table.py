"""The settings as a table: a row each, the best first; as CSV, as Markdown, on the page."""

import csv
from collections.abc import Sequence
from io import StringIO
from math import isfinite
from statistics import mean

from mic.report.tables import Table, markdown_table
from mic.sweep.report.read import Setting
from mic.sweep.report.view import SweepView, interval_text, parameter_text, short, value_of
from mic.tracking.seed_groups import Interval, format_value

LONG = 15  # settings that the head of the page shows


def ordered(view: SweepView) -> list[Setting]:
    """All settings: those with all seeds by the first metric, then those with some, then none."""

    def place(setting: Setting) -> tuple[int, float]:
        value = value_of(setting, view.metric.name)
        if value is None or not isfinite(value.mean):
            return 2, 0.0
        return int(not setting.complete), -view.metric.sign * value.mean

    return sorted(view.settings, key=place)


def as_csv(view: SweepView) -> str:
    """Every number as it is; what is not known is empty."""
    names, axes = view.names(), view.sweep.parameters
    head = ["setting", *(axis.key for axis in axes), "state", "n"]
    head += [column for name in names for column in (name, f"{name} half")]
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, "minutes"])
    for setting in ordered(view):
        cells = [setting.label, *(format_value(setting.point[axis.key]) for axis in axes)]
        cells += [setting.state, str(len(setting.finished))]
        for name in names:
            cells += numbers(value_of(setting, name))
        spent = minutes(setting)
        writer.writerow([*cells, "" if spent is None else repr(spent)])
    return stream.getvalue()


def numbers(value: Interval | None) -> list[str]:
    """A mean and half of its interval, which one run does not have."""
    if value is None:
        return ["", ""]
    return [repr(value.mean), repr(value.half) if value.runs > 1 else ""]


def minutes(setting: Setting) -> float | None:
    """What a seed took, in the mean."""
    seconds = [trial.seconds for trial in setting.trials if trial.seconds is not None]
    return mean(seconds) / 60 if seconds else None


def settings_table(view: SweepView) -> Table:
    """The settings for people: values with their intervals."""
    axes, names = view.sweep.parameters, view.names()
    first, *others = columns(names)
    head = ["setting", first, "n", *short(axes).values(), *others, "state", "minutes"]
    rows = []
    for setting in ordered(view):
        value, *more = (interval_text(value_of(setting, name)) for name in names)
        points = [parameter_text(setting.point[axis.key]) for axis in axes]
        took = minutes(setting)
        spent = "-" if took is None else f"{took:,.1f}"
        seeds = str(len(setting.finished))
        rows.append([setting.label, value, seeds, *points, *more, setting.state, spent])
    metric = view.metric
    way = "highest" if metric.goal == "maximize" else "lowest"
    return Table(f"Settings, the {way} {metric.name} first", head, rows)


def top(whole: Table) -> Table:
    """The beginning of a long table."""
    if len(whole.rows) <= LONG:
        return whole
    title = f"{whole.title}: the first {LONG} of {len(whole.rows)}, all of them are below"
    return Table(title, whole.head, whole.rows[:LONG])


def columns(names: Sequence[str]) -> list[str]:
    """Metrics as heads of columns: a width alone where only widths set them apart.

    >>> columns(["val/sts/spearman/d16", "val/sts/spearman/d32"]), columns(["val/loss"])
    (['d16', 'd32'], ['val/loss'])
    """
    families = {name.rpartition("/")[0] for name in names}
    alike = len(names) > 1 and len(families) == 1
    return [name.rpartition("/")[2] for name in names] if alike else list(names)


def as_markdown(view: SweepView, notes: Sequence[str]) -> str:
    """The table, with what a reader should know of it above."""
    made = settings_table(view)
    names = ", ".join(f"{metric.name} ({metric.goal})" for metric in view.sweep.metrics)
    lines = [
        f"# Sweep {view.name}",
        "",
        f"{made.title}. Metrics: {names}; the mean over n seeds of the last value, with half of "
        f"the 95 % t-interval. Minutes are a seed's. Made by `{view.command}`.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
        markdown_table(made.head, made.rows),
    ]
    return "\n".join(lines) + "\n"
