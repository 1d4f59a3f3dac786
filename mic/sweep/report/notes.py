"""Write notes on a sweep: its progress, warnings about its best setting, and every trial."""

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
    """The notes above the page: progress, failures, and how far the best setting can be trusted."""
    return [line for note in WARNINGS for line in note(view)]


def progress_note(view: SweepView) -> list[str]:
    trials = [trial for setting in view.settings for trial in setting.trials]
    states = Counter(trial.state for trial in trials)
    several = count_planned(view.sweep)
    if states["finished"] == len(trials) and len(view.complete) == several:
        return []
    counted = ", ".join(f"{count} {state}" for state, count in states.most_common())
    of = f" of {several}" if several else ""
    return [
        f"{len(view.complete)}{of} settings are finished with all seeds. Runs: {counted or 'none'}."
    ]


def count_planned(sweep: Sweep) -> int | None:
    """How many settings the sweep is to have; None where that is not known."""
    if sweep.method != "grid":
        return sweep.max_settings
    whole = prod(len(axis.values or ()) for axis in sweep.parameters)
    return whole if sweep.max_settings is None else min(whole, sweep.max_settings)


def failure_note(view: SweepView) -> list[str]:
    failed = [trial.name for trial in all_trials(view) if trial.state == "failed"]
    if not failed:
        return []
    many = format_count(len(failed), "run")
    return [f"{many} failed: {format_names(failed)}; how they ended is at the end of the page."]


def pruned_note(view: SweepView) -> list[str]:
    pruned = [setting for setting in view.settings if setting.state == "pruned"]
    if not pruned:
        return []
    many = format_count(len(pruned), "setting")
    return [f"{many} ended early for poor values; only the curves over training show them."]


def missing_seeds_note(view: SweepView) -> list[str]:
    """Settings of which some seeds are missing."""
    labels = [
        setting.label for setting in view.settings if setting.finished and not setting.complete
    ]
    if not labels:
        return []
    return [
        f"n differs: {format_count(len(labels), 'setting')} ({format_names(labels)}) without all "
        f"of the {len(view.sweep.seeds)} seeds; these are in the table, and compared with nothing."
    ]


def repeated_seeds_note(view: SweepView) -> list[str]:
    """Settings whose interval counts a seed twice."""
    seeds = {
        setting.label: [run.config.seed for run in setting.finished] for setting in view.settings
    }
    labels = [label for label, of in seeds.items() if len(set(of)) < len(of)]
    if not labels:
        return []
    return [f"{format_names(labels)}: a seed is there twice, so that the interval is too narrow."]


def few_seeds_note(view: SweepView) -> list[str]:
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


def chance_note(view: SweepView) -> list[str]:
    """Whether settings differ by more than their seeds do."""
    name = view.metric.name
    groups = [last_values(value.setting, name) for value in view.values(name)]
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


def optimism_note(view: SweepView) -> list[str]:
    if view.best is None or len(view.complete) < 2:
        return []
    return [
        f"The best was chosen among {len(view.complete)} settings by the value that is shown, "
        "which is therefore too good; other seeds and test tasks tell what it is worth."
    ]


WARNINGS = (
    progress_note,
    failure_note,
    pruned_note,
    missing_seeds_note,
    repeated_seeds_note,
    few_seeds_note,
    chance_note,
    optimism_note,
)


def format_count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def format_names(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")


def all_trials(view: SweepView) -> list[Trial]:
    return [trial for setting in view.settings for trial in setting.trials]


def runs_panel(view: SweepView) -> Panel:
    """Every setting and every trial, folded, and how the failed ones ended."""
    rows = [
        [
            trial.name,
            setting.label,
            str(trial.seed),
            trial.state,
            str(trial.run.step if trial.run else 0),
            str(trial.record.get("attempts", "-")),
            "-" if trial.seconds is None else f"{trial.seconds / 60:,.1f}",
            str(trial.record.get("worker", "-")),
        ]
        for setting in view.settings
        for trial in setting.trials
    ]
    head = ["run", "setting", "seed", "state", "step", "attempts", "minutes", "worker"]
    failed = [trial for trial in all_trials(view) if trial.state == "failed"]
    return Panel(
        "Settings and runs",
        folded={
            f"All {format_count(len(view.settings), 'setting')}": [settings_table(view)],
            f"All {format_count(len(rows), 'run')}": [Table("Runs", head, rows)],
        },
        missing="" if failed else "No run failed.",
        texts={
            f"{trial.name} failed: its last lines": "\n".join(trial.lines) or "It left none."
            for trial in failed
        },
    )
