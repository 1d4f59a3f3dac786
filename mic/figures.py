"""What a run looks like: quality against width, variance per coordinate, correlation maps."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mic.evaluate import Results
from mic.geometry import rms

BOUNDARY = "#c44e52"
CELLS = 512  # rows or columns of a map that a picture has room for
QUANTILE = 2**24  # values that torch.quantile takes

STYLES = (
    {"color": "#999999", "linestyle": "--", "marker": "s"},
    {"color": "#555555", "linestyle": ":", "marker": "^"},
    {"color": "#0b6e99", "linestyle": "-", "marker": "o"},
)


def quality(tasks: Mapping[str, str], methods: Mapping[str, Results], caption: str) -> Figure:
    """Quality against width: a panel a task (with the metric shown), a line a method."""
    figure = Figure(figsize=(1 + 4 * len(tasks), 3.8), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, (task, metric) in zip(axes, tasks.items(), strict=True):
        for (method, results), style in zip(methods.items(), STYLES, strict=True):
            values = results[task][metric]
            axis.plot(list(values), list(values.values()), label=method, **style)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(values), [str(dim) for dim in values])
        axis.minorticks_off()
        axis.set(title=task, xlabel="numbers kept of each vector", ylabel=f"{metric} (%)")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    return captioned(figure, caption)


def variance(
    states: Mapping[str, Float[Tensor, " dim"]], dims: Sequence[int], caption: str
) -> Figure:
    """Each coordinate's share of the variance; 1 is an equal share. A panel a state."""
    figure = Figure(figsize=(9, 1 + 1.8 * len(states)), layout="constrained")
    axes = figure.subplots(len(states), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (state, variances), style in zip(axes, states.items(), cycle(STYLES[::2])):
        shares = variances.double() / variances.double().mean()
        spread = float(shares.std(correction=0))
        axis.bar(range(len(shares)), shares.numpy(), width=1.0, color=style["color"])
        axis.axhline(1, color="black", linewidth=0.6)
        for dim in dims[:-1]:
            axis.axvline(dim - 0.5, color=BOUNDARY, linewidth=0.6, linestyle=":")
        axis.set(title=f"{state}: coefficient of variation {spread:.2f}", ylabel="share x D")
        axis.margins(x=0)
    axes[-1].set_xlabel("coordinate (dotted: ends of the nested widths)")
    return captioned(figure, caption)


def correlation_map(
    states: Mapping[str, Float[Tensor, "prefix residual"]],
    dims: Sequence[int],
    rows: int,
    caption: str,
) -> Figure:
    """|correlation| of a prefix with its residual, over `rows` rows, on one colour scale.

    A map of more coordinates than a picture has room for is drawn in blocks, each with the root of
    its mean square, so that its rms stays what it is.
    """
    figure = Figure(figsize=(9, 0.8 + 2.1 * len(states)), layout="constrained")
    axes = figure.subplots(len(states), 1, sharex=True, squeeze=False)[:, 0]
    maps = {state: blocks(one.abs().double()) for state, one in states.items()}
    top = max(float(torch.quantile(one.flatten()[:QUANTILE], 0.999)) for one in maps.values())
    for axis, (state, one) in zip(axes, states.items(), strict=True):
        dim, full = one.shape[0], sum(one.shape)
        image = axis.imshow(
            maps[state].numpy(),
            vmin=0,
            vmax=top,
            cmap="magma",
            aspect="auto",
            interpolation="nearest",
            extent=(dim, full, dim, 0),
        )
        for end in dims:
            if end < dim:
                axis.axhline(end, color="white", linewidth=0.7, linestyle=":")
            elif dim < end < full:
                axis.axvline(end, color="white", linewidth=0.7, linestyle=":")
        floor = max(rows - 1, 1) ** -0.5
        axis.set(
            title=f"{state}: rms {rms(one):.3f} (independent: {floor:.3f})",
            ylabel=f"prefix (first {dim})",
        )
    axes[-1].set_xlabel("residual coordinate (dotted: ends of the nested widths)")
    figure.colorbar(image, ax=list(axes), label="|correlation|")
    shrunk = next(iter(maps.values())).shape != next(iter(states.values())).shape
    return captioned(figure, caption + ("; blocks of coordinates, rms of each" * shrunk))


def blocks(x: Float[Tensor, "prefix residual"]) -> Float[Tensor, "rows columns"]:
    """The root mean square of blocks, so many to a side that at most CELLS remain."""
    sides = [max(1, -(-size // CELLS)) for size in x.shape]
    if sides == [1, 1]:
        return x
    kernel: tuple[int, int] = (sides[0], sides[1])
    squares = functional.avg_pool2d(x.square()[None], kernel, ceil_mode=True)
    return squares[0].sqrt()


def captioned(figure: Figure, caption: str) -> Figure:
    figure.supxlabel(fill(caption, 120), fontsize=8, color="#444444")
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a figure whole or not at all."""
    partial = file.with_name(f".{file.name}")
    figure.savefig(partial, dpi=130, format="png")
    partial.replace(file)
