"""Run a sweep file: list its trials, work on them, show their state."""

import os

from rich.console import Console

from mic.console import notice
from mic.distributed.launcher import watch_parent
from mic.distributed.preemption import listening
from mic.errors import InputError, RunError
from mic.report.tables import Table, rich_table
from mic.sweep import status
from mic.sweep.folder import create_folder
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import SweepState
from mic.sweep.queue.storage import open_storage
from mic.sweep.sampling import check_planned_points, planned_points
from mic.sweep.status import describe_progress, describe_setting, short_key, short_value
from mic.sweep.sweep_file import Sweep
from mic.sweep.worker import run_worker
from mic.sweep.workers import run_workers, worker_environment

IS_ONE_OF_SEVERAL = "MIC_WORKER"  # set in the workers that `--workers` starts


def work_on_sweep(
    sweep: Sweep, storage: str | None, retries: int | None, retry_failed: bool, workers: int
) -> None:
    """Work on a sweep with `workers` processes of this machine until no trial is left."""
    if IS_ONE_OF_SEVERAL not in os.environ:
        check_planned_points(sweep)
    queue = open_queue(sweep, storage, retries)
    if retry_failed and (count := queue.retry_failed()):
        notice(f"{count} failed settings are tried again")
    if workers == 1:
        with listening() as stop:
            watch_parent()
            state = run_worker(queue, worker_environment(0, 1, 1, os.environ, []), stop)
        if IS_ONE_OF_SEVERAL in os.environ:
            return
    else:
        notice(f"{sweep.folder}: {workers} workers; {describe_progress(sweep, queue.state())}")
        os.environ[IS_ONE_OF_SEVERAL] = "1"
        if storage is not None:
            os.environ["MIC_STORAGE"] = storage  # not an argument: it may hold a password
        run_workers([str(sweep.file)], workers, sweep.base.trainer.devices)
        state = queue.state()
    print_result(sweep, state)


def open_queue(sweep: Sweep, storage: str | None, retries: int | None) -> Queue:
    """Create the sweep's folder and queue, or join those that are there."""
    folder = create_folder(sweep)
    return Queue(sweep, open_storage(folder, storage), retries)


def show_status(sweep: Sweep, storage: str | None) -> None:
    """Print the state of a sweep. Raises InputError when it has not begun."""
    if storage is None and not sweep.folder.is_dir():
        raise InputError(f"{sweep.folder}: not begun; start it with `mic sweep {sweep.file}`")
    status.show_status_table(Queue(sweep, open_storage(sweep.folder, storage)))


def dry_run(sweep: Sweep) -> None:
    """Print the trials that the sweep will run, or the distributions that they are drawn from."""
    console = Console(width=max(100, 24 * (2 + len(sweep.parameters))))
    check_planned_points(sweep)
    points = planned_points(sweep)
    if points is None:
        console.print(f"{sweep.max_settings} settings, each drawn from the results before it:")
        for axis in sweep.parameters:
            text = f"  {short_key(axis.key)}: {axis.describe()}"
            console.print(text, highlight=False, markup=False)
        console.print(
            f"with seeds {list(sweep.seeds)}: {(sweep.max_settings or 0) * len(sweep.seeds)} runs"
        )
        return
    title = f"{sweep.name}: {len(points) * len(sweep.seeds)} runs of {sweep.config}"
    head = ["run", *(short_key(axis.key) for axis in sweep.parameters)]
    rows = [
        [f"t{number:03d}-seed{seed}", *map(short_value, point.values())]
        for number, point in enumerate(points)
        for seed in sweep.seeds
    ]
    console.print(rich_table(Table(title, head, rows)))


def print_result(sweep: Sweep, state: SweepState) -> None:
    """Print the failures and the best setting. Raises RunError when no setting has finished."""
    finished = [setting for setting in state.settings if setting.state == "finished"]
    failed = [trial for trial in state.trials if trial.state == "failed"]
    for trial in failed:
        lines = trial.last_attempt.lines if trial.last_attempt else ()
        notice(f"{trial.name} failed: {lines[-1] if lines else 'no output'}")
    if not finished:
        raise RunError(f"{sweep.folder}: no setting has finished; its logs/ say more")
    metric = sweep.metrics[0]
    best = max(finished, key=lambda setting: metric.sign * setting.values[0])
    notice(
        f"{describe_progress(sweep, state)}; best: {best.name} ({describe_setting(best.point)}), "
        f"{metric.name} {best.values[0]:.4g}"
    )
    notice(f"read it with: mic report --sweep {sweep.folder}")
