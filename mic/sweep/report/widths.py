"""Panel of the best setting at each width, beside the baselines that need no training."""

from math import isfinite
from typing import NamedTuple

from matplotlib.figure import Figure

from mic.report import figures
from mic.report.panel import Panel
from mic.report.scores import scores_over_seeds
from mic.report.tables import Table
from mic.sweep.report.view import (
    SettingValue,
    SweepView,
    format_metric,
    format_parameter,
    metric_value,
    short_names,
)
from mic.sweep.sweep_file import Metric
from mic.tracking.reader import OWN, Run
from mic.tracking.seed_groups import Interval, interval

UNTRAINED = "untrained"
Line = dict[int, Interval]  # width -> value


class Family(NamedTuple):
    """A metric at all its widths."""

    name: str
    metric: Metric
    dims: list[int]

    def metric_at(self, dim: int) -> Metric:
        return Metric(f"{self.name}/d{dim}", self.metric.goal)


def widths_panel(view: SweepView) -> Panel:
    """The best setting of every width, and the values of the overall best one at every width."""
    title = "Best per width"
    if not view.families():
        return Panel(title, missing=f"{view.metric.name} has no widths, or was not logged yet.")
    if view.best is None:
        return Panel(title, missing=no_best_setting(view))
    families = [Family(name, metric, view.dims(name)) for name, metric in view.families().items()]
    pictures = {
        f"widths{number or ''}": draw_widths(view, family) for number, family in enumerate(families)
    }
    what = (
        f"Quality against width of the settings that are best and worst by {view.metric.name}, and "
        "of the untrained encoder, cut as it is or rotated by a PCA, whose intervals are in the "
        "table alone. There, apart says whether the intervals of the best and the second do not "
        "overlap."
    )
    tables = [widths_table(view, family) for family in families]
    return Panel(title, pictures, view.caption(what, view.complete), tables)


def no_best_setting(view: SweepView) -> str:
    """Why there is no best setting."""
    seeds = len(view.sweep.seeds)
    of = f"all {seeds} seeds" if seeds > 1 else f"seed {view.sweep.seeds[0]}"
    return f"No setting is finished with {of} and has {view.metric.name} yet."


def widths_table(view: SweepView, family: Family) -> Table:
    axes = view.sweep.parameters
    labels = short_names(axes)
    others = baseline_lines(view, family)
    head = ["width", "best", "value", "n", "second", "value", "apart", *others, *labels.values()]
    rows = []
    for dim in family.dims:
        ranked = view.ranked(family.metric_at(dim))
        if not ranked:
            continue
        first, second = ranked[0], ranked[1] if len(ranked) > 1 else None
        rows.append(
            [
                str(dim),
                first.setting.label,
                format_metric(first.value),
                str(first.value.runs),
                second.setting.label if second else "-",
                format_metric(second.value if second else None),
                intervals_apart(first, second),
                *(format_metric(line.get(dim)) for line in others.values()),
                *(format_parameter(first.setting.point[axis.key]) for axis in axes),
            ]
        )
    return Table(f"{family.name}: best of {len(view.complete)} settings", head, rows)


def intervals_apart(first: SettingValue, second: SettingValue | None) -> str:
    """Whether two settings differ by more than their seeds do."""
    if second is None:
        return "-"
    if min(first.value.runs, second.value.runs) < 2:
        return "no interval"
    gap = abs(first.value.mean - second.value.mean)
    return "yes" if gap > first.value.half + second.value.half else "no"


def draw_widths(view: SweepView, family: Family) -> Figure:
    ranked = view.ranked(view.metric)
    lines: dict[str, Line] = baseline_lines(view, family)
    count = len(lines)
    ends = {"best": ranked[0]} | ({"worst": ranked[-1]} if len(ranked) > 1 else {})
    for name, ranked_setting in ends.items():
        values = {
            dim: metric_value(ranked_setting.setting, family.metric_at(dim).name)
            for dim in family.dims
        }
        line = {dim: value for dim, value in values.items() if value and isfinite(value.mean)}
        if line:
            lines[f"{name} ({ranked_setting.setting.label})"] = line
    task, _, metric = family.name.removeprefix("val/").rpartition("/")

    def part(name: str, first: int = 0) -> dict[str, figures.Results]:
        return {
            label: {task: {metric: {dim: getattr(value, name) for dim, value in line.items()}}}
            for label, line in list(lines.items())[first:]
        }

    halves = part("half", count)  # a PCA's of few seeds may be wider than all that is to be seen
    return figures.quality({task: metric}, part("mean"), halves=halves, untrained=count)


def baseline_lines(view: SweepView, family: Family) -> dict[str, Line]:
    """Raw truncation and PCA on the family's task, over the best setting's seeds.

    A task that results.json does not know, as `pairs`, was scored before the first step.
    """
    runs = view.best.finished if view.best else []
    match family.name.split("/"):
        case ["val", task, metric]:
            lines = scored_baselines(runs, task, metric)
        case _:
            lines = {}
    before = {} if lines else untrained_line(runs, family)
    return lines or ({UNTRAINED: before} if before else {})


def scored_baselines(runs: list[Run], task: str, metric: str) -> dict[str, Line]:
    names = [name for name in runs[0].methods if name != OWN] if runs else []
    means = {name: scores_over_seeds([run.methods[name] for run in runs]) for name in names}
    lines = {name: scores.get(task, {}).get(metric, {}) for name, scores in means.items()}
    return {name: line for name, line in lines.items() if line}


def untrained_line(runs: list[Run], family: Family) -> Line:
    """The values of step 0, before training."""
    line = {}
    for dim in family.dims:
        logged = [run.metrics.get(family.metric_at(dim).name, {}) for run in runs]
        if logged and all(0 in series for series in logged):
            line[dim] = interval([series[0] for series in logged])
    return line
