"""The runs of run.sh as a Markdown table: mean over seeds and a 95 % interval, baselines beside."""

import json
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

RUNS = Path("runs")
SEEDS = (0, 1, 2)
TASKS = {
    "stsb_validation": "spearman",
    "stsb_test": "spearman",
    "multi30k_test": "ndcg@10",
}


def cell(values: list[float]) -> str:
    """Mean and half the width of the interval of Student's t; the mean alone when all agree."""
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ± {half:.1f}" if half else f"{mean(values):.1f}"


def main() -> None:
    runs = {
        method: [
            json.loads((RUNS / f"captions-{method}-{seed}" / "results.json").read_text())
            for seed in SEEDS
        ]
        for method in ("mrl", "mic")
    }
    for task, metric in TASKS.items():
        baselines = {
            name: [run["meta"]["baselines"][name] for run in runs["mic"]]
            for name in ("raw truncation", "PCA")
        }
        dims = list(runs["mic"][0][task][metric])
        print(f"**{task}**, {metric}, {len(SEEDS)} seeds\n")
        print("| | " + " | ".join(dims) + " |\n|---" + "|---:" * len(dims) + "|")
        for name, found in {**baselines, **runs}.items():
            cells = [cell([run[task][metric][dim] for run in found]) for dim in dims]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
