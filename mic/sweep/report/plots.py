"""Panels of Optuna's plots: Pareto front, parameter importance, slices and contour.

Optuna draws studies that are rebuilt from the sweep: a trial has a setting's number, and as its
value the setting's mean over the seeds.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from math import isfinite
from statistics import mean
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import matplotlib as optuna_plots

from mic.report.figures import WIDE
from mic.report.panel import Panel
from mic.report.tables import Table
from mic.sweep.report.read import Setting
from mic.sweep.report.view import (
    SweepView,
    format_metric,
    format_parameter,
    metric_value,
    short_names,
)
from mic.sweep.report.widths import Family, no_best_setting
from mic.sweep.sampling import create_study
from mic.sweep.search_space import Parameter
from mic.sweep.sweep_file import Metric

PREFERRED = ("objective.gamma", "objective.threshold")  # of a contour, where both are swept
FEWEST = 4  # settings for an importance or a contour
BESIDE = 3  # slices beside each other in a picture
SEED = 0  # of the forest that measures importance
SMALL, LARGE = 8, 9  # points of letters
ROOM = 24  # letters of all names below an axis
LETTERS = 16  # of a value's name in a line below an axis

Importances = dict[str, float]  # a parameter's short name -> its share


class Label(str):
    """The name of a value: Optuna writes what repr() gives below an axis."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def pareto_panel(view: SweepView) -> Panel:
    """The sweep's metrics against each other; of a single one its narrowest and full width."""
    title = "Pareto front"
    goals = pareto_metrics(view)
    if len(goals) < 2:
        missing = f"{view.metric.name} is the only metric, and has no other width."
        return Panel(title, missing=missing)
    study = study_of(view, goals, {})
    trials = complete_trials(study)
    if len(trials) < 2:
        return Panel(title, missing=f"{len(trials)} settings to compare: two are needed.")
    settings = {setting.number: setting for setting in view.settings}
    front = sorted(study.best_trials, key=lambda trial: -goals[0].sign * trial.values[0])
    axes = view.sweep.parameters
    rows = [
        [
            settings[trial.number].label,
            *(format_metric(metric_value(settings[trial.number], goal.name)) for goal in goals),
            *(format_parameter(settings[trial.number].point[axis.key]) for axis in axes),
        ]
        for trial in front
    ]
    names = " and ".join(f"{goal.name} ({goal.goal})" for goal in goals)
    what = (
        f"Settings by {names}. On the front (best): no other setting's means are as good in all of "
        "them and better in one; where the intervals overlap, another sample of seeds may have "
        "another front."
    )
    pictures = {
        f"pareto{number or ''}": draw_pareto(study, goals, pair)
        for number, pair in enumerate(combinations(range(len(goals)), 2))
    }
    head = ["setting", *(goal.name for goal in goals), *short_names(axes).values()]
    return Panel(
        title,
        pictures,
        view.caption(what, [settings[trial.number] for trial in trials], intervals=False),
        [Table(f"The front: {len(rows)} of {len(trials)} settings", head, rows)],
    )


def pareto_metrics(view: SweepView) -> list[Metric]:
    if len(view.sweep.metrics) > 1 or not view.families():
        return list(view.sweep.metrics)
    ((name, metric),) = view.families().items()
    family = Family(name, metric, view.dims(name))
    ends = dict.fromkeys((family.dims[0], family.dims[-1]))
    return [family.metric_at(dim) for dim in ends]


def importance_panel(view: SweepView) -> Panel:
    """fANOVA's importance of every parameter, for each of the sweep's metrics."""
    title = "Parameter importance"
    shares_of: dict[str, Importances] = {}
    reasons = []
    pictures: dict[str, Figure] = {}
    for metric in view.sweep.metrics:
        shares = parameter_importances(view, metric)
        if isinstance(shares, str):
            reasons.append(f"{metric.name}: {shares}.")
            continue
        pictures[f"importance{len(pictures) or ''}"] = draw_importances(view, metric)
        shares_of[metric.name] = shares
    if not shares_of:
        return Panel(title, missing=" ".join(reasons))
    what = (
        "Share of the variance between the settings' means that a forest of regression trees "
        f"(fANOVA, seed {SEED}) ascribes to each parameter alone; the shares add up to 1, also "
        "where the settings hardly differ, and of few settings they are rough."
    )
    rows = [
        [name, *(f"{shares.get(name, 0.0):.2f}" for shares in shares_of.values())]
        for name in next(iter(shares_of.values()))
    ]
    return Panel(
        title,
        pictures,
        view.caption(" ".join([what, *reasons]), view.complete, intervals=False),
        [Table("Importance", ["parameter", *shares_of], rows)],
    )


def parameter_importances(view: SweepView, metric: Metric) -> Importances | str:
    """The shares of the parameters, the largest first, or why there are none."""
    keys = varied_keys(view)
    if len(keys) < 2:
        return f"{len(keys)} parameters with several values, so that there is nothing to share out"
    study = study_of(view, [metric], {key: key for key in keys})
    trials = complete_trials(study)
    if len(trials) < FEWEST:
        return f"{len(trials)} finished settings, and {FEWEST} are needed"
    if np.ptp([trial.value for trial in trials]) == 0:
        return "all settings have the same value"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = FanovaImportanceEvaluator(seed=SEED)
        shares = get_param_importances(study, evaluator=evaluator, params=keys)
    names = short_names(view.sweep.parameters)
    return {names[key]: float(share) for key, share in shares.items()}


def varied_keys(view: SweepView) -> list[str]:
    """The keys of the parameters that have several values."""
    return [axis.key for axis in view.sweep.parameters if not axis.distribution.single()]


def slices_panel(view: SweepView) -> Panel:
    """The metrics against every parameter, each alone."""
    title = "Slices"
    axes = view.sweep.parameters
    drawn = [
        (metric, axes[start : start + BESIDE])
        for metric in view.sweep.metrics
        if view.values(metric.name)
        for start in range(0, len(axes), BESIDE)
    ]
    if not drawn:
        return Panel(title, missing=no_best_setting(view))
    pictures = {
        f"slices{number or ''}": draw_slices(view, metric, beside)
        for number, (metric, beside) in enumerate(drawn)
    }
    what = (
        "The mean of every setting against one parameter at a time, whatever the others are; the "
        "darker, the later the setting."
    )
    return Panel(title, pictures, view.caption(what, view.complete, intervals=False))


def contour_panel(view: SweepView) -> Panel:
    """gamma against tau where both are swept, else the two numbers that matter most."""
    title = "Contour"
    values = view.values(view.metric.name)
    if not values:
        return Panel(title, missing=no_best_setting(view))
    axes = contour_axes(view)
    if isinstance(axes, str):
        return Panel(title, missing=axes)
    names = [short_names(view.sweep.parameters)[axis.key] for axis in axes]
    title = f"Contour of {names[0]} against {names[1]}"
    scales = {
        name: scale_of(axis, [setting.point[axis.key] for setting, _ in values])
        for name, axis in zip(names, axes, strict=True)
    }
    means: dict[tuple[float, ...], list[float]] = defaultdict(list)
    places = zip(*(scale.places for scale in scales.values()), strict=True)
    for place, (_, value) in zip(places, values, strict=True):
        means[place].append(value.mean)
    if reason := no_surface(list(means), list(scales.values())):
        return Panel(title, missing=f"{names[0]} against {names[1]}: {reason}.")
    study = create_study(direction=view.metric.goal)
    study.add_trials(
        create_trial(
            params=dict(zip(names, place, strict=True)),
            distributions={name: scale.distribution for name, scale in scales.items()},
            value=mean(group),
        )
        for place, group in means.items()
    )
    what = (
        f"{view.metric.name} over {names[0]} and {names[1]}. Points are settings, or the mean of "
        "those that share both values; between them the colours are interpolated."
    )
    what += " Other parameters vary freely." if len(view.sweep.parameters) > 2 else ""
    return Panel(
        title,
        {"contour": draw_contour(study, scales, view.metric.name)},
        view.caption(what, [setting for setting, _ in values], intervals=False),
    )


def contour_axes(view: SweepView) -> tuple[Parameter, Parameter] | str:
    """The two parameters of the contour, or why there are none."""
    names = short_names(view.sweep.parameters)
    axes = {names[axis.key]: axis for axis in view.sweep.parameters if is_numeric(axis)}
    if len(axes) < 2:
        return f"{len(axes)} parameters with several numbers as values: two are needed."
    if all(names.get(key) in axes for key in PREFERRED):
        first, second = (names[key] for key in PREFERRED)
    elif len(axes) == 2:
        first, second = axes
    else:
        shares = parameter_importances(view, view.metric)
        if isinstance(shares, str):
            return f"Which two parameters matter most is not known: {shares}."
        first, second = [name for name in shares if name in axes][:2]
    return axes[first], axes[second]


def is_numeric(axis: Parameter) -> bool:
    """Whether the values are numbers, and several."""
    values = axis.ends()
    numbers = all(isinstance(value, int | float) for value in values)
    return numbers and len(set(values)) > 1 and not any(isinstance(value, bool) for value in values)


class Scale(NamedTuple):
    """One axis of the contour: where the settings stand on it.

    The values of a list stand evenly spaced, in their order, and are the marks.
    """

    places: list[float]
    distribution: FloatDistribution
    marks: list[str]


def scale_of(axis: Parameter, values: Sequence[float]) -> Scale:
    """A range is a line of numbers, be it logarithmic; a list of numbers is evenly spaced.

    >>> axis = Parameter("x", CategoricalDistribution([9, 1]), [9, 1])
    >>> scale_of(axis, [9, 1, 9])[::2]
    ([1.0, 0.0, 1.0], ['1', '9'])
    """
    if isinstance(axis.distribution, CategoricalDistribution):
        tried = sorted(set(values))
        places = [float(tried.index(value)) for value in values]
        return Scale(
            places, FloatDistribution(0, len(tried) - 1), list(map(format_parameter, tried))
        )
    places = list(map(float, values))
    distribution = FloatDistribution(min(places), max(places), log=axis.logarithmic)
    return Scale(places, distribution, [])


def no_surface(places: Sequence[tuple[float, ...]], scales: Sequence[Scale]) -> str:
    """Why no surface goes through the places; nothing if one does."""
    if len(places) < FEWEST:
        return f"{len(places)} finished settings of different values, and {FEWEST} are needed"
    columns = [
        np.log(column) if scale.distribution.log else np.array(column)
        for column, scale in zip(zip(*places, strict=True), scales, strict=True)
    ]
    sizes = np.array([np.ptp(column) for column in columns])
    spread = np.array([column - column.mean() for column in columns]).T
    if (sizes == 0).any() or np.linalg.matrix_rank(spread / sizes, tol=1e-6) < 2:
        return "the finished settings lie on a line"
    return ""


# Studies


def study_of(view: SweepView, goals: Sequence[Metric], names: Mapping[str, str]) -> Study:
    """The complete settings that have the metrics and lie within the sweep's ranges.

    `names` are those of the parameters in the study, by key. The numbers of all other settings are
    those of failed trials, which Optuna leaves out.
    """
    axes = [axis for axis in view.sweep.parameters if axis.key in names]
    trials = {setting.number: trial_of(setting, goals, axes, names) for setting in view.complete}
    study = create_study(directions=[goal.goal for goal in goals])
    for number in range(max(trials, default=-1) + 1):
        study.add_trial(trials.get(number) or create_trial(state=TrialState.FAIL))
    return study


def trial_of(
    setting: Setting, goals: Sequence[Metric], axes: Sequence[Parameter], names: Mapping[str, str]
) -> FrozenTrial | None:
    """A setting as a trial; None where it lacks a metric or lies outside of the ranges."""
    values = [metric_value(setting, goal.name) for goal in goals]
    means = [value.mean for value in values if value and isfinite(value.mean)]
    if len(means) < len(goals):
        return None
    try:
        return create_trial(
            params={names[axis.key]: parameter_value(axis, setting) for axis in axes},
            distributions={names[axis.key]: distribution_of(axis) for axis in axes},
            values=means,
        )
    except (ValueError, TypeError):
        return None


def distribution_of(axis: Parameter) -> BaseDistribution:
    """Optuna's distribution; a choice of values is one of their names, in the file's order."""
    if not isinstance(axis.distribution, CategoricalDistribution):
        return axis.distribution
    return CategoricalDistribution(list(dict.fromkeys(map(value_label, axis.values or ()))))


def parameter_value(axis: Parameter, setting: Setting) -> Any:
    value = setting.point[axis.key]
    return value_label(value) if isinstance(axis.distribution, CategoricalDistribution) else value


def value_label(value: Any) -> Label:
    return Label(fill(format_parameter(value), LETTERS))


def complete_trials(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


# Pictures


@contextmanager
def quiet_drawing() -> Iterator[None]:
    """Optuna's plots without windows, warnings of experiments, and its style for other figures."""
    backend = pyplot.get_backend()
    with matplotlib.rc_context({"figure.constrained_layout.use": True}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyplot.switch_backend("agg")
        try:
            yield
        finally:
            pyplot.switch_backend(backend)


def draw_pareto(study: Study, goals: Sequence[Metric], pair: tuple[int, int]) -> Figure:
    """Two of the metrics against each other; the front is that of all of them."""
    with quiet_drawing():
        axis = optuna_plots.plot_pareto_front(
            study,
            target_names=[goals[number].name for number in pair],
            targets=lambda trial: [trial.values[number] for number in pair],
        )
        return plain_figure(axis, 4.0)


def draw_importances(view: SweepView, metric: Metric) -> Figure:
    keys, names = varied_keys(view), short_names(view.sweep.parameters)
    with quiet_drawing():
        axis = optuna_plots.plot_param_importances(
            study_of(view, [metric], {key: key for key in keys}),
            FanovaImportanceEvaluator(seed=SEED),
            keys,
            target_name=metric.name,
        )
        figure = plain_figure(axis, 1.4 + 0.4 * len(keys))
    if legend := axis.get_legend():
        legend.remove()  # its one entry may cover a bar
    axis.set(xlabel=f"importance for {metric.name}", ylabel="parameter")
    axis.set_yticks(axis.get_yticks(), [names[text.get_text()] for text in axis.get_yticklabels()])
    return figure


def draw_slices(view: SweepView, metric: Metric, axes: Sequence[Parameter]) -> Figure:
    every_name = short_names(view.sweep.parameters)
    names = {axis.key: every_name[axis.key] for axis in axes}
    with quiet_drawing():
        drawn = optuna_plots.plot_slice(study_of(view, [metric], names), target_name=metric.name)
        figure = plain_figure(drawn, 3.4, WIDE if len(axes) > 1 else 0.7 * WIDE)
    *charts, bar = figure.axes
    turned = False
    for chart, axis in zip(charts, sorted(axes, key=lambda axis: names[axis.key]), strict=True):
        if isinstance(axis.distribution, CategoricalDistribution):
            turned |= turn_long_names(chart)
    if turned:
        figure.set_figheight(5.0)
    bar.set_ylabel("setting")
    bar.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_contour(study: Study, scales: Mapping[str, Scale], metric: str) -> Figure:
    with quiet_drawing():
        drawn = optuna_plots.plot_contour(study, list(scales), target_name=metric)
        figure = plain_figure(drawn, 4.4)
    axis = figure.axes[0]
    for line in (axis.xaxis, axis.yaxis):
        if marks := scales[line.get_label_text()].marks:
            line.set_ticks(range(len(marks)), marks)
    return figure


def plain_figure(drawn: Any, high: float, wide: float = 0.7 * WIDE) -> Figure:
    """The figure of Optuna's axes, in the page's size and without the title, which the page has."""
    first: Axes = np.ravel(drawn)[0]
    figure = first.get_figure(root=True)
    assert isinstance(figure, Figure)
    pyplot.close(figure)  # which stays as it is: pyplot forgets it
    first.set_title("")
    first.set_title("", loc="left")
    figure.suptitle("")
    figure.set_size_inches(wide, high)
    for axis in figure.axes:
        for text in [*axis.texts, *(axis.legend_.get_texts() if axis.legend_ else ())]:
            text.set_fontsize(SMALL)
        axis.tick_params(labelsize=SMALL)
        for line in (axis.xaxis, axis.yaxis):
            line.label.set_fontsize(LARGE)
            if line.get_scale() == "log":  # few marks, so that their labels do not meet
                line.set_major_locator(LogLocator(10, numticks=6))
                line.set_minor_formatter(NullFormatter())
    return figure


def turn_long_names(axis: Axes) -> bool:
    """Turn the names of values if they have no room beside each other, and say whether."""
    names = [label.get_text() for label in axis.get_xticklabels()]
    long = sum(max(map(len, name.split("\n"))) for name in names) > ROOM
    if long:
        lines = [name.replace("\n", " ") for name in names]
        axis.set_xticks(axis.get_xticks(), lines, rotation=60, ha="right", rotation_mode="anchor")
    return long
