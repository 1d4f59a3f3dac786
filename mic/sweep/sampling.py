"""Plan the settings of a sweep, or make the sampler and the pruner that choose by results.

grid, random and qmc do not look at results: their settings are a list, the same in every process.
"""

import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from mic.sweep.search_space import Point, grid_points
from mic.sweep.sweep_file import Sweep

SEED = 0  # of the planned settings
STARTUP = 4  # trials that run to their end before any is ended early


def planned_points(sweep: Sweep) -> list[Point] | None:
    """The settings of a method that needs no results, in their order; None for one that does.

    Raises InputError for a grid with a range in it.
    """
    match sweep.method:
        case "grid":
            points = grid_points(sweep.parameters, str(sweep.file))[: sweep.max_settings]
        case "random":
            points = draw_points(sweep, RandomSampler(seed=SEED))
        case "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                sampler = QMCSampler(scramble=True, seed=SEED, warn_independent_sampling=False)
            points = draw_points(sweep, sampler)
        case _:
            return None
    return points


def check_planned_points(sweep: Sweep) -> None:
    """Raise an InputError for a planned setting whose config is refused."""
    for point in planned_points(sweep) or ():
        sweep.config_of(point, sweep.seeds[0])


def draw_points(sweep: Sweep, sampler: BaseSampler) -> list[Point]:
    """The first `max_settings` settings that a sampler draws; fewer are the beginning of more."""
    assert sweep.max_settings is not None
    study = create_study(sampler=sampler)
    distributions = {axis.key: axis.distribution for axis in sweep.parameters}
    points = []
    for _ in range(sweep.max_settings):
        trial = study.ask(distributions)
        points.append(restore_values(sweep, trial.params))
        study.tell(trial, 0.0)  # without it a quasi-random sequence does not learn its axes
    return points


def restore_values(sweep: Sweep, stored: dict[str, Any]) -> Point:
    """Optuna's stored values as the config takes them, in the order of the sweep file."""
    return {axis.key: axis.original_value(stored[axis.key]) for axis in sweep.parameters}


def make_sampler(sweep: Sweep) -> BaseSampler:
    """The sampler of the next setting, by the results so far; running trials count as poor."""
    if sweep.method == "custom":
        return NSGAIISampler(population_size=min(50, max(4, (sweep.max_settings or 0) // 4)))
    return TPESampler(constant_liar=True)


def make_pruner(sweep: Sweep) -> BasePruner:
    """The pruner of trials. Its steps are validations; the first during training is 1."""
    if sweep.early_termination is None:
        return NopPruner()
    first = sweep.early_termination.min_validations
    if sweep.early_termination.kind == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=first - 1)
    trainer = sweep.base.trainer
    last = max(first + 1, trainer.max_steps // trainer.validate_every)
    return HyperbandPruner(first, last, sweep.early_termination.eta)


def create_study(**options: Any) -> optuna.Study:
    """An Optuna study, in memory unless `storage` is given, without Optuna's own messages."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(**options)
