"""The workers of one machine: each a process with its share of the threads and of the GPUs."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from mic.console import notice
from mic.distributed.failures import BAD_INPUT, STOPPED
from mic.distributed.launcher import available_cores, caught_signals, lifeline
from mic.errors import InputError, Preempted, RunError

AGAIN = 3  # times that a worker that was killed is started anew
LOOK = 0.2
# what says which run of W&B's, or which rank, this process is: no trial is that
OTHERS = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "SLURM_STEP_ID")


def share(
    worker: int, workers: int, ranks: int, environment: Mapping[str, str], gpus: Sequence[str]
) -> dict[str, str]:
    """The environment of one of several workers, whose trials have `ranks` processes each.

    Threads are divided, unless OMP_NUM_THREADS says otherwise; GPUs are dealt out, each worker's
    trials having as many as they have ranks where there are enough.

    >>> share(1, 2, 1, {"OMP_NUM_THREADS": "3"}, ["0", "1", "2", "3"])
    {'OMP_NUM_THREADS': '3', 'CUDA_VISIBLE_DEVICES': '2,3'}
    """
    found = {name: value for name, value in environment.items() if name not in OTHERS}
    if workers > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // (workers * ranks))))
    if gpus and workers > 1:
        each = max(1, len(gpus) // workers)
        first = worker * each % len(gpus)
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + each])
    return found


def gpus_of(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that may be used, as CUDA numbers or names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip()]
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number, _ in enumerate(told.stdout.strip().splitlines())]


def run_workers(arguments: Sequence[str], workers: int, ranks: int) -> None:
    """Run `mic sweep` with these arguments as so many workers, to the end of the sweep.

    A worker that is killed is started anew, and takes over what it was at. Raises InputError,
    RunError or Preempted as the workers did.
    """
    environment, gpus = dict(os.environ), gpus_of(os.environ)
    command = [sys.executable, "-m", "mic.cli", "sweep", *arguments, "--workers", "1"]
    running: dict[int, subprocess.Popen[bytes]] = {}
    codes: dict[int, int] = {}
    again = dict.fromkeys(range(workers), AGAIN)

    with lifeline() as pipe, caught_signals() as signals:

        def start(worker: int) -> None:
            own = share(worker, workers, ranks, environment, gpus) | {"MIC_LAUNCHED": pipe}
            running[worker] = subprocess.Popen(
                command, env=own, stdin=subprocess.DEVNULL, start_new_session=True
            )

        try:
            for worker in range(workers):
                start(worker)
            asked = False
            while running:
                asked = pass_on(signals, running.values()) or asked
                for worker, process in list(running.items()):
                    if (code := process.poll()) is None:
                        continue
                    del running[worker]
                    if code < 0 and not asked and again[worker]:
                        again[worker] -= 1
                        notice(f"a worker was killed by {signal.Signals(-code).name}; a new one")
                        start(worker)
                    else:
                        codes[worker] = code
                time.sleep(LOOK)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    refuse_failed(list(codes.values()))


def pass_on(signals: deque[int], processes: Collection[subprocess.Popen[bytes]]) -> bool:
    """Send the workers what was received; whether there was anything."""
    found = bool(signals)
    while signals:
        number = signals.popleft()
        for process in processes:
            process.send_signal(number)
    return found


def refuse_failed(codes: Sequence[int]) -> None:
    """Raise what the workers, who have said why, ended with."""
    error: RunError | InputError
    if BAD_INPUT in codes:
        error = InputError("a worker refused its input")
    elif any(code not in (0, STOPPED) and code > 0 for code in codes):
        error = RunError("a worker failed")
    elif STOPPED in codes or any(code < 0 for code in codes):
        error = Preempted("stopped")
    else:
        return
    error.reported = True
    raise error
