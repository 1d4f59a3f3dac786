"""The state of a sweep: its settings, its trials, the attempts at them, and which trial is next.

A setting is a value for every parameter; a trial is a setting with a seed, trained as one run; an
attempt is one worker's try at a trial. Everything here is a pure function of the storage's content.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Literal, NamedTuple

from mic.sweep.search_space import Point

Outcome = Literal["finished", "pruned", "failed", "refused", "preempted", "lost", "duplicate"]
State = Literal["waiting", "running", "finished", "pruned", "failed", "spared"]
LOST = 10  # workers that may die at a trial before it is taken for the cause
FINAL = ("finished", "pruned", "failed", "spared")


class Attempt(NamedTuple):
    """One worker's try at a trial; `outcome` is None while it lasts.

    `beat` counts the worker's heartbeats. `worker_process` is the worker's own process, `process`
    leads the trial's process group; both mean something only to processes of the same `place`.
    `began` is a time in seconds since 1970, `seconds` how long it took, `lines` the end of a failed
    trial's log.
    """

    number: int
    setting: int
    seed: int
    place: str
    worker: str
    worker_process: str
    beat: int
    process: str
    outcome: Outcome | None
    began: float
    seconds: float
    values: tuple[float, ...] = ()
    lines: tuple[str, ...] = ()


class QueuedSetting(NamedTuple):
    """A value for every parameter; `values` are the metrics' means over the seeds."""

    number: int
    point: Point
    planned: int | None  # its place among the planned settings; None where they are drawn
    ready: bool  # whether it has been stored whole
    state: Literal["open", "finished", "pruned", "failed"]
    values: tuple[float, ...] = ()

    @property
    def label(self) -> int:
        """Its number in names and tables; stored numbers have gaps where some were withdrawn."""
        return self.number if self.planned is None else self.planned

    @property
    def name(self) -> str:
        return f"t{self.label:03d}"


class QueuedTrial(NamedTuple):
    """A setting with a seed, and every attempt at it."""

    setting: QueuedSetting
    seed: int
    state: State
    attempts: tuple[Attempt, ...]

    @property
    def name(self) -> str:
        """The name of its run directory."""
        return f"{self.setting.name}-seed{self.seed}"

    @property
    def last_attempt(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def values(self) -> tuple[float, ...]:
        return next(
            (attempt.values for attempt in self.attempts if attempt.outcome == "finished"), ()
        )


class SweepState(NamedTuple):
    """All settings and trials, in the order in which they are begun."""

    settings: Sequence[QueuedSetting]
    trials: Sequence[QueuedTrial]
    planned: int | None = None  # how many settings there will be, where that is known

    def trials_of(self, setting: QueuedSetting) -> list[QueuedTrial]:
        return [trial for trial in self.trials if trial.setting.number == setting.number]

    def running_attempts(self) -> list[Attempt]:
        """Attempts of any worker that have not ended."""
        return [
            attempt
            for trial in self.trials
            for attempt in trial.attempts
            if attempt.outcome is None
        ]

    def next_trial(self, one_seed_first: bool) -> QueuedTrial | None:
        """The first trial that waits for a worker.

        With `one_seed_first` a setting's other seeds wait until its first seed has finished.
        """
        for trial in self.trials:
            if trial.setting.state != "open" or not trial.setting.ready or trial.state != "waiting":
                continue
            first = self.trials_of(trial.setting)[0]
            if not one_seed_first or trial.seed == first.seed or first.state == "finished":
                return trial
        return None

    def settled_settings(self) -> list[tuple[QueuedSetting, State, tuple[float, ...]]]:
        """Open settings whose trials have all ended: their end, and the means over the seeds.

        A setting is pruned or fails with its first seed, and the other seeds are then not run. It
        fails with any of them, as means over different numbers of seeds do not compare.
        """
        settled: list[tuple[QueuedSetting, State, tuple[float, ...]]] = []
        for setting in self.settings:
            trials = self.trials_of(setting)
            if setting.state != "open" or not setting.ready:
                continue
            if any(trial.state == "pruned" for trial in trials):
                settled.append((setting, "pruned", ()))
            elif all(trial.state == "finished" for trial in trials):
                values = zip(*(trial.values for trial in trials), strict=True)
                settled.append((setting, "finished", tuple(map(mean, values))))
            elif all(trial.state in FINAL for trial in trials) or trials[0].state == "failed":
                settled.append((setting, "failed", ()))
        return settled

    def count(self, *states: str) -> int:
        return sum(trial.state in states for trial in self.trials)


def sweep_state(
    settings: Sequence[QueuedSetting],
    attempts: Sequence[Attempt],
    seeds: Sequence[int],
    retries: int,
    planned: int | None = None,
) -> SweepState:
    """The state that follows from the stored settings and attempts.

    A failing trial is tried again `retries` times.
    """
    attempts_by_trial: dict[tuple[int, int], list[Attempt]] = {}
    for attempt in attempts:
        if attempt.outcome != "duplicate":
            attempts_by_trial.setdefault((attempt.setting, attempt.seed), []).append(attempt)
    trials = []
    for setting in settings:
        for seed in seeds:
            tries = tuple(attempts_by_trial.get((setting.number, seed), ()))
            state = trial_state(tries, retries)
            if state == "waiting" and setting.state in ("pruned", "failed"):
                state = "spared"
            trials.append(QueuedTrial(setting, seed, state, tries))
    return SweepState(settings, trials, planned)


def trial_state(attempts: Sequence[Attempt], retries: int) -> State:
    """The state of a trial after some attempts.

    >>> trial_state([], 2)
    'waiting'
    """
    outcomes = [attempt.outcome for attempt in attempts]
    if "finished" in outcomes:
        return "finished"
    if "pruned" in outcomes:
        return "pruned"
    if None in outcomes:
        return "running"
    too_often = outcomes.count("failed") > retries or outcomes.count("lost") > LOST
    return "failed" if "refused" in outcomes or too_often else "waiting"
