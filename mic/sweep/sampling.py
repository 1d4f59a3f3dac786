"""What a sweep will try: settings that are known beforehand, and the sampler of those that are not.

grid, random and qmc do not look at results: their settings are a list, the same in every process.
"""

import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from mic.sweep.search_space import Point, grid
from mic.sweep.sweep_file import Sweep

SEED = 0  # of the settings that are drawn beforehand
STARTUP = 4  # trials that run to their end before any is ended early


def planned(sweep: Sweep) -> list[Point] | None:
    """The settings of a method that needs no results, in their order; None for one that does.

    Raises InputError for a grid with a range in it.
    """
    match sweep.method:
        case "grid":
            points = grid(sweep.parameters, str(sweep.file))[: sweep.settings]
        case "random":
            points = drawn(sweep, RandomSampler(seed=SEED))
        case "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                sampler = QMCSampler(scramble=True, seed=SEED, warn_independent_sampling=False)
            points = drawn(sweep, sampler)
        case _:
            return None
    return points


def refuse_wrong(sweep: Sweep) -> None:
    """Raise an InputError for a planned setting that no run could use."""
    for point in planned(sweep) or ():
        sweep.config_of(point, sweep.seeds[0])


def drawn(sweep: Sweep, sampler: BaseSampler) -> list[Point]:
    """The first settings that a sampler draws; fewer ask for the beginning of the same list."""
    assert sweep.settings is not None
    study = quiet_study(sampler=sampler)
    distributions = {axis.key: axis.distribution for axis in sweep.parameters}
    points = []
    for _ in range(sweep.settings):
        trial = study.ask(distributions)
        points.append(meant(sweep, trial.params))
        study.tell(trial, 0.0)  # or a quasi-random sequence would not know its axes
    return points


def meant(sweep: Sweep, stored: dict[str, Any]) -> Point:
    """Values as the config takes them, in the file's order."""
    return {axis.key: axis.meant(stored[axis.key]) for axis in sweep.parameters}


def sampler_of(sweep: Sweep) -> BaseSampler:
    """Who draws the next setting from the results so far; other workers' trials count as poor."""
    if sweep.method == "custom":
        return NSGAIISampler(population_size=min(50, max(4, (sweep.settings or 0) // 4)))
    return TPESampler(constant_liar=True)


def pruner_of(sweep: Sweep) -> BasePruner:
    """Who ends a trial early. Steps are validations, the first after training began being 1."""
    if sweep.early is None:
        return NopPruner()
    least = sweep.early.least
    if sweep.early.kind == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=least - 1)
    trainer = sweep.base.trainer
    last = max(least + 1, trainer.max_steps // trainer.validate_every)
    return HyperbandPruner(least, last, sweep.early.eta)


def quiet_study(**options: Any) -> optuna.Study:
    """A study in memory; Optuna says nothing of its own accord."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(**options)
