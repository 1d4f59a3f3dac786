"""Panel: the metric over two parameters at once, SCR's threshold and the weight of all."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mic.report.figures import WIDE
from mic.report.panel import Panel, number
from mic.sweep.report.importance import importances
from mic.sweep.report.scale import Scale, scale_of
from mic.sweep.report.view import SweepView, short
from mic.sweep.report.widths import nothing
from mic.sweep.search_space import Parameter

PREFERRED = ("objective.gamma", "objective.threshold")
FEWEST = 4  # points that a surface is drawn through
LEVELS = 12
CELLS = 49  # of a grid that have room for their numbers
CELL = "A cell is the mean of the settings with its two values."
POINTS = (
    "Points are settings, or the mean of those that share both values; between them the colours "
    "are interpolated linearly."
)
MAP = matplotlib.colormaps["viridis"]

Place = tuple[float, float]


class Surface(NamedTuple):
    """The metric's mean at every place, where the values of both parameters stand."""

    scales: tuple[Scale, Scale]
    heights: dict[Place, float]

    @property
    def full(self) -> bool:
        """Whether every value of the one was tried with every value of the other."""
        x, y = ({place[at] for place in self.heights} for at in (0, 1))
        return min(len(x), len(y)) > 1 and len(self.heights) == len(x) * len(y)


def contour(view: SweepView) -> Panel:
    """gamma against tau where both are swept, else the two numbers that matter most."""
    title = "Contour"
    if not view.values(view.metric.name):
        return Panel(title, missing=nothing(view))
    axes = chosen(view)
    if isinstance(axes, str):
        return Panel(title, missing=axes)
    names = [short(view.sweep.parameters)[axis.key] for axis in axes]
    title = f"Contour of {names[0]} against {names[1]}"
    surface = surface_of(view, axes)
    if reason := flat(surface):
        return Panel(title, missing=f"{names[0]} against {names[1]}: {reason}.")
    how = CELL if surface.full else POINTS
    what = f"{view.metric.name} over {names[0]} and {names[1]}. {how}"
    what += " Other parameters vary freely." if len(view.sweep.parameters) > 2 else ""
    return Panel(
        title,
        {"contour": picture(surface, names, view.metric.name)},
        view.caption(what, [one.setting for one in view.values(view.metric.name)]),
    )


def chosen(view: SweepView) -> tuple[Parameter, Parameter] | str:
    """The two parameters, or why there are none."""
    axes = {axis.key: axis for axis in view.sweep.parameters if numeric(axis)}
    if len(axes) < 2:
        return f"{len(axes)} parameters with several numbers as values: two are needed."
    if all(key in axes for key in PREFERRED):
        first, second = PREFERRED
    elif len(axes) == 2:
        first, second = axes
    else:
        shares = importances(view, view.metric)
        if isinstance(shares, str):
            return f"Which two parameters matter most is not known: {shares}."
        first, second = [key for key in shares if key in axes][:2]
    return axes[first], axes[second]


def numeric(axis: Parameter) -> bool:
    """Whether the values are numbers, and several."""
    values = axis.ends()
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    return numbers and len(set(values)) > 1


def surface_of(view: SweepView, axes: tuple[Parameter, Parameter]) -> Surface:
    values = view.values(view.metric.name)
    x, y = (scale_of(axis, [one.setting.point[axis.key] for one in values]) for axis in axes)
    found = defaultdict(list)
    for one in values:
        point: dict[str, Any] = one.setting.point
        found[x.place(point[axes[0].key]), y.place(point[axes[1].key])].append(one.value.mean)
    return Surface((x, y), {place: mean(group) for place, group in found.items()})


def flat(surface: Surface) -> str:
    """Why no surface goes through the places; nothing if one does."""
    count = len(surface.heights)
    if count < FEWEST:
        return f"{count} finished settings of different values, and {FEWEST} are needed"
    points = coordinates(surface)
    spread = points - points.mean(0)
    sizes = np.ptp(points, axis=0)
    if (sizes == 0).any() or np.linalg.matrix_rank(spread / sizes, tol=1e-6) < 2:
        return "the finished settings lie on a line"
    return ""


def coordinates(surface: Surface) -> Any:
    """The places as they are drawn."""
    columns = [
        [np.log(place[at]) if scale.logarithmic else place[at] for place in surface.heights]
        for at, scale in enumerate(surface.scales)
    ]
    return np.array(columns).T


def picture(surface: Surface, names: Sequence[str], metric: str) -> Figure:
    figure = Figure(figsize=(0.7 * WIDE, 4.4), layout="constrained")
    axis = figure.subplots()
    image = cells(axis, surface) if surface.full else triangles(axis, surface)
    surface.scales[0].apply_x(axis)
    surface.scales[1].apply_y(axis)
    if not surface.full:
        axis.use_sticky_edges = False  # or the points at the edges would be cut in half
        axis.autoscale()
        axis.margins(0.04)
    axis.set(xlabel=names[0], ylabel=names[1])
    figure.colorbar(image, ax=axis, label=metric)
    return figure


def cells(axis: Axes, surface: Surface) -> Any:
    """A full grid: a coloured cell a pair of values, with its number where there is room."""
    x, y = (sorted({place[at] for place in surface.heights}) for at in (0, 1))
    heights = np.array([[surface.heights[one, other] for one in x] for other in y])
    image = axis.pcolormesh(x, y, heights, shading="nearest", cmap=MAP)
    if heights.size <= CELLS:
        middle = (heights.max() + heights.min()) / 2
        for (one, other), height in surface.heights.items():
            color = "black" if height > middle else "white"
            axis.text(one, other, number(height), color=color, ha="center", va="center", fontsize=8)
    return image


def triangles(axis: Axes, surface: Surface) -> Any:
    """Settings anywhere: a surface between them, and themselves as points."""
    places = coordinates(surface)
    x, y = zip(*surface.heights, strict=True)
    heights = list(surface.heights.values())
    sizes = np.ptp(places, axis=0)
    mesh = matplotlib.tri.Triangulation(*(places / sizes).T).triangles
    drawn = matplotlib.tri.Triangulation(x, y, mesh)
    image = axis.tricontourf(drawn, heights, levels=LEVELS, cmap=MAP)
    low, high = image.get_clim()
    axis.scatter(x, y, 28, heights, cmap=MAP, vmin=low, vmax=high, edgecolors="black", zorder=3)
    return image
