"""Panel: how much of the settings' differences each parameter accounts for."""

import warnings
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from mic.report.figures import COLOURS, panels
from mic.report.panel import Panel
from mic.report.tables import Table
from mic.sweep.report.view import SweepView, Value, short
from mic.sweep.sampling import create_study
from mic.sweep.search_space import Parameter
from mic.sweep.sweep_file import Metric

FEWEST = 4  # settings that a forest of trees can learn anything from
SEED = 0

Importances = dict[str, float]  # key of a parameter -> its share


def importance(view: SweepView) -> Panel:
    """fANOVA's importance of every parameter, for each of the sweep's metrics."""
    title = "Parameter importance"
    found: dict[str, Importances] = {}
    reasons = []
    for metric in view.sweep.metrics:
        shares = importances(view, metric)
        if isinstance(shares, str):
            reasons.append(f"{metric.name}: {shares}.")
        else:
            found[metric.name] = shares
    if not found:
        return Panel(title, missing=" ".join(reasons))
    what = (
        "Share of the variance between the settings' means that a forest of regression trees "
        f"(fANOVA, seed {SEED}) ascribes to each parameter alone; the shares add up to 1, also "
        "where the settings hardly differ, and of few settings they are rough. "
    )
    names = short(view.sweep.parameters)
    rows = [
        [names[key], *(f"{shares.get(key, 0.0):.2f}" for shares in found.values())]
        for key in next(iter(found.values()))
    ]
    return Panel(
        title,
        {"importance": picture(found, names)},
        view.caption(" ".join([what.strip(), *reasons]), view.complete),
        [Table("Importance", ["parameter", *found], rows)],
    )


def importances(view: SweepView, metric: Metric) -> Importances | str:
    """The shares of the parameters, the largest first, or why there are none."""
    axes = [axis for axis in view.sweep.parameters if not axis.distribution.single()]
    if len(axes) < 2:
        return f"{len(axes)} parameters with several values, so that there is nothing to share out"
    values = view.values(metric.name)
    trials = [one for one in (trial_of(value, axes) for value in values) if one]
    if len(trials) < FEWEST:
        return f"{len(trials)} finished settings, and {FEWEST} are needed"
    if np.ptp([trial.value for trial in trials]) == 0:
        return "all settings have the same value"
    study = create_study(direction=metric.goal)
    study.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = FanovaImportanceEvaluator(seed=SEED)
        keys = [axis.key for axis in axes]
        found = get_param_importances(study, evaluator=evaluator, params=keys)
    return {key: float(share) for key, share in found.items()}


def trial_of(one: Value, axes: list[Parameter]) -> FrozenTrial | None:
    """A setting as a trial of Optuna's; None for one outside of the sweep's ranges."""
    try:
        return create_trial(
            params={axis.key: axis.stored(one.setting.point[axis.key]) for axis in axes},
            distributions={axis.key: axis.distribution for axis in axes},
            value=one.value.mean,
        )
    except (ValueError, TypeError):
        return None


def picture(found: Mapping[str, Importances], names: Mapping[str, str]) -> Figure:
    """A bar a parameter, a diagram a metric, in the first metric's order."""
    order = list(next(iter(found.values())))
    figure, axes = panels(len(found), 0.9 + 0.3 * len(order))
    for axis, (metric, shares) in zip(axes, found.items(), strict=True):
        heights = [shares.get(key, 0.0) for key in order]
        axis.barh([names[key] for key in order], heights, 0.65, color=COLOURS[0])
        for at, share in enumerate(heights):
            axis.text(share + 0.01, at, f"{share:.2f}", va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set(xlabel="importance", xlim=(0, 1.25 * max(heights)))
        axis.set_title(metric, fontsize=10)
        axis.grid(visible=False, axis="y")
    return figure
