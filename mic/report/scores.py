"""Scores of several methods at every width: their mean and interval over seeds, and a table."""

from collections.abc import Mapping, Sequence
from typing import Literal

from mic.report.tables import Table
from mic.tracking.reader import Scores
from mic.tracking.seed_groups import Interval, interval

SeedScores = dict[str, dict[str, dict[int, Interval]]]  # task -> metric -> width -> over seeds


def scores_over_seeds(runs: Sequence[Scores]) -> SeedScores:
    """Means and intervals of the tasks, metrics and widths that all runs have."""
    return {
        task: {
            metric: {
                dim: interval([scores[task][metric][dim] for scores in runs])
                for dim in values
                if all(dim in scores[task][metric] for scores in runs)
            }
            for metric, values in metrics.items()
            if all(metric in scores[task] for scores in runs)
        }
        for task, metrics in runs[0].items()
        if all(task in scores for scores in runs)
    }


def interval_values(
    methods: Mapping[str, SeedScores], field: Literal["mean", "half"]
) -> dict[str, Scores]:
    """The means of the intervals, or half of their widths, by method."""
    return {
        method: {
            task: {
                metric: {dim: getattr(value, field) for dim, value in by_width.items()}
                for metric, by_width in metrics.items()
            }
            for task, metrics in scores.items()
        }
        for method, scores in methods.items()
    }


def score_table(task: str, metric: str, methods: Mapping[str, SeedScores]) -> Table:
    """A row a method, a column a width."""
    lines = {name: scores[task].get(metric, {}) for name, scores in methods.items()}
    dims = sorted({dim for line in lines.values() for dim in line})
    rows = [
        [name, *(line[dim].shown(1) if dim in line else "-" for dim in dims)]
        for name, line in lines.items()
    ]
    return Table(f"{task}: {metric} (%)", ["", *map(str, dims)], rows)
