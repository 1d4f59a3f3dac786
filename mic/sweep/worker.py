"""A worker: takes a run from the queue, has it trained in a process group of its own, and again.

It may be killed at any moment. What it was at is then resumed by another worker from the run's last
checkpoint; what it has told the queue is never done again.
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
from mic.sweep import trial
from mic.sweep.folder import config_of, tell
from mic.sweep.queue.heartbeat import Signs, Watch, identity, own
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Attempt, Board, How, Run
from mic.sweep.queue.storage import trials_of
from mic.sweep.status import outcome, progress, setting
from mic.sweep.trial import Judge
from mic.tracking import run_directory

LOOK = 0.2  # seconds between two looks at a trial
WAIT = 2.0  # seconds between two looks at the queue when others have all that is left
HOPELESS = 3  # settings that fail before any run has finished, after which a sweep gives up


class Ended(NamedTuple):
    """How a trial ended, the values of its metrics, and a failed one's last lines."""

    how: How
    values: tuple[float, ...] = ()
    lines: tuple[str, ...] = ()


def work(queue: Queue, environment: Mapping[str, str], stop: Stop) -> Board:
    """Take runs until there are none left; the board at the end.

    Raises Preempted when asked to stop, with the run back in the queue; RunError when nothing but
    failures came of the first settings.
    """
    life = own()
    watch = Watch(life)
    while True:
        now = queue.board()
        take_over(queue, now, watch)
        if queue.settle(now):
            continue
        refuse_hopeless(now)
        run = now.next(one_seed_first=queue.sweep.early is not None)
        if run is not None:
            attempt = queue.claim(run, life)
            if attempt is not None:
                attend(queue, run, attempt, environment, stop)
        elif not queue.draw(now):
            if not now.running() and all(one.state != "open" for one in now.settings):
                return now
            time.sleep(WAIT)


def take_over(queue: Queue, now: Board, watch: Watch) -> None:
    """Put back what a worker that is gone was at."""
    for attempt in now.running():
        if watch.gone(attempt) and queue.end(attempt, "lost"):
            notice(f"worker {attempt.worker} is gone; its run is resumed")
    for one in now.settings:
        if one.state == "open" and watch.abandoned(one):
            queue.withdraw(trials_of(queue.settings)[one.number])


def refuse_hopeless(now: Board) -> None:
    """Raise a RunError when nothing has ever gone well, and a good part has failed."""
    failed = [run for run in now.runs if run.state == "failed"]
    if len({run.setting.number for run in failed}) >= HOPELESS and not now.count("finished"):
        last = failed[-1].last
        lines = "\n  ".join(last.lines if last else ())
        raise RunError(
            f"the first {HOPELESS} settings have all failed: the sweep stops. {failed[-1].name} "
            f"ended with:\n  {lines}\nMend the cause, and go on with --retry-failed"
        )


def attend(
    queue: Queue, run: Run, attempt: Attempt, environment: Mapping[str, str], stop: Stop
) -> None:
    """Train a run to its end, and tell the queue and the run's folder of it."""
    config = config_of(queue.sweep, run)
    folder = run_directory.path_of(config)
    again = f", attempt {len(run.attempts) + 1}" if run.attempts else ""
    notice(f"{run.name}: {setting(run.setting.point)}{again}")
    trial.prepare(config)
    tell(run._replace(attempts=(*run.attempts, attempt)), config, "running", attempt.worker)
    stop.waits = True
    try:
        with trial.started(
            queue.sweep.launcher, trial.prepare(config), trial.log_of(config), environment
        ) as process:
            ended = watched(queue, run, attempt, config, process, stop)
    finally:
        stop.waits = False
    if ended is None:
        notice(f"{run.name}: was taken over by another worker")
        return
    queue.end(attempt, ended.how, ended.values, ended.lines)
    now = queue.board()
    run = next(
        (
            one
            for one in now.runs
            if one.setting.number == attempt.setting and one.seed == attempt.seed
        ),
        run,
    )
    tell(run, config, run.state, attempt.worker, ended.lines)
    how = outcome(queue.sweep, ended.how, ended.values)
    notice(f"{run.name}: {how}; {progress(queue.sweep, now)}")
    if stop.asked is not None:
        raise Preempted(f"{stop.why()}; the sweep goes on with the same command")
    if ended.how == "refused" and ended.lines and "not logged" in ended.lines[-1]:
        raise InputError(f"{queue.sweep.file}: {ended.lines[-1]}; see {folder}")


def watched(
    queue: Queue,
    run: Run,
    attempt: Attempt,
    config: Config,
    process: subprocess.Popen[bytes],
    stop: Stop,
) -> Ended | None:
    """Stay by a trial until it ends; None when another worker has its run."""
    folder, log = run_directory.path_of(config), trial.log_of(config)
    signs = Signs(lambda count: queue.beat(attempt, count, identity(process.pid)))
    judge = Judge(queue, run, config)
    asked: How | None = None
    deadline = 0.0
    while process.poll() is None:
        if not signs.given():
            return None
        if asked is None and (stop.asked is not None or signs.unheard):
            asked = "preempted"
        elif asked is None and judge.unfavourable():
            asked = "pruned"
        if asked is not None and not deadline:
            trial.ask_to_stop(process)
            deadline = time.monotonic() + trial.PATIENCE
        if deadline and time.monotonic() > deadline:
            trial.kill(process)
        time.sleep(LOOK)
    code = process.returncode
    if code == 0:
        found = trial.values(folder, queue.sweep.metrics)
        return (
            Ended("refused", (), (found,)) if isinstance(found, str) else Ended("finished", found)
        )
    if asked is not None:
        return Ended(asked)
    if code == STOPPED:
        return Ended("preempted")
    lines = trial.last_lines(log)
    if code < 0:
        lines = (*lines, f"killed by signal {-code} ({signal.Signals(-code).name})")
    return Ended("refused" if code == BAD_INPUT else "failed", (), lines)
