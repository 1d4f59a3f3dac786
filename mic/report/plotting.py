"""Lines with bands, stacked shares and spectra: the drawing that several panels share."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from mic.report.figures import COLOURS, band, legend, panels, style
from mic.tracking.seed_groups import Interval

Line = Mapping[int, Interval]  # x -> value
FEW = 12  # points that are marked
STEPS = matplotlib.colormaps["viridis"]
NOTHING = 1e-6  # of the largest eigenvalue
LAST = 0.9  # of the colour map: yellow on white is not seen


class Cell(NamedTuple):
    """One small diagram: lines by label, over the steps; `floor` is drawn as a level."""

    title: str
    ylabel: str
    lines: Mapping[str, Line]
    floor: float | None = None
    scale: str = "linear"
    xlabel: str = "step"


def curves(cells: Sequence[Cell], labels: Sequence[str], columns: int = 3) -> Figure:
    """A diagram a cell; the n-th label looks the same in all of them, and is named once."""
    figure, axes = panels(len(cells), 2.6, columns)
    for axis, cell in zip(axes, cells, strict=True):
        draw(axis, cell, labels)
    named = max(range(len(cells)), key=lambda at: len(cells[at].lines))
    if len(labels) > 1:
        legend(figure, axes[named])
    return figure


def draw(axis: Axes, cell: Cell, labels: Sequence[str]) -> None:
    if cell.scale == "log-log":
        axis.set(yscale="log")
        ranks(axis, max(rank for line in cell.lines.values() for rank in line))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axis.set_yscale(cell.scale, **({"linthresh": 1e-3} if cell.scale == "symlog" else {}))
    for label, line in cell.lines.items():
        look = style(labels.index(label))
        marked = look if len(line) <= FEW else look | {"marker": ""}
        middle = torch.tensor([point.mean for point in line.values()], dtype=torch.double)
        half = torch.tensor([point.half for point in line.values()], dtype=torch.double)
        axis.plot(list(line), middle.numpy(), label=label, **marked, markersize=4)
        if half.any():
            band(axis, list(line), middle, half, look["color"])
    if cell.floor is not None:
        axis.axhline(cell.floor, color="black", linewidth=1, linestyle=(0, (1, 1)))
    if cell.scale == "log-log":
        cut_rounding(
            axis, max(point.mean for line in cell.lines.values() for point in line.values())
        )
    if not any(point.mean or point.half for line in cell.lines.values() for point in line.values()):
        axis.set_ylim(-0.05, 1)  # nothing but 0, as one hopes of shares
    axis.set(xlabel=cell.xlabel, ylabel=cell.ylabel)
    axis.set_title(cell.title, fontsize=10)


def stacked(axis: Axes, parts: Mapping[str, Mapping[int, float]], labels: Sequence[str]) -> None:
    """Shares over the steps, one upon the other; a step that a part lacks counts 0."""
    steps = sorted({step for part in parts.values() for step in part})
    gap = float(np.diff(steps).min()) if len(steps) > 1 else 1.0
    below = np.zeros(len(steps))
    for label, part in parts.items():
        heights = np.nan_to_num(np.array([part.get(step, 0.0) for step in steps]))
        color = shade(labels.index(label))
        axis.bar(steps, heights, gap, below, label=label, linewidth=0, **color)
        below = below + heights
    axis.set(xlabel="step", ylabel="share", ylim=(0, 1))
    axis.grid(visible=False)
    axis.margins(x=0)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def sideways(axis: Axes, rows: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> None:
    """Shares that each add up to 1, a bar a row."""
    names = list(rows)
    left = np.zeros(len(names))
    for label in labels:
        widths = np.array([rows[name].get(label, 0.0) for name in names])
        axis.barh(names, widths, 0.7, left, label=label, **shade(labels.index(label)))
        left = left + widths
    axis.set(xlabel="share", xlim=(0, 1))
    axis.invert_yaxis()


def shade(number: int) -> dict[str, Any]:
    """The filling of the `number`-th part: the colour of its line, hatched where they repeat."""
    again = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "hatch": "/" * 3 * again or None}


def spectra(cells: Mapping[str, Mapping[int, np.ndarray]]) -> Figure:
    """Eigenvalues, the largest first, coloured by step; a panel a width."""
    figure, axes = panels(len(cells), 3.2)
    steps = sorted({step for values_by_step in cells.values() for step in values_by_step})
    norm = Normalize(steps[0], max(steps[-1], steps[0] + 1))
    for axis, (title, lines) in zip(axes, cells.items(), strict=True):
        for step, values in lines.items():
            shown = np.where(values > 0, values, np.nan)
            color = STEPS(LAST * norm(step))
            axis.plot(np.arange(1, len(values) + 1), shown, color=color, linewidth=1.2)
        axis.set(yscale="log", xlabel="rank", ylabel="eigenvalue")
        axis.set_title(title, fontsize=10)
        ranks(axis, max(map(len, lines.values())))
        cut_rounding(axis, max(float(values.max()) for values in lines.values()))
    colours = matplotlib.cm.ScalarMappable(norm, cut(LAST))
    figure.colorbar(colours, ax=axes, label="step", ticks=MaxNLocator(6, integer=True))
    return figure


def ranks(axis: Axes, most: int) -> None:
    """A logarithmic axis of ranks from 1, in powers of 4, or of 2 where there are few."""
    base = 4 if most >= 16 else 2
    marks = [base**power for power in range(most.bit_length()) if base**power <= most]
    axis.set_xscale("log", base=2)
    axis.set_xticks(marks, [str(mark) for mark in marks])
    axis.xaxis.set_minor_locator(NullLocator())


def cut_rounding(axis: Axes, largest: float) -> None:
    """What is nothing beside the largest shall not take the room of what is something."""
    if axis.get_ylim()[0] < NOTHING * largest:
        axis.set_ylim(bottom=NOTHING * largest)


def cut(last: float) -> Any:
    """The colour map of steps up to `last`."""
    return matplotlib.colors.ListedColormap(STEPS(np.linspace(0, last, 256)))
