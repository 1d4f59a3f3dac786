"""Panels of quality: against width beside the baselines, and over training."""

from collections.abc import Sequence

from mic.report import figures
from mic.report.panel import Panel, View
from mic.report.plotting import draw_diagrams
from mic.report.scores import SeedScores, interval_values, score_table, scores_over_seeds
from mic.tracking.reader import OWN

HEADLINES = ("spearman", "ndcg@10", "accuracy", "ap", "v_measure")
SAME = 1e-6  # points; baselines that agree are one


def quality_panel(view: View) -> Panel:
    """Quality at every width, with what needs no training: raw truncation and PCA."""
    title = "Quality against width"
    methods, untrained = method_scores(view)
    if not methods:
        return Panel(title, missing="No results.json yet: it is written when a run ends.")
    first = next(iter(methods.values()))
    tasks = {
        task: first[task] for task in first if all(task in scores for scores in methods.values())
    }
    left_out = sorted({task for scores in methods.values() for task in scores} - set(tasks))
    if not tasks:
        return Panel(title, missing="The runs have no task in common.")
    headlines = {task: headline(list(metrics)) for task, metrics in tasks.items()}
    picture = figures.quality(
        headlines,
        interval_values(methods, "mean"),
        halves=interval_values(methods, "half"),
        untrained=untrained,
    )
    what = "Scores of the finished run at every width, and of the untrained encoder, cut as it is "
    what += "or rotated by a PCA that was fitted on training texts; per cent."
    if left_out:
        what += f" Left out, as not all runs have them: {', '.join(left_out)}."
    main = [score_table(task, metric, methods) for task, metric in headlines.items()]
    others = [
        score_table(task, metric, methods)
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


def validation_panel(view: View) -> Panel:
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
    diagrams = [
        diagram
        for task, metric in shown.items()
        for diagram in view.diagrams(f"val/{task}/{metric}", task, f"{metric} (%)")
    ]
    what = "Validation scores in per cent; step 0 is the untrained encoder. "
    what += "`pairs` is retrieval among the validation rows."
    return Panel(
        title,
        {"validation": draw_diagrams(diagrams, view.keys())},
        view.caption(what, view.trained_on()),
    )


def headline(metrics: Sequence[str]) -> str:
    """The metric that stands for a task."""
    return next((name for name in HEADLINES if name in metrics), metrics[0])


def method_scores(view: View) -> tuple[dict[str, SeedScores], int]:
    """Every method over its seeds, and how many of them, which come first, are baselines.

    The baselines are those of the first group, and of every other one that has others.
    """
    baselines: dict[str, SeedScores] = {}
    trained: dict[str, SeedScores] = {}
    for group in view.groups:
        finished = [run for run in group.runs if run.finished]
        if not finished:
            continue
        for name in finished[0].methods:
            scores = scores_over_seeds([run.methods[name] for run in finished])
            if name == OWN:
                trained[group.label] = scores
            elif name not in baselines:
                baselines[name] = scores
            elif not same_scores(scores, baselines[name]):
                baselines[f"{name} ({group.label})"] = scores
    return {**baselines, **trained}, len(baselines)


def same_scores(first: SeedScores, second: SeedScores) -> bool:
    def means(summary: SeedScores) -> dict[tuple[str, str, int], float]:
        return {
            (task, metric, dim): value.mean
            for task, metrics in summary.items()
            for metric, values in metrics.items()
            for dim, value in values.items()
        }

    left, right = means(first), means(second)
    return left.keys() == right.keys() and all(abs(left[key] - right[key]) <= SAME for key in left)
