"""Quality by kind of task against width: a table and a picture of what helps where.

`python experiments/elastic/kinds.py TO [TO ...]` reads all that `mic evaluate --to TO` wrote of the
suite test.yaml, and writes kinds.md and kinds.png beside this file.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes

from mic.evaluation import results
from mic.evaluation.results import Evaluation
from mic.evaluation.significance import ALL, MEAN, compare_methods, group_evaluations
from mic.report import figures
from mic.report.tables import numeric_markdown
from mic.tracking.seed_groups import Interval

HERE = Path(__file__).parent
KINDS = {
    "STS": ("stsb", "sick", "sts13", "sts14", "sts15"),
    "retrieval": ("scifact", "cranfield", "cacm", "quora"),
    "classification": ("banking77", "trec", "sst2"),
}
DRAWN = ("pca", "mrl", "distill_uniformity", "mic_distill", "tuned")
Means = dict[str, dict[int, Interval]]  # method -> width -> over seeds


def main(folders: Sequence[Path]) -> None:
    places = sorted(file.parent for folder in folders for file in folder.glob("*/results.json"))
    models = [results.read_evaluation(place) for place in places]
    command = f"`python experiments/elastic/kinds.py {' '.join(map(str, folders))}`"
    lines = [f"Made by {command}.", "", "Per cent; of runs mean ± half of the 95 % t-interval."]
    figure, axes = figures.panels(len(KINDS), 3.6)
    for axis, (kind, tasks) in zip(axes, KINDS.items(), strict=True):
        methods, untrained = means(models, tasks)
        dims = list(methods["raw truncation"])
        rows = [[name, *(row[dim].shown(1) for dim in dims)] for name, row in methods.items()]
        text = numeric_markdown(["", *map(str, dims)], rows)
        lines += ["", f"**{kind}: mean of {len(tasks)} tasks (%)**", "", text]
        draw(axis, methods, untrained)
        axis.set(title=f"{kind} (%)", xlabel="dimensions kept of each vector")
    axes[0].legend(fontsize=6)
    (HERE / "kinds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    caption = f"Means of test tasks; bands: 95 % t-interval over seeds. Made by {command}."
    figures.save(figures.captioned(figure, caption), HERE / "kinds.png")


def means(models: Sequence[Evaluation], tasks: Sequence[str]) -> tuple[Means, int]:
    """The mean of the tasks by method; the first so many are baselines."""
    kept = [
        one._replace(
            results={task: one.results[task] for task in tasks},
            baselines={
                name: {task: found[task] for task in tasks} for name, found in one.baselines.items()
            },
        )
        for one in models
    ]
    view = compare_methods(group_evaluations(kept), baselines=True)
    return {name: found[ALL][MEAN] for name, found in view.methods.items()}, view.untrained


def draw(axis: Axes, methods: Means, untrained: int) -> None:
    looks = iter(figures.UNTRAINED)
    for at, (name, found) in enumerate(methods.items()):
        if at >= untrained and name not in DRAWN:
            continue
        look = next(looks) if at < untrained else figures.style(DRAWN.index(name))
        dims = list(found)
        middle = torch.tensor([one.mean for one in found.values()])
        half = torch.tensor([one.half for one in found.values()])
        axis.plot(dims, middle, label=name, markersize=4, **look)
        figures.band(axis, dims, middle, half, look["color"])
    axis.set_xscale("log", base=2)
    axis.set_xticks(dims, [str(dim) for dim in dims])
    axis.minorticks_off()


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
