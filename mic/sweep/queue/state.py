"""What is known of a sweep at a moment: its settings, the attempts at their runs, what is next.

A setting is a value for every parameter; a run is a setting with a seed; an attempt is one worker's
try at a run. Everything here is a pure function of what the storage holds.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Literal, NamedTuple

from mic.sweep.search_space import Point

How = Literal["finished", "pruned", "failed", "refused", "preempted", "lost", "duplicate"]
State = Literal["waiting", "running", "finished", "pruned", "failed", "spared"]
LOST = 10  # workers that may die at a run before it is taken for the cause
FINAL = ("finished", "pruned", "failed", "spared")


class Attempt(NamedTuple):
    """One worker's try at a run; `how` it ended, None while it lasts.

    `beat` counts the worker's signs of life. `worker_process` is the worker's own, `process` leads
    the trial's group; both mean something to processes of the same `place` alone.
    """

    number: int
    setting: int
    seed: int
    place: str
    worker: str
    worker_process: str
    beat: int
    process: str
    how: How | None
    began: float
    seconds: float
    values: tuple[float, ...] = ()
    lines: tuple[str, ...] = ()


class Setting(NamedTuple):
    number: int
    point: Point
    planned: int | None  # its place in the list, where there is one
    ready: bool
    state: Literal["open", "finished", "pruned", "failed"]
    values: tuple[float, ...] = ()

    @property
    def label(self) -> int:
        """Its number among the settings that people see: numbers that were withdrawn leave gaps."""
        return self.number if self.planned is None else self.planned

    @property
    def name(self) -> str:
        return f"t{self.label:03d}"


class Run(NamedTuple):
    """A setting with a seed, and every attempt at it."""

    setting: Setting
    seed: int
    state: State
    attempts: tuple[Attempt, ...]

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{self.setting.name}-seed{self.seed}"

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def values(self) -> tuple[float, ...]:
        return next((one.values for one in self.attempts if one.how == "finished"), ())


class Board(NamedTuple):
    """All runs of all settings, in the order in which they are begun."""

    settings: Sequence[Setting]
    runs: Sequence[Run]
    planned: int | None = None  # how many settings there will be, where that is known

    def of(self, setting: Setting) -> list[Run]:
        return [run for run in self.runs if run.setting.number == setting.number]

    def running(self) -> list[Attempt]:
        """Attempts that have not ended, of whatever worker."""
        return [one for run in self.runs for one in run.attempts if one.how is None]

    def next(self, one_seed_first: bool) -> Run | None:
        """The first run that nobody is at; the other seeds may have to wait for the first one's."""
        for run in self.runs:
            if run.setting.state != "open" or not run.setting.ready or run.state != "waiting":
                continue
            first = self.of(run.setting)[0]
            if not one_seed_first or run.seed == first.seed or first.state == "finished":
                return run
        return None

    def settled(self) -> list[tuple[Setting, State, tuple[float, ...]]]:
        """Open settings whose runs have all ended: as what, and the means over the seeds.

        A setting is pruned or fails with its first seed, which spares the others; it fails with any
        of them, for a mean over fewer seeds is no match for one over all.
        """
        found: list[tuple[Setting, State, tuple[float, ...]]] = []
        for setting in self.settings:
            runs = self.of(setting)
            if setting.state != "open" or not setting.ready:
                continue
            if any(run.state == "pruned" for run in runs):
                found.append((setting, "pruned", ()))
            elif all(run.state == "finished" for run in runs):
                values = zip(*(run.values for run in runs), strict=True)
                found.append((setting, "finished", tuple(map(mean, values))))
            elif all(run.state in FINAL for run in runs) or runs[0].state == "failed":
                found.append((setting, "failed", ()))
        return found

    def count(self, *states: str) -> int:
        return sum(run.state in states for run in self.runs)


def board(
    settings: Sequence[Setting],
    attempts: Sequence[Attempt],
    seeds: Sequence[int],
    retries: int,
    planned: int | None = None,
) -> Board:
    """The board of what the storage holds; a failing run is tried `retries` times more."""
    by_run: dict[tuple[int, int], list[Attempt]] = {}
    for attempt in attempts:
        if attempt.how != "duplicate":
            by_run.setdefault((attempt.setting, attempt.seed), []).append(attempt)
    runs = []
    for setting in settings:
        for seed in seeds:
            tries = tuple(by_run.get((setting.number, seed), ()))
            state = state_of(tries, retries)
            if state == "waiting" and setting.state in ("pruned", "failed"):
                state = "spared"
            runs.append(Run(setting, seed, state, tries))
    return Board(settings, runs, planned)


def state_of(attempts: Sequence[Attempt], retries: int) -> State:
    """
    >>> state_of([], 2)
    'waiting'
    """
    ends = [one.how for one in attempts]
    if "finished" in ends:
        return "finished"
    if "pruned" in ends:
        return "pruned"
    if None in ends:
        return "running"
    failed = "refused" in ends or ends.count("failed") > retries or ends.count("lost") > LOST
    return "failed" if failed else "waiting"
