"""What a run looks like: quality against width, variance per coordinate, correlation maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mic.evaluate import Results
from mic.geometry import covariance, cross_correlation, rms
from mic.nested import unit
from mic.tasks import Task

STYLES = (
    {"color": "#999999", "linestyle": "--", "marker": "s"},
    {"color": "#555555", "linestyle": ":", "marker": "^"},
    {"color": "#0b6e99", "linestyle": "-", "marker": "o"},
)


def quality(
    file: Path, tasks: Sequence[Task], methods: Mapping[str, Results], caption: str
) -> None:
    """Quality against width: a panel a task, a line a method."""
    figure = Figure(figsize=(1 + 4 * len(tasks), 3.8), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for (method, results), style in zip(methods.items(), STYLES, strict=True):
            values = results[task.name][task.headline]
            axis.plot(list(values), list(values.values()), label=method, **style)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(values), [str(dim) for dim in values])
        axis.minorticks_off()
        axis.set(
            title=task.name, xlabel="numbers kept of each vector", ylabel=f"{task.headline} (%)"
        )
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    save(figure, file, caption)


def variance(
    file: Path, states: Mapping[str, Float[Tensor, "texts dim"]], dims: Sequence[int], caption: str
) -> None:
    """Each coordinate's share of the variance of unit vectors; 1 is an equal share."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots(len(states), 1, sharex=True, sharey=True)
    for axis, (state, embeddings), style in zip(axes, states.items(), STYLES[::2], strict=True):
        variances = covariance(unit(embeddings)).diagonal()
        shares = variances / variances.mean()
        spread = float(shares.std(correction=0))
        axis.bar(range(len(shares)), shares.numpy(), width=1.0, color=style["color"])
        axis.axhline(1, color="black", linewidth=0.6)
        for dim in dims[:-1]:
            axis.axvline(dim - 0.5, color="#c44e52", linewidth=0.6, linestyle=":")
        axis.set(title=f"{state}: coefficient of variation {spread:.2f}", ylabel="share x D")
        axis.margins(x=0)
    axes[-1].set_xlabel("coordinate (dotted: ends of the nested widths)")
    save(figure, file, caption)


def correlation_map(
    file: Path, states: Mapping[str, Float[Tensor, "texts dim"]], dim: int, caption: str
) -> None:
    """|correlation| of the first `dim` coordinates with the others, on one colour scale."""
    maps = {
        state: cross_correlation(covariance(unit(embeddings)), dim).abs()
        for state, embeddings in states.items()
    }
    top = max(float(torch.quantile(one, 0.999)) for one in maps.values())
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots(len(maps), 1, sharex=True)
    full = next(iter(states.values())).shape[1]
    for axis, (state, one) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(
            one.numpy(),
            vmin=0,
            vmax=top,
            cmap="magma",
            aspect="auto",
            interpolation="nearest",
            extent=(dim, full, dim, 0),
        )
        axis.set(title=f"{state}: rms {rms(one):.3f}", ylabel=f"prefix (first {dim})")
    axes[-1].set_xlabel("residual coordinate")
    figure.colorbar(image, ax=list(axes), label="|correlation|")
    save(figure, file, caption)


def save(figure: Figure, file: Path, caption: str) -> None:
    """Write a figure whole or not at all, its caption below."""
    figure.supxlabel(caption, fontsize=8, color="#444444")
    partial = file.with_name(f".{file.name}")
    figure.savefig(partial, dpi=130, format="png")
    partial.replace(file)
