"""Run several workers on one machine, each with its share of the threads and of the GPUs."""

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

AGAIN = 3  # times that a killed worker is started again
LOOK = 0.2
# they name this process's own W&B run, or its rank, and are not passed on to trials
OTHERS = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "SLURM_STEP_ID")


def worker_environment(
    worker: int, workers: int, ranks: int, environment: Mapping[str, str], gpus: Sequence[str]
) -> dict[str, str]:
    """The environment of one of several workers, whose trials have `ranks` processes each.

    Threads are divided, unless OMP_NUM_THREADS is set; GPUs are divided as well, and shared where
    there are fewer GPUs than workers.

    >>> worker_environment(1, 2, 1, {"OMP_NUM_THREADS": "3"}, ["0", "1", "2", "3"])
    {'OMP_NUM_THREADS': '3', 'CUDA_VISIBLE_DEVICES': '2,3'}
    """
    result = {name: value for name, value in environment.items() if name not in OTHERS}
    if workers > 1:
        result.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // (workers * ranks))))
    if gpus and workers > 1:
        each = max(1, len(gpus) // workers)
        first = worker * each % len(gpus)
        result["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + each])
    return result


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that may be used, by the index or name that CUDA has for them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number, _ in enumerate(listing.stdout.strip().splitlines())]


def run_workers(arguments: Sequence[str], workers: int, ranks: int) -> None:
    """Run `mic sweep` with these arguments as so many workers, to the end of the sweep.

    A worker that is killed is started again; its trial is resumed. Raises InputError, RunError or
    Preempted as the workers did.
    """
    environment, gpus = dict(os.environ), visible_gpus(os.environ)
    command = [sys.executable, "-m", "mic.cli", "sweep", *arguments, "--workers", "1"]
    running: dict[int, subprocess.Popen[bytes]] = {}
    codes: dict[int, int] = {}
    again = dict.fromkeys(range(workers), AGAIN)

    with lifeline() as pipe, caught_signals() as signals:

        def start(worker: int) -> None:
            variables = worker_environment(worker, workers, ranks, environment, gpus)
            running[worker] = subprocess.Popen(
                command,
                env=variables | {"MIC_LAUNCHED": pipe},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

        try:
            for worker in range(workers):
                start(worker)
            asked = False
            while running:
                asked = forward_signals(signals, running.values()) or asked
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
    raise_worker_failures(list(codes.values()))


def forward_signals(signals: deque[int], processes: Collection[subprocess.Popen[bytes]]) -> bool:
    """Send the received signals to the workers; whether there were any."""
    received = bool(signals)
    while signals:
        number = signals.popleft()
        for process in processes:
            process.send_signal(number)
    return received


def raise_worker_failures(codes: Sequence[int]) -> None:
    """Raise the error that the workers ended with; they have printed its reason."""
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
