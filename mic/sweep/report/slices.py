"""Panel: the metric against every parameter, each alone."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mic.report.figures import COLOURS, UNCHANGED, panels
from mic.report.panel import Panel
from mic.sweep.report.scale import Scale, scale_of
from mic.sweep.report.view import SweepView, Value, short
from mic.sweep.report.widths import nothing
from mic.sweep.search_space import Parameter
from mic.sweep.sweep_file import Metric

MEAN = COLOURS[1]


def slices(view: SweepView) -> Panel:
    """A diagram a parameter, a picture a metric."""
    title = "Slices"
    pictures = {
        f"slices{number or ''}": picture(view.sweep.parameters, view.values(metric.name), metric)
        for number, metric in enumerate(view.sweep.metrics)
        if view.values(metric.name)
    }
    if not pictures:
        return Panel(title, missing=nothing(view))
    what = (
        "Every setting's value against one parameter at a time, whatever the others are; bars are "
        "the settings' intervals, diamonds means over the settings that share a value."
    )
    return Panel(title, pictures, view.caption(what, view.complete))


def picture(axes: Sequence[Parameter], values: Sequence[Value], metric: Metric) -> Figure:
    scales = [scale_of(of, [one.setting.point[of.key] for one in values]) for of in axes]
    lists = [scale.row for scale in scales if scale.sideways and scale.row]
    figure, grid = panels(len(axes), max([2.8, *(0.3 * len(row) + 0.6 for row in lists)]))
    names = short(axes)
    for number, (axis, of, scale) in enumerate(zip(grid, axes, scales, strict=True)):
        if scale.sideways:
            draw_list(axis, scale, of.key, values)
            axis.set_xlabel(metric.name, fontsize=9)
            axis.set_title(names[of.key], fontsize=9)
            continue
        draw(axis, scale, of.key, values)
        axis.set_xlabel(names[of.key])
        if number % len(grid[:3]) == 0:
            axis.set_ylabel(metric.name, fontsize=9)
    return figure


def draw_list(axis: Axes, scale: Scale, key: str, values: Sequence[Value]) -> None:
    """A line of the list a value of the parameter, its settings beside each other on it."""
    axis.errorbar(
        [one.value.mean for one in values],
        scale.spread([scale.place(one.setting.point[key]) for one in values]),
        xerr=[one.value.half for one in values],
        fmt="o",
        markersize=4,
        elinewidth=0.8,
        color=UNCHANGED,
    )
    scale.apply_y(axis)
    axis.invert_yaxis()  # in the file's order from the top


def draw(axis: Axes, scale: Scale, key: str, values: Sequence[Value]) -> None:
    places = [scale.place(one.setting.point[key]) for one in values]
    axis.errorbar(
        scale.spread(places),
        [one.value.mean for one in values],
        yerr=[one.value.half for one in values],
        fmt="o",
        markersize=4,
        elinewidth=0.8,
        color=UNCHANGED,
        alpha=0.7,
    )
    shared = means(places, [one.value.mean for one in values])
    if shared:
        axis.plot(*zip(*shared, strict=True), color=MEAN, marker="D", markersize=5, linewidth=1.2)
    scale.apply_x(axis)


def means(places: Sequence[Any], values: Sequence[float]) -> list[tuple[Any, float]]:
    """The mean at every place, if several settings are at any.

    >>> means([2, 1, 2], [1.0, 5.0, 3.0]), means([1, 2], [0.0, 1.0])
    ([(1, 5.0), (2, 2.0)], [])
    """
    found = defaultdict(list)
    for place, value in zip(places, values, strict=True):
        found[place].append(value)
    if len(found) == len(places):
        return []
    return [(place, mean(group)) for place, group in sorted(found.items())]
