"""Quality against geometry: a row a setting, a column a predictor, a colour a method."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill

from clusters import Correlation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from points import MEAN, PREDICTORS, Point, Setting

from mic.report import figures

HEIGHT = 3.0  # inches of a row
LETTERS = 26  # of a method's name on a line


def scatter(
    settings: Sequence[Setting],
    width: int,
    found: Mapping[tuple[str, str], Correlation | None],
    caption: str,
) -> Figure:
    """Every model's mean quality against its geometry at one width.

    `found` has the correlations by setting and predictor. A method looks the same in all rows, and
    is named beside each that it is in.
    """
    high = HEIGHT * len(settings) + 0.3
    figure = Figure(figsize=(1.2 * figures.WIDE, high), layout="constrained")
    grid = figure.subplots(len(settings), len(PREDICTORS), squeeze=False, sharey="row")
    looks = looks_of(settings)
    for axes, setting in zip(grid, settings, strict=True):
        for axis, predictor in zip(axes, PREDICTORS, strict=True):
            draw(axis, setting.at(width), predictor, looks)
            title = told(found[setting.name, predictor])
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(f"{predictor}, first {width} numbers")
        of = f"mean of {setting.tasks[MEAN]} tasks" if setting.tasks[MEAN] > 1 else "one task"
        axes[0].set_ylabel(f"{setting.name}\n{of} (%)")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
    return figures.captioned(figure, caption)


def looks_of(settings: Sequence[Setting]) -> dict[str, dict[str, str]]:
    """The colour and marker of every method; greys are of those that were not trained by a run."""
    points = [point for setting in settings for point in setting.points]
    runs = dict.fromkeys(point.method for point in points if point.trained)
    others = dict.fromkeys(point.method for point in points if not point.trained)
    found = dict(zip(others, cycle(figures.UNTRAINED), strict=False))
    found |= {name: figures.style(number) for number, name in enumerate(runs)}
    again = list(runs)[len(figures.COLOURS) :]  # these share a colour with an earlier one
    return {
        name: {
            "color": look["color"],
            "marker": look["marker"],
            "fillstyle": "none" if name in again else "full",
        }
        for name, look in found.items()
    }


def draw(
    axis: Axes,
    points: Sequence[Point],
    predictor: str,
    looks: Mapping[str, Mapping[str, str]],
) -> None:
    axis.grid(alpha=0.3)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    for method in dict.fromkeys(point.method for point in points):
        seeds = [point for point in points if point.method == method]
        axis.plot(
            [point.predictors[predictor] for point in seeds],
            [point.quality[MEAN] for point in seeds],
            linestyle="",
            markersize=6,
            alpha=0.85,
            label=fill(method, LETTERS),
            **looks[method],
        )


def told(found: Correlation | None) -> str:
    if found is None:
        return "no correlation: too few methods, or no variance"
    rho = found.rho
    return f"rho {rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}], {found.methods} methods"
