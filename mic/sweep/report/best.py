"""Write the best setting's config, and the panels of its config and of its test scores."""

import shlex
from dataclasses import replace
from pathlib import Path

from mic.config.diff import config_diff, flat_values
from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.files import write_text
from mic.report.panel import Panel, View
from mic.report.panels import quality
from mic.report.scores import score_table
from mic.report.tables import Table
from mic.sweep.report.view import (
    SweepView,
    format_metric,
    format_point,
    metric_value,
    short_names,
)
from mic.sweep.report.widths import no_best_setting
from mic.sweep.sweep_file import task_names
from mic.tracking.seed_groups import SeedGroup, format_value

BEST = "best.yaml"


def best_config(view: SweepView) -> Config | None:
    """The config of the best setting's first seed, with its own name among the base's runs."""
    if view.best is None:
        return None
    seed, base = view.sweep.seeds[0], view.base
    run = next(run for run in view.best.finished if run.config.seed == seed)
    name = f"{view.name}-best"
    return replace(run.config, name=name, runs=base.runs, logging=base.logging)


def write_best(view: SweepView, file: Path) -> None:
    """Write best.yaml; an earlier one goes when there is no best setting."""
    config = best_config(view)
    if config is None:
        file.unlink(missing_ok=True)
    else:
        write_text(
            file, f"# {describe_best(view)}\n# chosen by `{view.command}`\n{to_yaml(config)}"
        )


def describe_best(view: SweepView) -> str:
    """Say which setting is best, by which metric, among how many."""
    assert view.best is not None
    value = metric_value(view.best, view.metric.name)
    assert value is not None
    over = f"95 % interval, {value.runs} seeds" if value.runs > 1 else "one seed, no interval"
    return (
        f"sweep {view.name}, setting {view.best.label}, the best of {len(view.complete)}: "
        f"{view.metric.name} {format_metric(value)} ({over})"
    )


def test_scores_panel(view: SweepView) -> Panel:
    """The test tasks, of the best setting alone."""
    title = "Test scores of the best setting"
    if view.best is None:
        return Panel(title, missing=no_best_setting(view))
    runs = view.best.finished
    tasks = task_names(runs[0].config.evaluation.test)
    methods, _ = quality.method_scores(View([SeedGroup(view.best.label, runs)], view.command))
    tasks = [task for task in tasks if all(task in scores for scores in methods.values())]
    if not tasks:
        return Panel(title, missing="The config has no test task: evaluation.test is empty.")
    headlines = {task: quality.headline(list(methods[view.best.label][task])) for task in tasks}
    others = [
        score_table(task, metric, methods)
        for task in tasks
        for metric in methods[view.best.label][task]
        if metric != headlines[task]
    ]
    what = (
        "No choice looked at these: the settings were compared by validation alone. Beside them "
        "the untrained encoder, cut as it is or rotated by a PCA."
    )
    return Panel(
        title,
        caption=view.caption(what, [view.best]),
        tables=[score_table(task, metric, methods) for task, metric in headlines.items()],
        folded={"Other metrics": others} if others else {},
    )


def best_config_panel(view: SweepView) -> Panel:
    """What the best setting changes in the base config, and the command that trains it."""
    title = "Config of the best setting"
    config = best_config(view)
    if config is None or view.best is None:
        return Panel(title, missing=no_best_setting(view))
    base = flat_values(view.base)
    rows = [
        [key, format_value(value), format_value(base[key]) if key in base else "-"]
        for key, value in config_diff(config, view.base).items()
    ]
    point = format_point(view.best, short_names(view.sweep.parameters))
    train = shlex.join(["mic", "train", str(view.folder / BEST)])
    return Panel(
        title,
        caption=f"The choice of {describe_best(view)}: {point}. Train it with `{train}`.",
        tables=[Table("What it changes in the base", ["key", "value", "base"], rows)],
        texts={BEST: to_yaml(config)},
    )
