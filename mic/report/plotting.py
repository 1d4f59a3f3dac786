"""Draw lines with bands, stacked shares and spectra for the panels."""

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


class Diagram(NamedTuple):
    """One small diagram: lines by label, over the steps; `floor` is drawn as a level."""

    title: str
    ylabel: str
    lines: Mapping[str, Line]
    floor: float | None = None
    scale: str = "linear"
    xlabel: str = "step"


def draw_diagrams(diagrams: Sequence[Diagram], labels: Sequence[str], columns: int = 3) -> Figure:
    """The diagrams beside each other; the n-th label looks the same in all and is named once."""
    figure, axes = panels(len(diagrams), 2.6, columns)
    for axis, diagram in zip(axes, diagrams, strict=True):
        draw_diagram(axis, diagram, labels)
    named = max(range(len(diagrams)), key=lambda number: len(diagrams[number].lines))
    if len(labels) > 1:
        legend(figure, axes[named])
    return figure


def draw_diagram(axis: Axes, diagram: Diagram, labels: Sequence[str]) -> None:
    if diagram.scale == "log-log":
        axis.set(yscale="log")
        set_rank_axis(axis, max(rank for line in diagram.lines.values() for rank in line))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axis.set_yscale(diagram.scale, **({"linthresh": 1e-3} if diagram.scale == "symlog" else {}))
    values = [value for line in diagram.lines.values() for value in line.values()]
    for label, line in diagram.lines.items():
        look = style(labels.index(label))
        marked = look if len(line) <= FEW else look | {"marker": ""}
        middle = torch.tensor([value.mean for value in line.values()], dtype=torch.double)
        half = torch.tensor([value.half for value in line.values()], dtype=torch.double)
        axis.plot(list(line), middle.numpy(), label=label, **marked, markersize=4)
        if half.any():
            band(axis, list(line), middle, half, look["color"])
    if diagram.floor is not None:
        axis.axhline(diagram.floor, color="black", linewidth=1, linestyle=(0, (1, 1)))
    if diagram.scale == "log-log":
        limit_bottom(axis, max(value.mean for value in values))
    if not any(value.mean or value.half for value in values):
        axis.set_ylim(-0.05, 1)  # nothing but 0, as one hopes of shares
    axis.set(xlabel=diagram.xlabel, ylabel=diagram.ylabel)
    axis.set_title(diagram.title, fontsize=10)


def draw_stacked(
    axis: Axes, parts: Mapping[str, Mapping[int, float]], labels: Sequence[str]
) -> None:
    """Shares over the steps, one upon the other; a step that a part lacks counts 0."""
    steps = sorted({step for part in parts.values() for step in part})
    gap = float(np.diff(steps).min()) if len(steps) > 1 else 1.0
    below = np.zeros(len(steps))
    for label, part in parts.items():
        heights = np.nan_to_num(np.array([part.get(step, 0.0) for step in steps]))
        color = fill_style(labels.index(label))
        axis.bar(steps, heights, gap, below, label=label, linewidth=0, **color)
        below = below + heights
    axis.set(xlabel="step", ylabel="share", ylim=(0, 1))
    axis.grid(visible=False)
    axis.margins(x=0)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def draw_bars(axis: Axes, rows: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> None:
    """Shares that each add up to 1, a bar a row."""
    names = list(rows)
    left = np.zeros(len(names))
    for label in labels:
        widths = np.array([rows[name].get(label, 0.0) for name in names])
        axis.barh(names, widths, 0.7, left, label=label, **fill_style(labels.index(label)))
        left = left + widths
    axis.set(xlabel="share", xlim=(0, 1))
    axis.invert_yaxis()


def fill_style(number: int) -> dict[str, Any]:
    """The filling of the `number`-th part: the colour of its line, hatched where they repeat."""
    again = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "hatch": "/" * 3 * again or None}


def draw_spectra(spectra: Mapping[str, Mapping[int, np.ndarray]]) -> Figure:
    """Eigenvalues, the largest first, coloured by step; a panel a width."""
    figure, axes = panels(len(spectra), 3.2)
    steps = sorted({step for lines in spectra.values() for step in lines})
    norm = Normalize(steps[0], max(steps[-1], steps[0] + 1))
    for axis, (title, lines) in zip(axes, spectra.items(), strict=True):
        for step, values in lines.items():
            shown = np.where(values > 0, values, np.nan)
            color = STEPS(LAST * norm(step))
            axis.plot(np.arange(1, len(values) + 1), shown, color=color, linewidth=1.2)
        axis.set(yscale="log", xlabel="rank", ylabel="eigenvalue")
        axis.set_title(title, fontsize=10)
        set_rank_axis(axis, max(map(len, lines.values())))
        limit_bottom(axis, max(float(values.max()) for values in lines.values()))
    colours = matplotlib.cm.ScalarMappable(norm, step_colours(LAST))
    figure.colorbar(colours, ax=axes, label="step", ticks=MaxNLocator(6, integer=True))
    return figure


def set_rank_axis(axis: Axes, most: int) -> None:
    """A logarithmic axis of ranks from 1, in powers of 4, or of 2 where there are few."""
    base = 4 if most >= 16 else 2
    marks = [base**power for power in range(most.bit_length()) if base**power <= most]
    axis.set_xscale("log", base=2)
    axis.set_xticks(marks, [str(mark) for mark in marks])
    axis.xaxis.set_minor_locator(NullLocator())


def limit_bottom(axis: Axes, largest: float) -> None:
    """End a logarithmic axis at a millionth of the largest value: smaller ones are rounding."""
    if axis.get_ylim()[0] < NOTHING * largest:
        axis.set_ylim(bottom=NOTHING * largest)


def step_colours(last: float) -> Any:
    """The colour map of steps, up to `last` of it."""
    return matplotlib.colors.ListedColormap(STEPS(np.linspace(0, last, 256)))
