"""How far a sweep is, what its reader should know, and the trials one by one."""

from collections import Counter
from collections.abc import Sequence
from math import prod

from scipy.stats import f_oneway

from mic.report.panel import Panel
from mic.report.tables import Table
from mic.sweep.report.read import Trial
from mic.sweep.report.table import settings_table
from mic.sweep.report.view import SweepView, last_values
from mic.sweep.sweep_file import Sweep

CHANCE = 0.05
FEW = 6  # names that a sentence has room for


def sweep_warnings(view: SweepView) -> list[str]:
    """What a reader should know before they believe a sweep's winner."""
    return [line for warning in WARNINGS for line in warning(view)]


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
        return sweep.max_settings
    whole = prod(len(axis.values or ()) for axis in sweep.parameters)
    return whole if sweep.max_settings is None else min(whole, sweep.max_settings)


def failures(view: SweepView) -> list[str]:
    names = [trial.name for trial in trials(view) if trial.state == "failed"]
    if not names:
        return []
    many = counted(len(names), "run")
    return [f"{many} failed: {listed(names)}; how they ended is at the end of the page."]


def ended_early(view: SweepView) -> list[str]:
    settings = [setting for setting in view.settings if setting.state == "pruned"]
    if not settings:
        return []
    many = counted(len(settings), "setting")
    return [f"{many} ended early for poor values; only the curves over training show them."]


def unequal(view: SweepView) -> list[str]:
    """Settings of which some seeds are missing."""
    labels = [
        setting.label for setting in view.settings if setting.finished and not setting.complete
    ]
    if not labels:
        return []
    return [
        f"n differs: {counted(len(labels), 'setting')} ({listed(labels)}) without all of the "
        f"{len(view.sweep.seeds)} seeds; these are in the table, and compared with nothing."
    ]


def repeated(view: SweepView) -> list[str]:
    """Settings whose interval takes one seed for two."""
    seeds = {
        setting.label: [run.config.seed for run in setting.finished] for setting in view.settings
    }
    labels = [label for label, of in seeds.items() if len(set(of)) < len(of)]
    if not labels:
        return []
    return [f"{listed(labels)}: a seed is there twice, so that the interval is too narrow."]


def few_seeds(view: SweepView) -> list[str]:
    match len(view.sweep.seeds):
        case 1:
            return [
                "One seed a setting: there is no interval, and seeds may make every difference."
            ]
        case 2:
            return [
                "Two seeds a setting: a 95 % interval is 12.7 standard errors to either side; of "
                "three seeds it would be 4.3."
            ]
    return []


def chance(view: SweepView) -> list[str]:
    """Whether settings differ by more than their seeds do."""
    name = view.metric.name
    groups = [last_values(choice.setting, name) for choice in view.values(name)]
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2 or all(len(set(group)) == 1 for group in groups):
        return []
    p = float(f_oneway(*groups).pvalue)
    if p <= CHANCE:
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


WARNINGS = (progress, failures, ended_early, unequal, repeated, few_seeds, chance, optimism)


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")


def trials(view: SweepView) -> list[Trial]:
    return [trial for setting in view.settings for trial in setting.trials]


def trials_panel(view: SweepView) -> Panel:
    """Every setting and every trial, folded, and how the failed ones ended."""
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
        "Settings and runs",
        folded={
            f"All {counted(len(view.settings), 'setting')}": [settings_table(view)],
            f"All {counted(len(rows), 'run')}": [Table("Runs", head, rows)],
        },
        missing="" if failed else "No run failed.",
        texts={
            f"{trial.name} failed: its last lines": "\n".join(trial.lines) or "It left none."
            for trial in failed
        },
    )
