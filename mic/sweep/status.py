"""Describe the state of a sweep: a table of its trials, once or as it changes, and short texts."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable

from mic.console import notice
from mic.report.tables import Table, rich_table
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import FINAL, Outcome, QueuedTrial, SweepState
from mic.sweep.sweep_file import Sweep
from mic.tracking import run_directory

EVERY = 2.0  # seconds
FRAME = 8  # lines of the table that are no trials
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "pruned": "yellow"}


def show_status_table(queue: Queue) -> None:
    """Print the table; on a terminal keep it up to date until the sweep ends or Ctrl-C."""
    console = Console()
    state = queue.state()
    if not sys.stdout.isatty():
        console = Console(width=max(100, 24 * (5 + len(queue.sweep.parameters))))
        console.print(status_table(queue.sweep, state))
        return
    with Live(
        status_table(queue.sweep, state, console.height), console=console, auto_refresh=False
    ) as live:
        try:
            while state.count(*FINAL) < total_trials(queue.sweep, state) + state.count("spared"):
                time.sleep(EVERY)
                state = queue.state()
                live.update(status_table(queue.sweep, state, console.height), refresh=True)
        except KeyboardInterrupt:
            notice("the sweep continues without this table")


def status_table(sweep: Sweep, state: SweepState, height: int = 0) -> RichTable:
    """A row a trial: its setting, its state, its values, its worker.

    When they need more than a terminal's `height`, those that ended first are left out.
    """
    trials = visible_trials(state.trials, height - FRAME) if height else list(state.trials)
    hidden = len(state.trials) - len(trials)
    names = [metric.name.removeprefix("val/") for metric in sweep.metrics]
    head = ["run", *(short_key(axis.key) for axis in sweep.parameters), "state", "step", *names]
    return rich_table(
        Table(
            f"{sweep.name}: {describe_progress(sweep, state)}",
            [*head, "time", "attempts", "worker"],
            [status_cells(sweep, trial) for trial in trials],
        ),
        left=("state", "worker"),
        no_wrap=("run", "state", "step", "time", "worker"),
        caption=f"and {hidden} that have ended" if hidden else None,
    )


def status_cells(sweep: Sweep, trial: QueuedTrial) -> list[str]:
    values = trial.values or [None] * len(sweep.metrics)
    seconds = sum(attempt_seconds(trial))
    return [
        trial.name,
        *(short_value(trial.setting.point.get(axis.key, "-")) for axis in sweep.parameters),
        f"[{COLOURS.get(trial.state, 'default')}]{trial.state}[/]",
        current_step(sweep, trial),
        *("-" if value is None else f"{value:.4g}" for value in values),
        format_duration(seconds) if seconds else "-",
        str(len(trial.attempts) or "-"),
        trial.last_attempt.worker if trial.last_attempt else "-",
    ]


def visible_trials(trials: Sequence[QueuedTrial], room: int) -> list[QueuedTrial]:
    """The trials that there is room for: the first of those that have ended are left out."""
    ended = [trial for trial in trials if trial.state in FINAL]
    left_out = {trial.name for trial in ended[: max(0, len(trials) - room)]}
    return [trial for trial in trials if trial.name not in left_out]


def attempt_seconds(trial: QueuedTrial) -> list[float]:
    """The seconds that each attempt took, or has taken so far."""
    now = time.time()
    return [attempt.seconds or max(0.0, now - attempt.began) for attempt in trial.attempts]


def current_step(sweep: Sweep, trial: QueuedTrial) -> str:
    """The last logged step of a trial that is running."""
    if trial.state != "running":
        return "-"
    line = last_line(sweep.folder / trial.name / run_directory.METRICS)
    try:
        return f"{json.loads(line)['step']:,}"
    except (ValueError, KeyError, TypeError):
        return "-"


def last_line(file: Path) -> str:
    """A file's last whole line."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 65536))
            lines = stream.read().decode(errors="replace").rpartition("\n")[0].splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def describe_setting(point: Mapping[str, Any]) -> str:
    """A setting in one line, its keys shortened.

    >>> describe_setting({"objective.gamma": 0.123456, "objective.align_layers": [2, 3]})
    'gamma=0.1235 align_layers=[2, 3]'
    """
    return " ".join(f"{short_key(key)}={short_value(value)}" for key, value in point.items())


def short_key(key: str) -> str:
    """A dotted key without its section, where that is the objective or the trainer.

    >>> short_key("objective.correlation.weight"), short_key("objective.gamma")
    ('correlation.weight', 'gamma')
    """
    return key.removeprefix("objective.").removeprefix("trainer.")


def short_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe_outcome(sweep: Sweep, outcome: Outcome, values: tuple[float, ...]) -> str:
    """How an attempt ended."""
    if outcome != "finished":
        texts = {"preempted": "stopped, back in the queue", "refused": "failed: bad input"}
        return texts.get(outcome, outcome)
    pairs = zip(sweep.metrics, values, strict=True)
    return "finished, " + ", ".join(f"{metric.name} {value:.4g}" for metric, value in pairs)


def describe_progress(sweep: Sweep, state: SweepState) -> str:
    """How many trials have ended, and about how long the rest takes."""
    total = total_trials(sweep, state)
    text = f"{state.count('finished')} of {total} finished"
    for end in ("pruned", "failed"):
        if count := state.count(end):
            text += f", {count} {end}"
    left = seconds_left(sweep, state)
    return text if left is None else f"{text}, about {format_duration(left)} left"


def total_trials(sweep: Sweep, state: SweepState) -> int:
    """The number of trials of the sweep, including those not yet drawn."""
    planned = state.planned if state.planned is not None else sweep.max_settings or 0
    return max(len(state.settings), planned) * len(sweep.seeds) - state.count("spared")


def seconds_left(sweep: Sweep, state: SweepState) -> float | None:
    """The time left at the pace of the finished trials; None before one has finished."""
    durations = [
        sum(attempt.seconds for attempt in trial.attempts)
        for trial in state.trials
        if trial.state == "finished"
    ]
    running = len(state.running_attempts())
    trials_left = total_trials(sweep, state) - state.count("finished", "pruned", "failed")
    if not durations or not trials_left:
        return None
    return mean(durations) * trials_left / max(running, 1)


def format_duration(seconds: float) -> str:
    """A duration in the unit that fits.

    >>> format_duration(42.4), format_duration(600), format_duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
