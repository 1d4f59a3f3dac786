"""Runs that differ by their seed as Markdown tables: mean and 95 % interval, baselines beside.

`python experiments/seeds_table.py captions mrl mic` reads runs/captions-mrl-*/results.json and
runs/captions-mic-*/results.json and writes a table for every task.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

HEADLINES = ("spearman", "ndcg@10", "accuracy", "ap", "v_measure")


def cell(values: list[float]) -> str:
    """Mean and half the width of Student's interval; the mean alone where all values agree."""
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ± {half:.1f}" if half else f"{mean(values):.1f}"


def read(experiment: str, method: str) -> list[dict[str, Any]]:
    files = sorted(Path("runs").glob(f"{experiment}-{method}-*/results.json"))
    if len(files) < 2:
        sys.exit(f"runs/{experiment}-{method}-*: {len(files)} finished; an interval needs 2 seeds")
    return [json.loads(file.read_text()) for file in files]


def main(experiment: str, *methods: str) -> None:
    runs = {method: read(experiment, method) for method in methods}
    first = runs[methods[0]]
    names = first[0]["meta"]["baselines"]
    baselines = {name: [run["meta"]["baselines"][name] for run in first] for name in names}
    runs = {**baselines, **runs}
    for task, metrics in first[0].items():
        if task == "meta":
            continue
        metric = next(name for name in HEADLINES if name in metrics)
        dims = list(metrics[metric])
        print(f"**{task}**, {metric}, {len(first)} seeds\n")
        print("| | " + " | ".join(dims) + " |")
        print("|---" + "|---:" * len(dims) + "|")
        for name, found in runs.items():
            cells = [cell([run[task][metric][dim] for run in found]) for dim in dims]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main(*sys.argv[1:])
