"""Start the ranks of a run on this machine, wait for them, and report the cause of a failure.

The parent only waits: it passes signals on, prints the output of ranks other than 0, marked by
their rank, and names the cause of a failure first when all have ended. Every rank leads a session,
so that Ctrl-C in a terminal reaches the parent alone, and the rest of a rank's process group ends
with the rank. The parent alone holds a named pipe open for writing: ranks read it, and so learn of
the parent's death however it died, also where torchrun stands between.

Only the standard library is imported at the top, so that the launcher starts at once.
"""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import IO, TYPE_CHECKING

from mic.distributed.environment import in_slurm
from mic.distributed.failures import (
    STOPPED,
    FailureReport,
    RankExit,
    explain,
    failed,
    read_reports,
)
from mic.errors import InputError, Preempted, RunError

if TYPE_CHECKING:
    from mic.config.schema import Config

GRACE = 15.0  # seconds that ranks get to end after another rank failed, and again after SIGTERM
STOPPING = 300.0  # seconds that ranks get after another one has stopped: rank 0 has logs to send
LAST = 60.0  # seconds that a rank has to end after its parent's death
POLL = 0.05  # seconds between two looks at the ranks
FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass
class Rank:
    """A process of the run, the signals that the launcher sent it, and how it ended."""

    number: int
    process: subprocess.Popen[bytes]
    reader: threading.Thread | None = None
    sent: set[int] = field(default_factory=set)
    ended: RankExit | None = None


def starts_ranks(config: "Config") -> bool:
    """Whether this process has to start the ranks: neither torchrun nor srun has done it."""
    return config.trainer.devices > 1 and "RANK" not in os.environ and not in_slurm()


def start_ranks(config: "Config", overwrite: bool, allow_change: Sequence[str]) -> None:
    """Run `trainer.devices` ranks to their end.

    Raises InputError or RunError with the cause when a rank failed, and Preempted when all were
    asked to stop.
    """
    from mic.config.loading import to_yaml

    refuse_batch(config)
    watch_parent()
    with TemporaryDirectory(prefix="mic-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        options = [f"--allow-change={key}" for key in allow_change]
        options += ["--overwrite"] if overwrite else []
        command = [sys.executable, "-m", "mic.cli", "train", str(file), *options]
        if launch(command, config.trainer.devices):
            stopped = Preempted("stopped")
            stopped.reported = True  # by rank 0
            raise stopped


def refuse_batch(config: "Config", ranks: int | None = None) -> None:
    """Raise an InputError for a batch that cannot be split over the ranks."""
    ranks = ranks or config.trainer.devices
    batch_size, tokens = config.trainer.batch_size, config.trainer.batch_tokens
    if config.trainer.strategy == "fsdp" and (tokens is not None or batch_size % ranks):
        below, above = batch_size - batch_size % ranks, batch_size + -batch_size % ranks
        works = " or ".join(f"trainer.batch_size={size}" for size in (below, above) if size)
        raise InputError(
            f"trainer.strategy=fsdp: {ranks} ranks must have as many rows each; set {works} and no "
            "trainer.batch_tokens, or trainer.strategy=ddp"
        )
    if tokens is None and batch_size < ranks:
        raise InputError(
            f"trainer.batch_size={batch_size}: a row for each of {ranks} ranks at least; take "
            f"{batch_size} ranks or fewer, or trainer.batch_size={ranks}"
        )


def launch(command: Sequence[str], ranks: int) -> int:
    """Run `ranks` processes of a command: 0 when all ended well, 143 when they were stopped.

    Ranks that were stopped ended with 143 or by a signal that was passed on to them, and print why
    themselves. After a failure the others have GRACE seconds to end, then get SIGTERM, and SIGKILL
    after as long again. No process of a rank's group is left behind.

    Raises:
        InputError: The rank that caused the failure reported bad input.
        RunError: A rank failed; the first line names the cause, and its traceback follows when it
            is none of mic's own errors.
        OSError: The command cannot be started.
    """
    started: list[Rank] = []
    with (
        TemporaryDirectory(prefix="mic-ranks-") as folder,
        lifeline() as pipe,
        caught_signals() as signals,
    ):
        shared = common_environment(ranks) | {"MIC_LAUNCHED": pipe, "MIC_REPORTS": folder}
        try:
            for number in range(ranks):
                started.append(start_rank(command, number, shared))
            wait_for_ranks(started, signals, Path(folder))
        finally:
            for rank in started:
                end_rank(rank)
        reports = read_reports(Path(folder))
    return exit_code([rank.ended for rank in started if rank.ended], reports)


def common_environment(ranks: int) -> dict[str, str]:
    """The environment variables that all ranks have in common.

    TORCH_CPP_LOG_LEVEL silences PyTorch's warnings, with a stack of C++, about connections that
    another rank's death has closed: they would be printed before the cause.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    defaults = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // ranks)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    return {
        **defaults,
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def available_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def lifeline() -> Iterator[str]:
    """The path of a pipe that only this process has open for writing; its end closes the pipe."""
    with TemporaryDirectory(prefix="mic-life-") as folder:
        pipe = f"{folder}/pipe"
        os.mkfifo(pipe)
        fd = os.open(pipe, os.O_RDWR)  # for writing alone it would wait for a reader
        try:
            yield pipe
        finally:
            os.close(fd)


@contextlib.contextmanager
def caught_signals() -> Iterator[deque[int]]:
    """Collect signals instead of handling them; no signals outside the main thread."""
    received: deque[int] = deque()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, note) for number in FORWARDED}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_rank(command: Sequence[str], number: int, shared: Mapping[str, str]) -> Rank:
    """Start one rank; the output of all but rank 0 goes through this process."""
    process = subprocess.Popen(
        command,
        env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if number else None,
        stderr=subprocess.STDOUT if number else None,
        start_new_session=True,
    )
    rank = Rank(number, process)
    if process.stdout:
        rank.reader = threading.Thread(
            target=relay_output, args=(process.stdout, number), daemon=True
        )
        rank.reader.start()
    return rank


def relay_output(stream: IO[bytes], number: int) -> None:
    """Write a rank's lines to standard error; read on when that is closed, lest the rank block."""
    for line in stream:
        text = line.decode(errors="replace").rstrip("\r\n")
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"rank {number}: {text}\n")
            sys.stderr.flush()


def wait_for_ranks(ranks: Sequence[Rank], signals: deque[int], folder: Path) -> None:
    """Wait until all ranks have ended; end those that take too long after another has ended.

    Python handles no signal while a rank waits in C++ for one that is gone: SIGKILL follows.
    """
    deadline = math.inf
    while alive := [rank for rank in ranks if is_running(rank)]:
        while signals:
            send_signal(alive, signals.popleft())
        now = time.monotonic()
        exits = [rank.ended for rank in ranks if rank.ended]
        deadline = min(deadline, now + patience(exits, read_reports(folder)))
        if now > deadline + GRACE:
            send_signal(alive, signal.SIGKILL)
        elif now > deadline:
            send_signal([rank for rank in alive if signal.SIGTERM not in rank.sent], signal.SIGTERM)
        time.sleep(POLL)


def patience(exits: Sequence[RankExit], reports: Mapping[int, FailureReport]) -> float:
    """Seconds that the remaining ranks may run on, also those that hang after their own report.

    A rank that died of a signal that was passed on had not begun; one that ended with 143 did so
    when all ranks had agreed to stop.
    """
    if reports or failed(exits, reports) or any(end.killed_by_launcher for end in exits):
        return GRACE
    return STOPPING if any(end.code == STOPPED for end in exits) else math.inf


def is_running(rank: Rank) -> bool:
    """Whether a rank is running; when it has ended, end the rest of its process group."""
    if rank.ended is None and (code := rank.process.poll()) is not None:
        rank.ended = RankExit(rank.number, code, time.time(), frozenset(rank.sent))
        kill_rank_group(rank)
    return rank.ended is None


def send_signal(ranks: Sequence[Rank], number: int) -> None:
    """Send a signal to the ranks that are running; SIGKILL also to their process groups."""
    for rank in ranks:
        if is_running(rank):
            rank.sent.add(number)
            rank.process.send_signal(number)
            if number == signal.SIGKILL:
                kill_rank_group(rank)


def end_rank(rank: Rank) -> None:
    """End a rank and its process group."""
    send_signal([rank], signal.SIGKILL)
    rank.process.wait()
    is_running(rank)
    if rank.reader:  # a process that left the group may hold the other end
        rank.reader.join(timeout=5)


def kill_rank_group(rank: Rank) -> None:
    """Kill every process of a rank's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(rank.process.pid, signal.SIGKILL)


def exit_code(exits: Sequence[RankExit], reports: Mapping[int, FailureReport]) -> int:
    """The exit code of a run that went well or was stopped; raise the cause of a failure."""
    if failures := failed(exits, reports):
        raise explain(failures, reports, len(exits))
    if any(end.code == -signal.SIGINT for end in exits):  # before the rank could handle it
        raise RunError("stopped")
    return STOPPED if any(end.code for end in exits) else 0


def watch_parent() -> None:
    """In a rank: end when the parent has died, first by SIGTERM and after LAST seconds at once.

    Without a launcher as parent this does nothing.
    """
    with contextlib.suppress(OSError):
        fd = os.open(os.environ.get("MIC_LAUNCHED", ""), os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        threading.Thread(target=end_without_parent, args=(fd,), daemon=True).start()


def end_without_parent(fd: int) -> None:
    os.read(fd, 1)  # nobody writes: it returns when the last write end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST)
    os._exit(STOPPED)
