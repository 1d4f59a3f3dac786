"""Panel of the sweep's metrics over training, a line a setting."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mic.report.figures import COLOURS, UNCHANGED, legend, panels
from mic.report.panel import Panel, three_widths
from mic.report.plotting import Diagram, draw_diagram
from mic.sweep.report.read import Setting
from mic.sweep.report.view import SweepView
from mic.tracking.seed_groups import series_over_runs

BEST, OTHERS, EARLY = "best", "other settings", "ended early, or still training"


def training_panel(view: SweepView) -> Panel:
    """Validation during training, of complete settings and of those that ended early."""
    title = "Validation over training"
    wide = [f"{name}/d{dim}" for name in view.families() for dim in three_widths(view.dims(name))]
    names = list(dict.fromkeys([*(metric.name for metric in view.sweep.metrics), *wide]))
    logged = [name for name in names if any(name in run.metrics for run in view.runs)]
    if not logged:
        return Panel(title, missing="Nothing was validated yet.")
    what = (
        "Means over the seeds so far, a line a setting; step 0 is the untrained encoder. Dotted: "
        "ended early, failed or still training."
    )
    settings = [setting for setting in view.settings if any(trial.run for trial in setting.trials)]
    return Panel(title, {"training": draw_training(view, logged)}, view.caption(what, settings))


def draw_training(view: SweepView, names: list[str]) -> Figure:
    figure, axes = panels(len(names), 2.8)
    best = view.best
    for axis, name in zip(axes, names, strict=True):
        for setting in view.settings:
            if setting is not best:
                draw_setting(axis, setting, name)
        if best is not None:
            values = series_over_runs(
                [run.metrics[name] for run in best.finished if name in run.metrics]
            )
            label = f"best ({best.label})"
            draw_diagram(axis, Diagram("", "", {label: values}), [label])
        axis.set_xlabel("step")
        axis.set_title(name, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    full = max(axes, key=lambda axis: len(set(axis.get_legend_handles_labels()[1])))
    legend(figure, full)
    return figure


def draw_setting(axis: Axes, setting: Setting, name: str) -> None:
    """A setting that is not the best; one of them stands for all in the legend."""
    whole = setting.complete
    runs = setting.finished if whole else [trial.run for trial in setting.trials if trial.run]
    values = series_over_runs([run.metrics[name] for run in runs if name in run.metrics])
    if not values:
        return
    label = OTHERS if whole else EARLY
    taken = label in axis.get_legend_handles_labels()[1]
    axis.plot(
        list(values),
        [value.mean for value in values.values()],
        color=UNCHANGED if whole else COLOURS[4],
        linewidth=0.8 if whole else 1.4,
        linestyle="-" if whole else ":",
        alpha=0.8,
        label=None if taken else label,
    )
