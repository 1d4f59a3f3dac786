"""Share a sweep's trials among workers, which may die at any moment, through Optuna's storage.

A setting is a value for every parameter, a trial is a setting with a seed, an attempt is one
worker's try at a trial (see state.py). The storage has two studies: NAME has an Optuna trial for
each setting, whose values are the means over its seeds; NAME/attempts has one for each attempt.

Three operations are atomic in every storage, and everything else is built of them: an Optuna trial
is created whole; Optuna trials are numbered in the order of their creation; each ends once. So of
two attempts at one trial, or two Optuna trials of one setting, the lower number is valid and the
other is withdrawn.
"""

import time
import uuid
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mic.errors import InputError
from mic.sweep.queue.heartbeat import WorkerId
from mic.sweep.queue.state import (
    Attempt,
    Outcome,
    QueuedSetting,
    QueuedTrial,
    SweepState,
    sweep_state,
)
from mic.sweep.queue.storage import (
    OPTUNA_STATES,
    SETTING_STATES,
    frozen_trials,
    read_attempt,
    retry_while_away,
)
from mic.sweep.sampling import (
    create_study,
    make_pruner,
    make_sampler,
    planned_points,
    restore_values,
)
from mic.sweep.search_space import Point
from mic.sweep.sweep_file import Sweep, identifying_lines

RETRIES = 2  # times that a failing trial is tried again


class Queue:
    """A sweep's queue; `retries` is stored for the workers that join later.

    Raises InputError when another sweep of that name is in the storage.
    """

    def __init__(self, sweep: Sweep, storage: BaseStorage, retries: int | None = None) -> None:
        self.sweep, self.storage = sweep, storage
        self.planned = planned_points(sweep)
        directions = [f"{metric.goal}" for metric in sweep.metrics]
        self.settings_study = self.open_study(
            sweep.name, directions, sampler=make_sampler(sweep), pruner=make_pruner(sweep)
        )
        self.attempts_study = self.open_study(f"{sweep.name}/attempts", ["maximize"])
        self.retries = RETRIES
        self.retried: set[int] = set()
        stored = retry_while_away(lambda: self.settings_study.user_attrs).get("says")
        lines = list(identifying_lines(sweep))
        if stored is None:
            retry_while_away(lambda: self.settings_study.set_user_attr("says", lines))
        elif stored != lines:
            removed = [f"was: {line}" for line in stored if line not in lines]
            added = [f"is: {line}" for line in lines if line not in stored]
            changes = "; ".join(removed + added)
            raise InputError(
                f"{sweep.file}: a sweep {sweep.name!r} with other axes has begun ({changes}); "
                "give this one another `name:`"
            )
        if retries is not None:
            retry_while_away(lambda: self.settings_study.set_user_attr("retries", retries))

    def open_study(self, name: str, directions: list[str], **options: Any) -> optuna.Study:
        return retry_while_away(
            lambda: create_study(
                storage=self.storage,
                study_name=name,
                directions=directions,
                load_if_exists=True,
                **options,
            )
        )

    def state(self) -> SweepState:
        """What the storage holds now."""
        shared = retry_while_away(lambda: self.settings_study.user_attrs)
        self.retries, self.retried = shared.get("retries", RETRIES), set(shared.get("retried", ()))
        settings, attempts = frozen_trials(self.settings_study), frozen_trials(self.attempts_study)
        return sweep_state(
            [self.read_setting(frozen) for frozen in settings if not self.is_void(frozen)],
            [read_attempt(frozen) for frozen in attempts],
            self.sweep.seeds,
            self.retries,
            None if self.planned is None else len(self.planned),
        )

    def read_setting(self, frozen: FrozenTrial) -> QueuedSetting:
        ready = bool(frozen.user_attrs.get("ready"))
        return QueuedSetting(
            frozen.number,
            restore_values(self.sweep, frozen.params) if ready else {},
            frozen.user_attrs.get("planned"),
            ready,
            SETTING_STATES[frozen.state],  # type: ignore[arg-type]
            tuple(frozen.values or ()),
        )

    def is_void(self, frozen: FrozenTrial) -> bool:
        """Whether a setting was withdrawn, or failed and is to be tried again."""
        return "void" in frozen.user_attrs or frozen.number in self.retried

    def retry_failed(self) -> int:
        """Have every failed setting tried again, as a new setting; returns their number."""
        failed = [setting.number for setting in self.state().settings if setting.state == "failed"]
        self.retried |= set(failed)
        retry_while_away(lambda: self.settings_study.set_user_attr("retried", sorted(self.retried)))
        return len(failed)

    def draw(self, state: SweepState) -> bool:
        """Begin another setting; False when there is none to begin."""
        if self.planned is None:
            return self.ask(state)
        begun = {setting.planned for setting in state.settings}
        for index, point in enumerate(self.planned):
            if index not in begun:
                self.begin(point, index)
                return True
        return False

    def begin(self, point: Point, index: int) -> None:
        """Add a planned setting; withdraw it when another worker has added it before."""
        axes = self.sweep.parameters
        token = uuid.uuid4().hex
        frozen = create_trial(
            state=TrialState.RUNNING,
            params={axis.key: axis.stored(point[axis.key]) for axis in axes},
            distributions={axis.key: axis.distribution for axis in axes},
            user_attrs={"planned": index, "ready": True, "token": token},
        )
        added = self.add(self.settings_study, frozen, token)
        if any(
            earlier.user_attrs.get("planned") == index
            for earlier in frozen_trials(self.settings_study)[: added.number]
            if not self.is_void(earlier)
        ):
            self.withdraw(added)

    def ask(self, state: SweepState) -> bool:
        """Have the sampler draw a setting from the results so far."""
        limit = self.sweep.max_settings or 0
        if len(state.settings) >= limit:
            return False
        distributions = {axis.key: axis.distribution for axis in self.sweep.parameters}
        asked = retry_while_away(lambda: self.settings_study.ask(distributions))
        settings = frozen_trials(self.settings_study)
        drawn = settings[asked.number]
        earlier = [frozen for frozen in settings[: asked.number] if not self.is_void(frozen)]
        if len(earlier) >= limit:  # two workers asked at the same time
            self.withdraw(drawn)
        else:
            retry_while_away(
                lambda: self.storage.set_trial_user_attr(drawn._trial_id, "ready", True)
            )
        return True

    def withdraw(self, frozen: FrozenTrial) -> None:
        """Withdraw a setting whose trials have not begun."""
        with suppress(UpdateFinishedTrialError):  # another worker did
            retry_while_away(
                lambda: self.storage.set_trial_user_attr(frozen._trial_id, "void", True)
            )
        self.finish(frozen, TrialState.FAIL)

    def settle(self, state: SweepState) -> bool:
        """Give the optimiser the settings whose trials have all ended; whether there were any."""
        settled = state.settled_settings()
        for setting, end, values in settled:
            frozen = frozen_trials(self.settings_study)[setting.number]
            optuna_state = OPTUNA_STATES.get(end, TrialState.FAIL)
            self.finish(frozen, optuna_state, values if end == "finished" else None)
        return bool(settled)

    def claim(self, trial: QueuedTrial, worker_id: WorkerId) -> Attempt | None:
        """Begin an attempt at a trial; None when another worker has begun one before."""
        token = uuid.uuid4().hex
        attributes = {
            "setting": trial.setting.number,
            "seed": trial.seed,
            "place": worker_id.place,
            "worker": worker_id.name,
            "worker_process": worker_id.process,
            "began": time.time(),
            "token": token,
        }
        frozen = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        added = self.add(self.attempts_study, frozen, token)
        attempt = read_attempt(added)
        earlier_attempts = map(read_attempt, frozen_trials(self.attempts_study)[: added.number])
        if any(
            (earlier.setting, earlier.seed) == (attempt.setting, attempt.seed)
            and earlier.outcome in (None, "finished", "pruned")
            for earlier in earlier_attempts
        ):
            self.end(attempt, "duplicate")
            return None
        return attempt

    def add(self, study: optuna.Study, frozen: FrozenTrial, token: str) -> FrozenTrial:
        """Add an Optuna trial once, although the database may go away before it answers.

        It is recognised by its `token`.
        """

        def with_token() -> FrozenTrial | None:
            return next(
                (added for added in study.trials if added.user_attrs.get("token") == token), None
            )

        def add_once() -> FrozenTrial:
            added = with_token()
            if added is None:
                study.add_trial(frozen)
                added = with_token()
            assert added is not None
            return added

        return retry_while_away(add_once)

    def send_heartbeat(self, attempt: Attempt, count: int, process: str) -> bool:
        """Store a heartbeat; False when the attempt has been taken from this worker."""
        frozen = self.attempts_study.get_trials(deepcopy=False)[attempt.number]
        try:
            self.storage.set_trial_user_attr(frozen._trial_id, "beat", count)
            if frozen.user_attrs.get("process") != process:
                self.storage.set_trial_user_attr(frozen._trial_id, "process", process)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(
        self,
        attempt: Attempt,
        outcome: Outcome,
        values: tuple[float, ...] = (),
        lines: tuple[str, ...] = (),
    ) -> bool:
        """End an attempt; False when it has ended already, with another outcome."""

        def read_frozen() -> FrozenTrial:
            return self.attempts_study.get_trials(deepcopy=False)[attempt.number]

        def end_once() -> bool:
            frozen = read_frozen()
            if frozen.state != TrialState.RUNNING:
                return read_attempt(frozen).outcome == outcome
            result = {"values": values, "lines": lines, "seconds": time.time() - attempt.began}
            try:
                self.storage.set_trial_user_attr(frozen._trial_id, f"how/{outcome}", result)
            except UpdateFinishedTrialError:
                return False
            if self.finish(frozen, OPTUNA_STATES.get(outcome, TrialState.FAIL), (0.0,)):
                return True
            return read_attempt(read_frozen()).outcome == outcome

        return retry_while_away(end_once)

    def finish(
        self, frozen: FrozenTrial, state: TrialState, values: tuple[float, ...] | None = None
    ) -> bool:
        """End an Optuna trial; False when it has ended already."""

        def finish_once() -> bool:
            try:
                self.storage.set_trial_state_values(
                    frozen._trial_id, state, values if state == TrialState.COMPLETE else None
                )
            except UpdateFinishedTrialError:
                return False
            return True

        return retry_while_away(finish_once)

    def report(self, setting: QueuedSetting, step: int, value: float) -> bool:
        """Give the pruner a value after some validations; whether the setting is to be ended."""
        frozen = self.settings_study.get_trials(deepcopy=False)[setting.number]
        if step not in frozen.intermediate_values:
            self.storage.set_trial_intermediate_value(frozen._trial_id, step, value)
        frozen = self.settings_study.get_trials(deepcopy=False)[setting.number]
        return self.settings_study.pruner.prune(self.settings_study, frozen)
