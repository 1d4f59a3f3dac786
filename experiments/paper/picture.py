"""Quality and geometry against width in one picture: baselines, the paper's methods, ablations.

`python experiments/paper/picture.py runs/paper-test` reads what `mic evaluate` wrote there and
draws methods.png beside this file, or in the folder of the variant that runs/paper-VARIANT-test
names.
"""

import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from differences import MIC, OTHERS, SEEDS, evaluated, home
from scipy.stats import t

from mic.report import figures

METHODS = (MIC, *OTHERS)
PUBLISHED = 5  # of METHODS: the others are MIC without something, or with more
BASELINES = ("raw truncation", "PCA", "random rotation")
OWN = ""  # a run's own values among its baselines'
Line = tuple[list[int], list[float], list[float]]  # widths, means, half intervals


def main(folder: Path) -> None:
    runs = evaluated(folder)
    figure, axes = figures.panels(6, 3.0)
    titles = ("mean of the tasks (%)", "effective rank", "correlation excess x 1000")
    for at, axis in enumerate(axes):
        measure = ("quality", "effective_rank", "correlation_excess")[at % 3]
        for name, look in zip(BASELINES, figures.UNTRAINED, strict=True):
            widths, values, _ = line([runs[MIC][0]], name, measure)
            axis.plot(widths, values, label=name, markersize=4, **look)
        shown = METHODS[:PUBLISHED] if at < 3 else (MIC, *METHODS[PUBLISHED:])
        for method in filter(runs.__contains__, shown):
            look = figures.style(METHODS.index(method))
            widths, values, halves = line(runs[method], OWN, measure)
            axis.plot(widths, values, label=method, markersize=4, **look)
            figures.band(axis, widths, torch.tensor(values), torch.tensor(halves), look["color"])
        axis.set_xscale("log", base=2)
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.minorticks_off()
        axis.set(title=titles[at % 3], xlabel="dimensions kept of each vector")
    for axis in (axes[0], axes[3]):
        axis.legend(fontsize=6)
    caption = (
        f"Bands: 95 % t-interval over {len(SEEDS)} seeds. Above the paper's methods, below MIC and "
        f"its ablations. Made by `python experiments/paper/picture.py {folder}`."
    )
    figures.save(figures.captioned(figure, caption), home(folder) / "methods.png")


def line(runs: list[dict[str, Any]], name: str, measure: str) -> Line:
    """A measure of a method's runs, or of one's baseline, by width."""
    found = []
    for run in runs:
        meta = run["meta"]
        if measure == "quality":
            scores = run if name == OWN else meta["baselines"][name]
            columns = [scores[task][metric] for task, metric in meta["headlines"].items()]
            found.append({dim: mean(column[dim] for column in columns) for dim in columns[0]})
        else:
            scale = 1000 if measure == "correlation_excess" else 1
            values = meta["geometry"][name][measure]
            found.append({dim: scale * value for dim, value in values.items()})
    dims = list(found[0])
    middles = [mean(one[dim] for one in found) for dim in dims]
    halves = [0.0] * len(dims)
    if len(found) > 1:
        wide = t.ppf(0.975, len(found) - 1) / len(found) ** 0.5
        halves = [wide * stdev(one[dim] for one in found) for dim in dims]
    return [int(dim) for dim in dims], middles, halves


if __name__ == "__main__":
    main(Path(sys.argv[1]))
