"""The table of a sweep's runs, once or as it changes."""

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
from mic.sweep.queue.state import FINAL, Board, How, Run
from mic.sweep.sweep_file import Sweep
from mic.tracking import run_directory

EVERY = 2.0  # seconds
FRAME = 8  # lines of the table that are no runs
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "pruned": "yellow"}


def show(queue: Queue) -> None:
    """Print the table; on a terminal keep it up to date until the sweep ends or Ctrl-C."""
    console = Console()
    now = queue.board()
    if not sys.stdout.isatty():
        console = Console(width=max(100, 24 * (5 + len(queue.sweep.parameters))))
        console.print(table(queue.sweep, now))
        return
    with Live(table(queue.sweep, now, console.height), console=console, auto_refresh=False) as live:
        try:
            while now.count(*FINAL) < total_runs(queue.sweep, now) + now.count("spared"):
                time.sleep(EVERY)
                now = queue.board()
                live.update(table(queue.sweep, now, console.height), refresh=True)
        except KeyboardInterrupt:
            notice("the sweep goes on without being watched")


def table(sweep: Sweep, now: Board, height: int = 0) -> RichTable:
    """A row a run: its setting, how far it is, its values, who is at it.

    Where they are higher than a terminal's `height`, those that ended first are left out.
    """
    runs = shown(now.runs, height - FRAME) if height else list(now.runs)
    hidden = len(now.runs) - len(runs)
    metrics = [metric.name.removeprefix("val/") for metric in sweep.metrics]
    head = ["run", *(short(axis.key) for axis in sweep.parameters), "state", "step", *metrics]
    head += ["time", "attempts", "worker"]
    rows = []
    for run in runs:
        values = run.values or [None] * len(sweep.metrics)
        last = run.last
        took = sum(seconds(run))
        rows.append(
            [
                run.name,
                *(value_of(run.setting.point.get(axis.key, "-")) for axis in sweep.parameters),
                f"[{COLOURS.get(run.state, 'default')}]{run.state}[/]",
                step(sweep, run),
                *("-" if value is None else f"{value:.4g}" for value in values),
                duration(took) if took else "-",
                str(len(run.attempts) or "-"),
                last.worker if last else "-",
            ]
        )
    return rich_table(
        Table(f"{sweep.name}: {progress(sweep, now)}", head, rows),
        left=("state", "worker"),
        no_wrap=("run", "state", "step", "time", "worker"),
        caption=f"and {hidden} that have ended" if hidden else None,
    )


def shown(runs: Sequence[Run], room: int) -> list[Run]:
    """The runs that there is room for: of those that have ended the earliest are left out."""
    ended = [run for run in runs if run.state in FINAL]
    left_out = {run.name for run in ended[: max(0, len(runs) - room)]}
    return [run for run in runs if run.name not in left_out]


def seconds(run: Run) -> list[float]:
    """How long each attempt took, or has taken so far."""
    return [one.seconds or max(0.0, time.time() - one.began) for one in run.attempts]


def step(sweep: Sweep, run: Run) -> str:
    """The last logged step of a run that is under way."""
    if run.state != "running":
        return "-"
    line = last_line(sweep.folder / run.name / run_directory.METRICS)
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


def setting(point: Mapping[str, Any]) -> str:
    """A setting in short.

    >>> setting({"objective.gamma": 0.123456, "objective.align_layers": [2, 3]})
    'gamma=0.1235 align_layers=[2, 3]'
    """
    return " ".join(f"{short(key)}={value_of(value)}" for key, value in point.items())


def short(key: str) -> str:
    """
    >>> short("objective.correlation.weight"), short("objective.gamma")
    ('correlation.weight', 'gamma')
    """
    return key.removeprefix("objective.").removeprefix("trainer.")


def value_of(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def outcome(sweep: Sweep, how: How, values: tuple[float, ...]) -> str:
    """How a run ended."""
    if how != "finished":
        told = {"preempted": "stopped, back in the queue", "refused": "failed: bad input"}
        return told.get(how, how)
    pairs = zip(sweep.metrics, values, strict=True)
    return "finished, " + ", ".join(f"{metric.name} {value:.4g}" for metric, value in pairs)


def progress(sweep: Sweep, now: Board) -> str:
    """How many runs have ended, and about how long the rest takes."""
    total = total_runs(sweep, now)
    text = f"{now.count('finished')} of {total} finished"
    for state in ("pruned", "failed"):
        if count := now.count(state):
            text += f", {count} {state}"
    left = seconds_left(sweep, now)
    return text if left is None else f"{text}, about {duration(left)} left"


def total_runs(sweep: Sweep, now: Board) -> int:
    """All runs of the sweep, those not yet drawn included."""
    planned = now.planned if now.planned is not None else sweep.settings or 0
    return max(len(now.settings), planned) * len(sweep.seeds) - now.count("spared")


def seconds_left(sweep: Sweep, now: Board) -> float | None:
    """What is left at the pace of the runs that have finished; None before one has."""
    took = [sum(one.seconds for one in run.attempts) for run in now.runs if run.state == "finished"]
    at_work = len(now.running())
    ahead = total_runs(sweep, now) - now.count("finished", "pruned", "failed")
    if not took or not ahead:
        return None
    return mean(took) * ahead / max(at_work, 1)


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
