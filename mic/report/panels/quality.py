"""Panels of quality: against width beside the baselines, and over training."""

from collections.abc import Mapping, Sequence

from mic.report import figures
from mic.report.panel import Panel, Table, View
from mic.report.plotting import curves
from mic.tracking.reader import OWN, Scores
from mic.tracking.seed_groups import Interval, interval

HEADLINES = ("spearman", "ndcg@10", "accuracy", "ap", "v_measure")
SAME = 1e-6  # points; baselines that agree are one
Summary = dict[str, dict[str, dict[int, Interval]]]  # task -> metric -> width -> over seeds


def against_width(view: View) -> Panel:
    """Quality at every width, with what needs no training: raw truncation and PCA."""
    title = "Quality against width"
    methods, untrained = summaries(view)
    if not methods:
        return Panel(title, missing="No results.json yet: it is written when a run ends.")
    first = next(iter(methods.values()))
    tasks = {task: first[task] for task in first if all(task in one for one in methods.values())}
    left_out = sorted({task for one in methods.values() for task in one} - set(tasks))
    if not tasks:
        return Panel(title, missing="The runs have no task in common.")
    headlines = {task: headline(list(metrics)) for task, metrics in tasks.items()}
    picture = figures.quality(
        headlines, values(methods, "mean"), halves=values(methods, "half"), untrained=untrained
    )
    what = "Scores of the finished run at every width, and of the untrained encoder, cut as it is "
    what += "or rotated by a PCA that was fitted on training texts; per cent."
    if left_out:
        what += f" Left out, as not all runs have them: {', '.join(left_out)}."
    main = [table(task, metric, methods) for task, metric in headlines.items()]
    others = [
        table(task, metric, methods)
        for task, metrics in tasks.items()
        for metric in metrics
        if metric != headlines[task]
    ]
    return Panel(
        title,
        {"quality": picture},
        view.caption(what, view.trained_on()),
        main,
        folded={"Other metrics": others} if others else {},
    )


def over_training(view: View) -> Panel:
    """Every validation task's headline, step by step."""
    title = "Validation quality over training"
    tasks: dict[str, list[str]] = {}
    for run in view.runs:
        for name in run.metrics:
            match name.split("/"):
                case ["val", task, metric, _] if metric not in tasks.setdefault(task, []):
                    tasks[task].append(metric)
    if not tasks:
        return Panel(title, missing="Nothing was validated yet.")
    shown = {task: headline(metrics) for task, metrics in tasks.items()}
    cells = [
        cell
        for task, metric in shown.items()
        for cell in view.cells(f"val/{task}/{metric}", task, f"{metric} (%)")
    ]
    what = "Validation scores in per cent; step 0 is the untrained encoder. "
    what += "`pairs` is retrieval among the validation rows."
    return Panel(
        title, {"validation": curves(cells, view.keys())}, view.caption(what, view.trained_on())
    )


def headline(metrics: Sequence[str]) -> str:
    """The metric that stands for a task."""
    return next((name for name in HEADLINES if name in metrics), metrics[0])


def summaries(view: View) -> tuple[dict[str, Summary], int]:
    """Every method over its seeds, and how many of them, which come first, are baselines.

    The baselines are those of the first group, and of every other one that has others.
    """
    baselines: dict[str, Summary] = {}
    trained: dict[str, Summary] = {}
    for group in view.groups:
        finished = [run for run in group.runs if run.finished]
        if not finished:
            continue
        for name in finished[0].methods:
            found = over_seeds([run.methods[name] for run in finished])
            if name == OWN:
                trained[group.label] = found
            elif name not in baselines:
                baselines[name] = found
            elif not alike(found, baselines[name]):
                baselines[f"{name} ({group.label})"] = found
    return {**baselines, **trained}, len(baselines)


def over_seeds(found: Sequence[Scores]) -> Summary:
    """Means and intervals of what all runs have scored."""
    return {
        task: {
            metric: {
                dim: interval([one[task][metric][dim] for one in found])
                for dim in values
                if all(dim in one[task][metric] for one in found)
            }
            for metric, values in metrics.items()
            if all(metric in one[task] for one in found)
        }
        for task, metrics in found[0].items()
        if all(task in one for one in found)
    }


def alike(one: Summary, other: Summary) -> bool:
    def means(summary: Summary) -> dict[tuple[str, str, int], float]:
        return {
            (task, metric, dim): value.mean
            for task, metrics in summary.items()
            for metric, values in metrics.items()
            for dim, value in values.items()
        }

    left, right = means(one), means(other)
    return left.keys() == right.keys() and all(abs(left[key] - right[key]) <= SAME for key in left)


def values(methods: Mapping[str, Summary], part: str) -> dict[str, Scores]:
    """The means or the halves of the intervals, by method."""
    return {
        method: {
            task: {
                metric: {dim: getattr(one, part) for dim, one in by_width.items()}
                for metric, by_width in metrics.items()
            }
            for task, metrics in summary.items()
        }
        for method, summary in methods.items()
    }


def table(task: str, metric: str, methods: Mapping[str, Summary]) -> Table:
    """A row a method, a column a width."""
    found = {name: one[task].get(metric, {}) for name, one in methods.items()}
    dims = sorted({dim for one in found.values() for dim in one})
    rows = [
        [name, *(one[dim].shown(1) if dim in one else "-" for dim in dims)]
        for name, one in found.items()
    ]
    return Table(f"{task}: {metric} (%)", ["", *map(str, dims)], rows)
