"""SLURM on one machine, as far as a batch script and its ranks can see it.

`Job` is the controller with its daemons: it runs an untouched batch script and sends the signals
that SLURM sends, from outside. srun and scontrol, which the script finds on PATH, are this file as
well. All do what sbatch(1), srun(1), scontrol(1) and slurm.conf(5) say, and where those are silent
what SLURM's source does. In the folder $FAKE_SLURM, step.N has the process ids of a step's tasks,
and `requeued` the jobs that are to come back.
"""

import math
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Task = subprocess.Popen[bytes]
KILL_WAIT = 30  # seconds between SIGTERM and SIGKILL
LOOK = 0.02
NODES = "127.0.0.[1-{nodes}]"  # names that resolve without a name server


class Job:
    """A job of a batch script, with the options of its head and of sbatch's command line.

    `second` is how long a second of SLURM's takes. Of an array job it is the first task, and as one
    task of every array does it has the array's own number.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        folder: Path,
        second: float = 1.0,
        **options: Any,
    ) -> None:
        head = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", script.read_text(), re.MULTILINE)
        self.options = dict(head) | {
            name.replace("_", "-"): str(value) for name, value in options.items()
        }
        self.folder, self.arguments, self.second = folder, arguments, second
        self.number, self.restarts = free_number(), 0
        self.task = self.options["array"].partition("-")[0] if "array" in self.options else ""
        known = {"%x": self.options["job-name"], "%j": self.number}
        known |= {"%A": self.number, "%a": self.task, "%%": "%"}
        pattern = self.options["output"]
        self.log = folder / re.sub("%.", lambda match: str(known[match[0]]), pattern)
        self.copy = folder / "slurm_script"
        shutil.copy(script, self.copy)  # as sbatch does: the script is not where it was written
        for name in ("srun", "scontrol"):
            put_command(folder / name, sys.executable, __file__, name)

    def start(self) -> None:
        """Run the script, as at first or after it was requeued."""
        append = self.restarts and self.options.get("open-mode") == "append"
        with self.log.open("a" if append else "w") as log:
            self.shell = subprocess.Popen(
                ["bash", str(self.copy), *self.arguments],
                env=self.variables(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def variables(self) -> dict[str, str]:
        """What a batch script finds in its environment."""
        nodes = int(self.options["nodes"])
        each = int(self.options.get("ntasks-per-node") or int(self.options["ntasks"]) // nodes)
        names = NODES.format(nodes=nodes)
        slurm = {
            "JOB_ID": self.number,
            "JOB_NAME": self.options["job-name"],
            "JOB_NUM_NODES": nodes,
            "NNODES": nodes,
            "JOB_NODELIST": names,
            "NODELIST": names,
            "NTASKS": nodes * each,
            "NTASKS_PER_NODE": each,
            "TASKS_PER_NODE": f"{each}(x{nodes})",
            "CPUS_PER_TASK": self.options["cpus-per-task"],
            "SUBMIT_DIR": self.folder,
            "PROCID": 0,
            "LOCALID": 0,
            "NODEID": 0,
            "STEP_ID": -5,
        }
        if self.task:
            slurm |= {"ARRAY_JOB_ID": self.number, "ARRAY_TASK_ID": self.task}
        if self.restarts:
            slurm["RESTART_COUNT"] = self.restarts
        variables = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        fake = {"FAKE_SLURM": str(self.folder), "FAKE_SECOND": str(self.second)}
        path = f"{self.folder}:{os.environ['PATH']}"
        others = ("SLURM_", "OMP_", "WANDB_")
        left = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return left | variables | {"PATH": path, **fake}

    def tasks(self) -> list[int]:
        """The process ids of the newest step."""
        steps = sorted(self.folder.glob("step.*"), key=lambda file: int(file.suffix[1:]))
        return [int(pid) for pid in steps[-1].read_text().split()] if steps else []

    def near_the_limit(self) -> None:
        """Send the signal of --signal, to the steps alone: the ranks, not the shell nor srun.

        With B: to the shell alone, and no child of it.
        """
        name = self.options["signal"].partition("@")[0]
        number = getattr(signal, f"SIG{name.removeprefix('B:')}")
        if name.startswith("B:"):
            self.shell.send_signal(number)
        else:
            self.signal_tasks(number)

    def end(self) -> None:
        """Begin to take the nodes away, for preemption or scancel: SIGTERM to steps and shell.

        As SLURM is set up by default, with cgroups, the shell's children hear nothing: not srun.
        """
        self.signal_tasks(signal.SIGTERM)
        self.shell.send_signal(signal.SIGTERM)

    def signal_tasks(self, number: int) -> None:
        for pid in self.tasks():
            os.kill(pid, number)

    def requeued(self) -> bool:
        """Whether the script has put the job back into the queue, which it may with --requeue.

        A task of an array by its own number: by the array's all of them come back.
        """
        file = self.folder / "requeued"
        asked = file.read_text().split() if file.exists() else []
        name = f"{self.number}_{self.task}" if self.task else str(self.number)
        assert asked in ([], [name])
        file.unlink(missing_ok=True)
        return bool(asked) and "requeue" in self.options

    def wait(self, seconds: float = 120) -> int:
        return self.shell.wait(seconds)


def put_command(file: Path, *words: str) -> None:
    """Make a command of that name which runs other words."""
    file.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    file.chmod(0o755)


def free_number() -> int:
    """A job's number whose port is free: ranks meet at one that follows from it."""
    while True:
        number = random.randrange(1000000, 9999999)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", 15000 + number % 10000))
            except OSError:
                continue
        return number


def srun(*words: str) -> int:
    """Run a step's tasks; the highest signal that one died of, or else the highest exit code."""
    folder, count = Path(os.environ["FAKE_SLURM"]), int(os.environ["SLURM_NTASKS"])
    second = float(os.environ["FAKE_SECOND"])
    options, command = read_options(words)
    step = len(list(folder.glob("step.*")))
    tasks = [
        subprocess.Popen(command, env=task_variables(rank, step), start_new_session=True)
        for rank in range(count)
    ]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: forward(tasks, number))
    partial = folder / ".step.partial"
    partial.write_text(" ".join(str(task.pid) for task in tasks))
    partial.rename(folder / f"step.{step}")
    ends = math.inf
    while None in (codes := [task.poll() for task in tasks]):
        now = time.monotonic()
        if options["kill-on-bad-exit"] and any(codes):
            if ends == math.inf:
                signal_all(tasks, signal.SIGTERM)
            ends = min(ends, now + KILL_WAIT * second)
        elif options["wait"] and any(code is not None for code in codes):
            ends = min(ends, now + options["wait"] * second)
        if now > ends:
            signal_all(tasks, signal.SIGKILL)
        time.sleep(LOOK)
    return 128 - min(codes) if min(codes) < 0 else max(codes)


def read_options(words: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """srun's options and its command."""
    options, rest = {"kill-on-bad-exit": 0, "wait": 0}, list(words)
    while rest[0].startswith("--"):
        name, _, value = rest.pop(0)[2:].partition("=")
        if name not in options:
            sys.exit(f"srun: unrecognized option '--{name}'")
        options[name] = int(value)
    return options, rest


def forward(tasks: Sequence[Task], number: int) -> None:
    """What srun does with a signal of its own: what would end it ends the tasks at once."""
    deadly = number in (signal.SIGTERM, signal.SIGHUP)
    signal_all(tasks, signal.SIGKILL if deadly else number)


def signal_all(tasks: Sequence[Task], number: int) -> None:
    for task in tasks:
        if task.poll() is None:
            task.send_signal(number)


def task_variables(rank: int, step: int) -> dict[str, str]:
    """What a task finds in its environment."""
    environment = dict(os.environ)
    each = int(environment["SLURM_NTASKS_PER_NODE"])
    slurm = {
        "STEP_ID": step,
        "STEPID": step,
        "STEP_NODELIST": environment["SLURM_JOB_NODELIST"],
        "STEP_NUM_NODES": environment["SLURM_NNODES"],
        "STEP_NUM_TASKS": environment["SLURM_NTASKS"],
        "STEP_TASKS_PER_NODE": environment["SLURM_TASKS_PER_NODE"],
        "PROCID": rank,
        "LOCALID": rank % each,
        "NODEID": rank // each,
    }
    return environment | {f"SLURM_{name}": str(value) for name, value in slurm.items()}


def scontrol(*words: str) -> int:
    """`scontrol requeue JOB`."""
    what, job = words
    assert what == "requeue"
    with (Path(os.environ["FAKE_SLURM"]) / "requeued").open("a") as file:
        file.write(f"{job}\n")
    return 0


if __name__ == "__main__":
    sys.exit({"srun": srun, "scontrol": scontrol}[sys.argv[1]](*sys.argv[2:]))
