"""Panel: the settings that no other one beats in everything."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mic.report.figures import COLOURS, UNCHANGED, legend, panels
from mic.report.panel import Panel
from mic.report.tables import Table
from mic.sweep.report.read import Setting
from mic.sweep.report.view import SweepView, short, shown, told, value_of
from mic.sweep.report.widths import Family
from mic.sweep.sweep_file import Metric
from mic.tracking.seed_groups import Interval

FRONT = COLOURS[1]
ROOM = (0.1, 0.06)  # of a diagram, that a name takes


def pareto(view: SweepView) -> Panel:
    """The sweep's metrics against each other; of a single one its narrowest and full width."""
    title = "Pareto front"
    goals = objectives(view)
    if len(goals) < 2:
        missing = f"{view.metric.name} is the only metric, and has no other width."
        return Panel(title, missing=missing)
    settings = comparable(view, goals)
    if len(settings) < 2:
        return Panel(title, missing=f"{len(settings)} settings to compare: two are needed.")
    best = front([[value.mean for value in values] for _, values in settings], goals)
    what = (
        "Settings by "
        + " and ".join(f"{one.name} ({one.goal})" for one in goals)
        + ". On the front: no other setting's means are as good in all of them and better in one; "
        "where the intervals overlap, another sample of seeds may have another front."
    )
    axes = short(view.sweep.parameters)
    rows = [
        [one.label, *map(shown, values), *(told(value) for value in one.point.values())]
        for on, (one, values) in zip(best, settings, strict=True)
        if on
    ]
    head = ["setting", *(goal.name for goal in goals), *axes.values()]
    return Panel(
        title,
        {"pareto": picture(settings, goals, best)},
        view.caption(what, [one for one, _ in settings]),
        [Table(f"The front: {len(rows)} of {len(settings)} settings", head, rows)],
    )


def objectives(view: SweepView) -> list[Metric]:
    if len(view.sweep.metrics) > 1 or not view.families():
        return list(view.sweep.metrics)
    ((name, metric),) = view.families().items()
    family = Family(name, metric, view.dims(name))
    ends = dict.fromkeys((family.dims[0], family.dims[-1]))
    return [family.at(dim) for dim in ends]


def comparable(view: SweepView, goals: Sequence[Metric]) -> list[tuple[Setting, list[Interval]]]:
    """The complete settings that have all metrics, by the first one, the best first."""
    known = [{id(one.setting) for one in view.values(goal.name)} for goal in goals]
    found = []
    for setting, _ in view.ranked(goals[0]):
        values = [value_of(setting, goal.name) for goal in goals]
        if all(id(setting) in one for one in known):
            found.append((setting, [value for value in values if value]))
    return found


def front(points: Sequence[Sequence[float]], goals: Sequence[Metric]) -> list[bool]:
    """Which points no other one beats: as good in everything, and better in something.

    >>> up, down = Metric("a", "maximize"), Metric("b", "minimize")
    >>> front([[1, 5], [2, 6], [1, 6], [2, 6]], [up, down])
    [True, True, False, True]
    """
    good = np.array(points) * [goal.sign for goal in goals]
    beaten = [((good >= one).all(1) & (good > one).any(1)).any() for one in good]
    return [not one for one in beaten]


def picture(
    settings: Sequence[tuple[Setting, list[Interval]]], goals: Sequence[Metric], best: list[bool]
) -> Figure:
    """Every pair of metrics in a diagram; a line joins the front where there are only two."""
    pairs = list(combinations(range(len(goals)), 2))
    figure, axes = panels(len(pairs), 4.2 if len(pairs) == 1 else 3.2)
    for axis, (x, y) in zip(axes, pairs, strict=True):
        for on, what, color in ((False, "other settings", UNCHANGED), (True, "front", FRONT)):
            group = [values for one, (_, values) in zip(best, settings, strict=True) if one == on]
            if group:
                scatter(axis, [one[x] for one in group], [one[y] for one in group], what, color)
        chosen = [one for on, one in zip(best, settings, strict=True) if on]
        if len(goals) == 2:
            chosen.sort(key=lambda one: one[1][0].mean)
            xs, ys = ([values[at].mean for _, values in chosen] for at in (x, y))
            axis.plot(xs, ys, color=FRONT, linewidth=1, linestyle=":")
        label(axis, {one.label: (values[x].mean, values[y].mean) for one, values in chosen})
        axis.set(xlabel=goals[x].name, ylabel=goals[y].name)
    legend(figure, axes[0])
    return figure


def label(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names beside their points, where those of other points leave room."""
    sizes = np.array([np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim())]) * ROOM
    named: list[tuple[float, float]] = []
    for name, point in points.items():
        if all((np.abs(np.subtract(point, other)) > sizes).any() for other in named):
            named.append(point)
            axis.annotate(name, point, (5, 5), textcoords="offset points", fontsize=8)


def scatter(
    axis: Axes, x: Sequence[Interval], y: Sequence[Interval], what: str, color: str
) -> None:
    """Points with the intervals of both coordinates."""
    axis.errorbar(
        [one.mean for one in x],
        [one.mean for one in y],
        xerr=[one.half for one in x],
        yerr=[one.half for one in y],
        fmt="o",
        markersize=5,
        elinewidth=0.8,
        color=color,
        label=what,
    )
