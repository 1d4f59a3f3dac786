"""Run a worker: take trials from the queue, one after the other, each in its own process group.

A worker may be killed at any moment. Another worker then resumes its trial from the last
checkpoint; a trial whose end is in the queue is never run again.
"""

import signal
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple

from mic.config.schema import Config
from mic.console import notice
from mic.distributed.failures import BAD_INPUT, STOPPED
from mic.distributed.preemption import Stop
from mic.errors import InputError, Preempted, RunError
from mic.sweep.folder import trial_config, write_trial
from mic.sweep.queue.heartbeat import Heartbeat, LivenessWatch, process_identity, this_worker
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Attempt, Outcome, QueuedTrial, SweepState
from mic.sweep.queue.storage import frozen_trials
from mic.sweep.status import describe_outcome, describe_progress, describe_setting
from mic.sweep.trial import (
    PATIENCE,
    EarlyStopper,
    ask_to_stop,
    final_values,
    kill_trial,
    last_lines,
    log_path,
    start_trial,
    write_config,
)
from mic.tracking import run_directory

LOOK = 0.2  # seconds between two looks at a trial
WAIT = 2.0  # seconds between two looks at the queue when others have all that is left
HOPELESS = 3  # settings that fail before any trial has finished, after which the sweep stops


class TrialEnd(NamedTuple):
    """How a trial ended, the values of its metrics, and a failed one's last lines."""

    outcome: Outcome
    values: tuple[float, ...] = ()
    lines: tuple[str, ...] = ()


def run_worker(queue: Queue, environment: Mapping[str, str], stop: Stop) -> SweepState:
    """Run trials until none is left; returns the sweep's state at the end.

    Raises Preempted when asked to stop, with the trial back in the queue; RunError when all of the
    first settings failed.
    """
    worker_id = this_worker()
    watch = LivenessWatch(worker_id)
    while True:
        state = queue.state()
        release_lost_attempts(queue, state, watch)
        if queue.settle(state):
            continue
        stop_if_all_fail(state)
        trial = state.next_trial(one_seed_first=queue.sweep.early_termination is not None)
        if trial is not None:
            attempt = queue.claim(trial, worker_id)
            if attempt is not None:
                run_attempt(queue, trial, attempt, environment, stop)
        elif not queue.draw(state):
            settled = all(setting.state != "open" for setting in state.settings)
            if settled and not state.running_attempts():
                return state
            time.sleep(WAIT)


def release_lost_attempts(queue: Queue, state: SweepState, watch: LivenessWatch) -> None:
    """Put the trials of workers that are gone back into the queue; withdraw their drafts."""
    for attempt in state.running_attempts():
        if watch.is_gone(attempt) and queue.end(attempt, "lost"):
            notice(f"worker {attempt.worker} is gone; its trial is resumed")
    for setting in state.settings:
        if setting.state == "open" and watch.is_abandoned(setting):
            queue.withdraw(frozen_trials(queue.settings_study)[setting.number])


def stop_if_all_fail(state: SweepState) -> None:
    """Raise a RunError when HOPELESS settings have failed and no trial has finished."""
    failed = [trial for trial in state.trials if trial.state == "failed"]
    if len({trial.setting.number for trial in failed}) >= HOPELESS and not state.count("finished"):
        last = failed[-1].last_attempt
        lines = "\n  ".join(last.lines if last else ())
        raise RunError(
            f"the first {HOPELESS} settings have all failed: the sweep stops. {failed[-1].name} "
            f"ended with:\n  {lines}\nMend the cause, and continue with --retry-failed"
        )


def run_attempt(
    queue: Queue, trial: QueuedTrial, attempt: Attempt, environment: Mapping[str, str], stop: Stop
) -> None:
    """Run a trial to its end, which goes into the queue and into the trial's folder."""
    config = trial_config(queue.sweep, trial)
    folder = run_directory.path_of(config)
    again = f", attempt {len(trial.attempts) + 1}" if trial.attempts else ""
    notice(f"{trial.name}: {describe_setting(trial.setting.point)}{again}")
    file = write_config(config)
    begun = trial._replace(attempts=(*trial.attempts, attempt))
    write_trial(begun, config, "running", attempt.worker)
    stop.waits = True
    try:
        with start_trial(queue.sweep.launcher, file, log_path(config), environment) as process:
            end = watch_trial(queue, trial, attempt, config, process, stop)
    finally:
        stop.waits = False
    if end is None:
        notice(f"{trial.name}: was taken over by another worker")
        return
    queue.end(attempt, end.outcome, end.values, end.lines)
    state = queue.state()
    trial = next(
        (
            trial
            for trial in state.trials
            if trial.setting.number == attempt.setting and trial.seed == attempt.seed
        ),
        trial,
    )
    write_trial(trial, config, trial.state, attempt.worker, end.lines)
    outcome = describe_outcome(queue.sweep, end.outcome, end.values)
    notice(f"{trial.name}: {outcome}; {describe_progress(queue.sweep, state)}")
    if stop.asked is not None:
        raise Preempted(f"{stop.why()}; the same command continues the sweep")
    if end.outcome == "refused" and end.lines and "not logged" in end.lines[-1]:
        raise InputError(f"{queue.sweep.file}: {end.lines[-1]}; see {folder}")


def watch_trial(
    queue: Queue,
    trial: QueuedTrial,
    attempt: Attempt,
    config: Config,
    process: subprocess.Popen[bytes],
    stop: Stop,
) -> TrialEnd | None:
    """Wait until a trial ends, or end it early; None when another worker has taken it over."""
    folder, log = run_directory.path_of(config), log_path(config)
    heartbeat = Heartbeat(
        lambda count: queue.send_heartbeat(attempt, count, process_identity(process.pid))
    )
    stopper = EarlyStopper(queue, trial, config)
    asked: Outcome | None = None
    deadline = 0.0
    while process.poll() is None:
        if not heartbeat.send_if_due():
            return None
        if asked is None and (stop.asked is not None or heartbeat.overdue):
            asked = "preempted"
        elif asked is None and stopper.should_stop():
            asked = "pruned"
        if asked is not None and not deadline:
            ask_to_stop(process)
            deadline = time.monotonic() + PATIENCE
        if deadline and time.monotonic() > deadline:
            kill_trial(process)
        time.sleep(LOOK)
    code = process.returncode
    if code == 0:
        values = final_values(folder, queue.sweep.metrics)
        if isinstance(values, str):
            return TrialEnd("refused", lines=(values,))
        return TrialEnd("finished", values)
    if asked is not None:
        return TrialEnd(asked)
    if code == STOPPED:
        return TrialEnd("preempted")
    lines = last_lines(log)
    if code < 0:
        lines = (*lines, f"killed by signal {-code} ({signal.Signals(-code).name})")
    return TrialEnd("refused" if code == BAD_INPUT else "failed", lines=lines)
