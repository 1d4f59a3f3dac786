"""`mic sweep FILE`: list its trials, work on them, look at them."""

import os

from rich.console import Console

from mic.console import notice
from mic.distributed.launcher import watch_parent
from mic.distributed.preemption import listening
from mic.errors import InputError, RunError
from mic.report.tables import Table, rich_table
from mic.sweep import status
from mic.sweep.folder import lay_out
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Board
from mic.sweep.queue.storage import open_storage
from mic.sweep.sampling import planned, refuse_wrong
from mic.sweep.status import progress, setting, short, value_of
from mic.sweep.sweep_file import Sweep
from mic.sweep.worker import work
from mic.sweep.workers import run_workers, share

IS_ONE_OF_SEVERAL = "MIC_WORKER"  # set for the workers that `--workers` starts


def work_on(
    sweep: Sweep, storage: str | None, retries: int | None, retry_failed: bool, workers: int
) -> None:
    """Work on a sweep with so many workers of this machine until nothing is left to do."""
    if IS_ONE_OF_SEVERAL not in os.environ:
        refuse_wrong(sweep)
    queue = open_queue(sweep, storage, retries)
    if retry_failed and (count := queue.retry_failed()):
        notice(f"{count} failed settings are tried anew")
    if workers == 1:
        with listening() as stop:
            watch_parent()
            now = work(queue, share(0, 1, 1, os.environ, []), stop)
        if IS_ONE_OF_SEVERAL in os.environ:
            return
    else:
        notice(f"{sweep.folder}: {workers} workers; {progress(sweep, queue.board())}")
        os.environ[IS_ONE_OF_SEVERAL] = "1"
        if storage is not None:
            os.environ["MIC_STORAGE"] = storage  # not an argument: it may hold a password
        run_workers([str(sweep.file)], workers, sweep.base.trainer.devices)
        now = queue.board()
    finish(sweep, now)


def open_queue(sweep: Sweep, storage: str | None, retries: int | None) -> Queue:
    """The sweep's folder and its queue, made or joined."""
    folder = lay_out(sweep)
    return Queue(sweep, open_storage(folder, storage), retries)


def show_status(sweep: Sweep, storage: str | None) -> None:
    """Print how far a sweep is. Raises InputError when it has not begun."""
    if storage is None and not sweep.folder.is_dir():
        raise InputError(f"{sweep.folder}: not begun; start it with `mic sweep {sweep.file}`")
    status.show(Queue(sweep, open_storage(sweep.folder, storage)))


def dry_run(sweep: Sweep) -> None:
    """Print the trials that the sweep will run, or what is drawn as it goes."""
    console = Console(width=max(100, 24 * (2 + len(sweep.parameters))))
    refuse_wrong(sweep)
    points = planned(sweep)
    if points is None:
        console.print(f"{sweep.settings} settings, each drawn from the results before it:")
        for axis in sweep.parameters:
            console.print(f"  {axis.key}: {axis.distribution}", highlight=False, markup=False)
        console.print(
            f"with seeds {list(sweep.seeds)}: {(sweep.settings or 0) * len(sweep.seeds)} runs"
        )
        return
    rows = [
        [f"t{number:03d}-seed{seed}", *map(value_of, point.values())]
        for number, point in enumerate(points)
        for seed in sweep.seeds
    ]
    head = ["run", *(short(axis.key) for axis in sweep.parameters)]
    console.print(
        rich_table(Table(f"{sweep.name}: {len(rows)} runs of {sweep.config}", head, rows))
    )


def finish(sweep: Sweep, now: Board) -> None:
    """Say what came of a sweep. Raises RunError when no setting has all its runs finished."""
    settled = [one for one in now.settings if one.state == "finished"]
    failed = [run for run in now.runs if run.state == "failed"]
    for run in failed:
        lines = run.last.lines if run.last else ()
        notice(f"{run.name} failed: {lines[-1] if lines else 'without a word'}")
    if not settled:
        raise RunError(f"{sweep.folder}: no setting has finished; its logs/ say more")
    metric = sweep.metrics[0]
    best = max(settled, key=lambda one: metric.sign * one.values[0])
    notice(
        f"{progress(sweep, now)}; best: {best.name} ({setting(best.point)}), "
        f"{metric.name} {best.values[0]:.4g}"
    )
    notice(f"read it with: mic report --sweep {sweep.folder}")
