"""What people read of a sweep: a setting, how a run ended, how far the whole is."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from mic.sweep.queue.state import Board, How
from mic.sweep.sweep_file import Sweep


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
