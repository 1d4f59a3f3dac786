"""How far a sweep is, what its reader should know, and the trials one by one."""

from collections import Counter
from collections.abc import Sequence
from math import prod

from scipy.stats import f_oneway

from mic.report.sweep.read import Setting, Trial
from mic.report.sweep.view import SweepView
from mic.report.view import Panel, Table
from mic.sweep.file import Sweep

CHANCE = 0.05


def warnings(view: SweepView) -> list[str]:
    """What a reader should know before they believe a sweep's winner."""
    return [line for one in WARNINGS for line in one(view)]


def progress(view: SweepView) -> list[str]:
    trials = [trial for setting in view.settings for trial in setting.trials]
    states = Counter(trial.state for trial in trials)
    several = planned(view.sweep)
    if states["finished"] == len(trials) and len(view.complete) == several:
        return []
    counted = ", ".join(f"{count} {state}" for state, count in states.most_common())
    of = f" of {several}" if several else ""
    return [
        f"{len(view.complete)}{of} settings are finished with all seeds. Runs: {counted or 'none'}."
    ]


def planned(sweep: Sweep) -> int | None:
    """How many settings the sweep is to have; None where no one knows."""
    if sweep.method != "grid":
        return sweep.settings
    whole = prod(len(axis.values or ()) for axis in sweep.parameters)
    return whole if sweep.settings is None else min(whole, sweep.settings)


def failures(view: SweepView) -> list[str]:
    found = [trial.name for trial in trials(view) if trial.state == "failed"]
    few = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
    return [f"{counted(len(found), 'run')} failed: {few}; their last lines are below."] * bool(
        found
    )


def ended_early(view: SweepView) -> list[str]:
    found = [one for one in view.settings if one.state == "pruned"]
    many = counted(len(found), "setting")
    return [f"{many} ended early for poor values; only the curves show them."] * bool(found)


def unequal(view: SweepView) -> list[str]:
    """Settings of which some seeds are missing."""
    short = [one for one in view.settings if one.finished and not one.complete]
    if not short:
        return []
    return [
        f"n differs: {counted(len(short), 'setting')} ({listed(short)}) without all of the "
        f"{len(view.sweep.seeds)} seeds; these are in the table, and compared with nothing."
    ]


def repeated(view: SweepView) -> list[str]:
    found = [
        one
        for one in view.settings
        if len({run.config.seed for run in one.finished}) < len(one.finished)
    ]
    return [f"{listed(found)}: a seed is there twice, so that the interval is too narrow."] * bool(
        found
    )


def one_seed(view: SweepView) -> list[str]:
    if len(view.sweep.seeds) > 1:
        return []
    return ["One seed a setting: there are no intervals, and seeds may make all the differences."]


def chance(view: SweepView) -> list[str]:
    """Whether settings differ by more than their seeds do."""
    name = view.metric.name
    found = [[one.metrics[name] for one in each.setting.finished] for each in view.values(name)]
    groups = [[run[max(run)] for run in runs] for runs in found]
    if (
        len(groups) < 2
        or min(map(len, groups)) < 2
        or len({one for of in groups for one in of}) < 2
    ):
        return []
    p = float(f_oneway(*groups).pvalue)
    if not p > CHANCE:
        return []
    return [
        f"The {len(groups)} settings differ in {name} by no more than their seeds do (one-way "
        f"analysis of variance, p = {p:.2f}): the best may be the best by chance."
    ]


def optimism(view: SweepView) -> list[str]:
    if view.best is None or len(view.complete) < 2:
        return []
    return [
        f"The best was chosen among {len(view.complete)} settings by the value that is shown, "
        "which is therefore too good; other seeds and test tasks tell what it is worth."
    ]


WARNINGS = (progress, failures, ended_early, unequal, repeated, one_seed, chance, optimism)


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def listed(settings: Sequence[Setting]) -> str:
    few = ", ".join(one.label for one in settings[:6])
    return few + (", ..." if len(settings) > 6 else "")


def trials(view: SweepView) -> list[Trial]:
    return [trial for setting in view.settings for trial in setting.trials]


def runs(view: SweepView) -> Panel:
    """Every trial, folded, and how the failed ones ended."""
    rows = [
        [
            trial.name,
            setting.label,
            str(trial.seed),
            trial.state,
            str(trial.run.step if trial.run else 0),
            str(trial.about.get("attempts", "-")),
            "-" if trial.seconds is None else f"{trial.seconds / 60:,.1f}",
            str(trial.about.get("worker", "-")),
        ]
        for setting in view.settings
        for trial in setting.trials
    ]
    head = ["run", "setting", "seed", "state", "step", "attempts", "minutes", "worker"]
    failed = [trial for trial in trials(view) if trial.state == "failed"]
    return Panel(
        "Runs",
        folded={f"All {len(rows)} runs": [Table("Runs", head, rows)]},
        missing="" if failed else "No run failed.",
        texts={
            f"{trial.name} failed: its last lines": "\n".join(trial.lines) or "It left none."
            for trial in failed
        },
    )
