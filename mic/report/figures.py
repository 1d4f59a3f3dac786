"""Draw a run's figures: quality against width, variance per coordinate, correlation maps."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle, pairwise
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional

from mic.files import replacing
from mic.metrics.geometry import rms
from mic.tracking.snapshots import Snapshot

BOUNDARY = "#d55e00"
CELLS = 896  # rows or columns of a map that a picture has room for
QUANTILE = 2**24  # values that torch.quantile takes
WIDE = 9.0  # inches of a picture
DPI = 130
COLUMNS = 3  # panels beside each other
LETTERS = 13  # that an inch has room for
UNCHANGED = "#888888"  # before training

Results = Mapping[str, Mapping[str, Mapping[int, float]]]  # task -> metric -> width -> value

# Okabe and Ito's colours, which the colour-blind tell apart, less their yellow
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "oDv<>Pph"
LINES = ("-", "--", "-.", ":")
UNTRAINED = (
    {"color": "#999999", "linestyle": "--", "marker": "s"},
    {"color": "#555555", "linestyle": ":", "marker": "^"},
    {"color": "#777777", "linestyle": "-.", "marker": "x"},
)


def style(number: int) -> dict[str, Any]:
    """The colour, line and marker of the `number`-th item of a kind, in every figure."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def quality(
    tasks: Mapping[str, str],
    methods: Mapping[str, Results],
    caption: str = "",
    halves: Mapping[str, Results] | None = None,
    untrained: int = 2,
) -> Figure:
    """Quality against width: a panel a task (with the metric shown), a line a method.

    The first `untrained` methods are baselines. `halves` are half the widths of intervals.
    """
    figure, grid = panels(len(tasks), 3.2)
    styles = [*UNTRAINED * untrained][:untrained] + [style(n) for n in range(len(methods))]
    for axis, (task, metric) in zip(grid, tasks.items(), strict=True):
        dims = sorted({dim for results in methods.values() for dim in results[task][metric]})
        for (method, results), look in zip(methods.items(), styles, strict=False):
            values = results[task][metric]
            heights = torch.tensor(list(values.values()), dtype=torch.double)
            axis.plot(list(values), heights.numpy(), label=method, **look, markersize=4)
            if halves and method in halves:
                half = torch.tensor(list(halves[method][task][metric].values()))
                band(axis, list(values), heights, half, look["color"])
        axis.set_xscale("log", base=2)
        crowded = any(wide < 1.8 * narrow for narrow, wide in pairwise(dims))
        axis.set_xticks(dims, [str(dim) for dim in dims], rotation=45 if crowded else 0)
        axis.minorticks_off()
        axis.set(title=task, xlabel="dimensions kept of each vector", ylabel=f"{metric} (%)")
    legend(figure, grid[0])
    return captioned(figure, caption)


def variance(
    states: Mapping[str, Float[Tensor, " dim"]],
    dims: Sequence[int],
    caption: str = "",
    colors: Sequence[str] = (UNCHANGED, COLOURS[0]),
) -> Figure:
    """Each coordinate's share of the variance; 1 is an equal share. A panel a state."""
    figure = Figure(figsize=(WIDE, 0.6 + 1.8 * len(states)), layout="constrained")
    axes = figure.subplots(len(states), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (state, variances), color in zip(axes, states.items(), cycle(colors), strict=False):
        shares = variances.double() / variances.double().mean()
        spread = float(shares.std(correction=0))
        axis.stairs(shares.numpy(), fill=True, color=color)
        axis.axhline(1, color="black", linewidth=0.6)
        for dim in dims[:-1]:
            axis.axvline(dim, color=BOUNDARY, linewidth=1.4, linestyle=":")
        axis.set(title=f"{state}: coefficient of variation {spread:.2f}", ylabel="share x D")
        axis.margins(x=0)
    axes[-1].set_xlabel("coordinate (dotted: ends of the nested widths)")
    return captioned(figure, caption)


def correlation_map(
    states: Mapping[str, Float[Tensor, "prefix residual"]],
    dims: Sequence[int],
    rows: int,
    caption: str = "",
) -> Figure:
    """|correlation| of a prefix with its residual, over `rows` rows, on one colour scale.

    A map of more coordinates than a picture has room for is drawn in blocks, each with the root of
    its mean square, so that its rms stays what it is.
    """
    figure = Figure(figsize=(WIDE, 0.6 + 2.2 * len(states)), layout="constrained")
    axes = figure.subplots(len(states), 1, sharex=True, squeeze=False)[:, 0]
    maps = {state: block_rms(matrix.abs().double()) for state, matrix in states.items()}
    top = max(float(torch.quantile(matrix.flatten()[:QUANTILE], 0.999)) for matrix in maps.values())
    for axis, (state, matrix) in zip(axes, states.items(), strict=True):
        dim, full = matrix.shape[0], sum(matrix.shape)
        drawn, (high, wide) = maps[state], block_sides(matrix)
        image = axis.imshow(
            drawn.numpy(),
            vmin=0,
            vmax=top,
            cmap="magma",
            aspect="auto",
            interpolation="nearest",
            # the last blocks may reach beyond the last coordinate
            extent=(dim, dim + wide * drawn.shape[1], high * drawn.shape[0], 0),
        )
        axis.set(xlim=(dim, full), ylim=(dim, 0))
        axis.yaxis.set_major_locator(MaxNLocator(7, integer=True))
        for end in dims:
            if end < dim:
                axis.axhline(end, color="white", linewidth=0.9, linestyle=":")
            elif dim < end < full:
                axis.axvline(end, color="white", linewidth=0.9, linestyle=":")
        floor = max(rows - 1, 1) ** -0.5
        axis.set(
            title=f"{state}: rms {rms(matrix):.3f} (independent: {floor:.3f})",
            ylabel=f"prefix (first {dim})",
        )
    axes[-1].set_xlabel("residual coordinate (dotted: ends of the nested widths)")
    figure.colorbar(image, ax=list(axes), label="|correlation|", extend="max")
    return captioned(figure, f"{caption}; {block_note(states)}" if block_note(states) else caption)


def snapshot_map(snapshot: Snapshot) -> Figure:
    """The correlation map of one validation."""
    assert snapshot.correlation is not None
    states, dims = {f"step {snapshot.step}": snapshot.correlation}, tuple(snapshot.spectra)
    caption = f"correlation of prefix and residual over {snapshot.rows:,} validation texts"
    return correlation_map(states, dims, snapshot.rows, caption)


def block_note(states: Mapping[str, Float[Tensor, "prefix residual"]]) -> str:
    """How the maps were made smaller; nothing if they were not."""
    high, wide = block_sides(next(iter(states.values())))
    if high == wide == 1:
        return ""
    return f"drawn in blocks of {high} x {wide} coordinates, the rms of each"


def block_sides(x: Float[Tensor, "prefix residual"]) -> tuple[int, int]:
    """Rows and columns of the blocks of which at most CELLS stand beside each other."""
    return max(1, ceil(x.shape[0] / CELLS)), max(1, ceil(x.shape[1] / CELLS))


def block_rms(x: Float[Tensor, "prefix residual"]) -> Float[Tensor, "rows columns"]:
    """The root mean square of blocks, so many to a side that at most CELLS remain."""
    if block_sides(x) == (1, 1):
        return x
    squares = functional.avg_pool2d(x.square()[None], block_sides(x), ceil_mode=True)
    return squares[0].sqrt()


def panels(count: int, height: float, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each so many inches high, some beside each other."""
    beside = min(count, columns)
    lines = ceil(count / beside)
    wide = WIDE if beside > 1 else 0.7 * WIDE
    figure = Figure(figsize=(wide, height * lines + 0.3), layout="constrained")
    axes = list(figure.subplots(lines, beside, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.grid(alpha=0.3)
    return figure, axes[:count]


def band(
    axis: Axes,
    x: Sequence[float],
    middle: Float[Tensor, " points"],
    half: Float[Tensor, " points"],
    color: str,
) -> None:
    """The interval of a line."""
    low, high = (middle - half).numpy(), (middle + half).numpy()
    axis.fill_between(list(x), low, high, color=color, alpha=0.2, linewidth=0)


def legend(figure: Figure, axis: Axes) -> None:
    """The names of an axis's lines, once for the whole figure, above it."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        room, widths = LETTERS * figure.get_figwidth(), [len(label) + 6 for label in labels]
        columns = len(labels) if sum(widths) <= room else max(1, int(room / max(widths)))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def captioned(figure: Figure, caption: str) -> Figure:
    if caption:
        letters = round(120 * figure.get_figwidth() / WIDE)
        figure.supxlabel(fill(caption, letters), fontsize=8, color="#444444")
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a figure whole or not at all."""
    with replacing(file) as partial:
        write_png(pixels_of(figure), partial)


def pixels_of(figure: Figure) -> UInt8[np.ndarray, "high wide rgba"]:
    """The figure's pixels, as savefig draws them.

    savefig draws a figure twice, as it computes the layout in a first drawing that it throws away.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def write_png(pixels: UInt8[np.ndarray, "high wide rgba"], to: Path | BytesIO) -> None:
    imsave(to, pixels, format="png", dpi=DPI)
