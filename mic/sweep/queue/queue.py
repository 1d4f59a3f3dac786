"""The queue of a sweep's runs in Optuna's storage, shared by workers that may die at any moment.

Two studies: NAME has a trial a setting, whose values are the means over its seeds; NAME/attempts
has a trial an attempt at a run. Three things are atomic in every storage, and all else is built of
them: a trial is created whole; trials are numbered in the order of their creation; a trial ends
once. So of two attempts at one run, as of two trials of one setting, the lower number is right and
the other withdraws.
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
from mic.sweep.queue.heartbeat import Life
from mic.sweep.queue.state import Attempt, Board, How, Run, Setting, board
from mic.sweep.queue.storage import ENDS, STATES, attempt, patiently, trials_of
from mic.sweep.sampling import meant, planned, pruner_of, quiet_study, sampler_of
from mic.sweep.search_space import Point
from mic.sweep.sweep_file import Sweep, shared

RETRIES = 2  # times that a failing run is tried again


class Queue:
    """A sweep's queue; `retries` is kept for whoever joins.

    Raises InputError when another sweep of that name is in the storage.
    """

    def __init__(self, sweep: Sweep, storage: BaseStorage, retries: int | None = None) -> None:
        self.sweep, self.storage = sweep, storage
        self.planned = planned(sweep)
        directions = [f"{metric.goal}" for metric in sweep.metrics]
        self.settings = self.study(
            sweep.name, directions, sampler=sampler_of(sweep), pruner=pruner_of(sweep)
        )
        self.attempts = self.study(f"{sweep.name}/attempts", ["maximize"])
        self.retries = RETRIES
        self.retried: set[int] = set()
        known = patiently(lambda: self.settings.user_attrs).get("says")
        says = list(shared(sweep))
        if known is None:
            patiently(lambda: self.settings.set_user_attr("says", says))
        elif known != says:
            gone = [f"was: {one}" for one in known if one not in says]
            new = [f"is: {one}" for one in says if one not in known]
            other = "; ".join(gone + new)
            raise InputError(
                f"{sweep.file}: a sweep {sweep.name!r} with other axes has begun ({other}); "
                "give this one another `name:`"
            )
        if retries is not None:
            patiently(lambda: self.settings.set_user_attr("retries", retries))

    def study(self, name: str, directions: list[str], **options: Any) -> optuna.Study:
        return patiently(
            lambda: quiet_study(
                storage=self.storage,
                study_name=name,
                directions=directions,
                load_if_exists=True,
                **options,
            )
        )

    def board(self) -> Board:
        """What the storage holds now."""
        about = patiently(lambda: self.settings.user_attrs)
        self.retries, self.retried = about.get("retries", RETRIES), set(about.get("retried", ()))
        settings, attempts = trials_of(self.settings), trials_of(self.attempts)
        return board(
            [self.setting(one) for one in settings if not self.void(one)],
            [attempt(one) for one in attempts],
            self.sweep.seeds,
            self.retries,
            None if self.planned is None else len(self.planned),
        )

    def setting(self, trial: FrozenTrial) -> Setting:
        ready = bool(trial.user_attrs.get("ready"))
        return Setting(
            trial.number,
            meant(self.sweep, trial.params) if ready else {},
            trial.user_attrs.get("planned"),
            ready,
            STATES[trial.state],  # type: ignore[arg-type]
            tuple(trial.values or ()),
        )

    def void(self, trial: FrozenTrial) -> bool:
        """Whether a setting was withdrawn, or failed and is to be tried anew."""
        return "void" in trial.user_attrs or trial.number in self.retried

    def retry_failed(self) -> int:
        """Have every setting that failed tried anew, as another setting; how many."""
        failed = [one.number for one in self.board().settings if one.state == "failed"]
        self.retried |= set(failed)
        patiently(lambda: self.settings.set_user_attr("retried", sorted(self.retried)))
        return len(failed)

    def draw(self, now: Board) -> bool:
        """Begin another setting; False when there is none to begin."""
        if self.planned is None:
            return self.ask(now)
        begun = {one.planned for one in now.settings}
        for index, point in enumerate(self.planned):
            if index not in begun:
                self.begin(point, index)
                return True
        return False

    def begin(self, point: Point, index: int) -> None:
        """Add a planned setting; withdraw it when somebody was sooner."""
        axes = self.sweep.parameters
        token = uuid.uuid4().hex
        trial = create_trial(
            state=TrialState.RUNNING,
            params={axis.key: axis.stored(point[axis.key]) for axis in axes},
            distributions={axis.key: axis.distribution for axis in axes},
            user_attrs={"planned": index, "ready": True, "token": token},
        )
        added = self.add(self.settings, trial, token)
        trials = trials_of(self.settings)
        earlier = [one for one in trials[: added.number] if not self.void(one)]
        if any(one.user_attrs.get("planned") == index for one in earlier):
            self.withdraw(added)

    def ask(self, now: Board) -> bool:
        """Have the sampler draw a setting from the results so far."""
        limit = self.sweep.settings or 0
        if len(now.settings) >= limit:
            return False
        distributions = {axis.key: axis.distribution for axis in self.sweep.parameters}
        asked = patiently(lambda: self.settings.ask(distributions))
        trials = trials_of(self.settings)
        drawn = trials[asked.number]
        before = [one for one in trials[: asked.number] if not self.void(one)]
        if len(before) >= limit:  # two workers asked at a time
            self.withdraw(drawn)
        else:
            patiently(lambda: self.storage.set_trial_user_attr(drawn._trial_id, "ready", True))
        return True

    def withdraw(self, trial: FrozenTrial) -> None:
        """Take back a setting that nobody has begun."""
        with suppress(UpdateFinishedTrialError):  # somebody else did
            patiently(lambda: self.storage.set_trial_user_attr(trial._trial_id, "void", True))
        self.finish(trial, TrialState.FAIL)

    def settle(self, now: Board) -> bool:
        """Tell the optimiser of settings whose runs have all ended; whether there were any."""
        found = now.settled()
        for setting, state, values in found:
            trial = trials_of(self.settings)[setting.number]
            end = ENDS.get(state, TrialState.FAIL)
            self.finish(trial, end, values if state == "finished" else None)
        return bool(found)

    def claim(self, run: Run, life: Life) -> Attempt | None:
        """Begin an attempt at a run; None when somebody was sooner."""
        token = uuid.uuid4().hex
        about = {
            "setting": run.setting.number,
            "seed": run.seed,
            "place": life.place,
            "worker": life.name,
            "worker_process": life.process,
            "began": time.time(),
            "token": token,
        }
        added = self.add(
            self.attempts, create_trial(state=TrialState.RUNNING, user_attrs=about), token
        )
        trials = trials_of(self.attempts)
        rivals = [
            one
            for one in map(attempt, trials[: added.number])
            if (one.setting, one.seed) == (run.setting.number, run.seed)
            and one.how in (None, "finished", "pruned")
        ]
        if rivals:
            self.end(attempt(added), "duplicate")
            return None
        return attempt(added)

    def add(self, study: optuna.Study, trial: FrozenTrial, token: str) -> FrozenTrial:
        """Add a trial once, although the database may go away between doing it and saying so."""

        def once() -> FrozenTrial:
            found = [one for one in study.trials if one.user_attrs.get("token") == token]
            if not found:
                study.add_trial(trial)
                found = [one for one in study.trials if one.user_attrs.get("token") == token]
            return found[0]

        return patiently(once)

    def beat(self, one: Attempt, count: int, process: str) -> bool:
        """Give a sign of life; False when the attempt has been taken from this worker."""
        trial = self.attempts.get_trials(deepcopy=False)[one.number]
        try:
            self.storage.set_trial_user_attr(trial._trial_id, "beat", count)
            if trial.user_attrs.get("process") != process:
                self.storage.set_trial_user_attr(trial._trial_id, "process", process)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(
        self, one: Attempt, how: How, values: tuple[float, ...] = (), lines: tuple[str, ...] = ()
    ) -> bool:
        """End an attempt; False when it has ended already, in another way."""

        def tell() -> bool:
            now = self.attempts.get_trials(deepcopy=False)[one.number]
            if now.state != TrialState.RUNNING:
                return attempt(now).how == how
            about = {"values": values, "lines": lines, "seconds": time.time() - one.began}
            try:
                self.storage.set_trial_user_attr(now._trial_id, f"how/{how}", about)
            except UpdateFinishedTrialError:
                return False
            if self.finish(now, ENDS.get(how, TrialState.FAIL), (0.0,)):
                return True
            return attempt(self.attempts.get_trials(deepcopy=False)[one.number]).how == how

        return patiently(tell)

    def finish(
        self, trial: FrozenTrial, state: TrialState, values: tuple[float, ...] | None = None
    ) -> bool:
        """Give a trial its end; False when it has one."""

        def tell() -> bool:
            try:
                self.storage.set_trial_state_values(
                    trial._trial_id, state, values if state == TrialState.COMPLETE else None
                )
            except UpdateFinishedTrialError:
                return False
            return True

        return patiently(tell)

    def report(self, setting: Setting, step: int, value: float) -> bool:
        """Tell the pruner of a value after some validations; whether the setting is to be ended."""
        trial = self.settings.get_trials(deepcopy=False)[setting.number]
        if step not in trial.intermediate_values:
            self.storage.set_trial_intermediate_value(trial._trial_id, step, value)
        trial = self.settings.get_trials(deepcopy=False)[setting.number]
        return self.settings.pruner.prune(self.settings, trial)
