"""Start the ranks of a run on this machine, and see them to their end.

The parent only waits: it passes signals on, prints what ranks other than 0 write, marked by their
rank, and when all have ended says the cause of a failure before anything else. Every rank leads a
session, so that Ctrl-C in a terminal reaches the parent alone, and what is left of a rank's process
group ends with it. The parent alone holds a named pipe open: ranks read it, and so learn of the
parent's death however it died, also where torchrun stands between.

Nothing heavy is imported: the parent starts at once and stays small.
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
from typing import IO

from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.distributed.environment import in_slurm
from mic.distributed.failures import STOPPED, Ended, Report, explain, failed, read_reports, report
from mic.errors import InputError, Preempted, RunError

__all__ = ["launch", "report", "watch_parent"]

GRACE = 15.0  # seconds, first to end by oneself when another rank failed, then after SIGTERM
STOPPING = 300.0  # seconds to end by oneself when another rank was stopped: rank 0 has logs to send
LAST = 60.0  # seconds that a rank has to end after its parent's death
LOOK = 0.05  # seconds between two looks at the ranks
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass
class Rank:
    """A process of the run, the signals that it had from us, and how it ended."""

    number: int
    process: subprocess.Popen[bytes]
    reader: threading.Thread | None = None
    sent: set[int] = field(default_factory=set)
    ended: Ended | None = None


def starts_ranks(config: Config) -> bool:
    """Whether it is on this process to start the ranks: nobody else, as torchrun or srun, did."""
    return config.trainer.devices > 1 and "RANK" not in os.environ and not in_slurm()


def start_ranks(config: Config, overwrite: bool, allow_change: Sequence[str]) -> None:
    """Run `trainer.devices` ranks to their end.

    Raises InputError or RunError for the one that failed, whose cause is named first, and Preempted
    when all were asked to stop.
    """
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
            stopped.said = True  # by rank 0
            raise stopped


def refuse_batch(config: Config, ranks: int | None = None) -> None:
    """Raise an InputError for a batch that the ranks cannot share."""
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

    Ranks that were stopped ended with 143 or by a signal that was passed on to them; why is theirs
    to say. After a failure the others have GRACE seconds to end by themselves, then SIGTERM and as
    long again before SIGKILL. No process of a rank's group is left behind.

    Raises:
        InputError: The rank that caused the failure reported bad input.
        RunError: A rank failed; the first line names the cause, its traceback follows when it is
            an error that nobody expected.
        OSError: The command cannot be started.
    """
    started: list[Rank] = []
    with TemporaryDirectory(prefix="mic-ranks-") as folder, lifeline() as pipe, caught() as signals:
        shared = environment(ranks) | {"MIC_LAUNCHED": pipe, "MIC_REPORTS": folder}
        try:
            for number in range(ranks):
                started.append(start(command, number, shared))
            attend(started, signals, Path(folder))
        finally:
            for rank in started:
                end(rank)
        reports = read_reports(Path(folder))
    return outcome([rank.ended for rank in started if rank.ended], reports)


def environment(ranks: int) -> dict[str, str]:
    """What all ranks find in their environment.

    PyTorch's warnings about a connection that another rank's death has closed, with the stack of
    C++, would come before the cause.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    defaults = {
        "OMP_NUM_THREADS": str(max(1, cores() // ranks)),
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


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def lifeline() -> Iterator[str]:
    """The path of a pipe that only this process has open for writing, and closes when it ends."""
    with TemporaryDirectory(prefix="mic-life-") as folder:
        pipe = f"{folder}/pipe"
        os.mkfifo(pipe)
        fd = os.open(pipe, os.O_RDWR)  # for writing alone it would wait for a reader
        try:
            yield pipe
        finally:
            os.close(fd)


@contextlib.contextmanager
def caught() -> Iterator[deque[int]]:
    """The signals received within, instead of their handlers; none outside the main thread."""
    received: deque[int] = deque()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {one: signal.signal(one, note) for one in PASSED_ON}
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def start(command: Sequence[str], number: int, shared: Mapping[str, str]) -> Rank:
    """Start one rank; all but rank 0 speak through us."""
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
        rank.reader = threading.Thread(target=mark, args=(process.stdout, number), daemon=True)
        rank.reader.start()
    return rank


def mark(stream: IO[bytes], number: int) -> None:
    """Pass lines on to standard error; read on when nobody wants them, lest the rank block."""
    for line in stream:
        text = line.decode(errors="replace").rstrip("\r\n")
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"rank {number}: {text}\n")
            sys.stderr.flush()


def attend(ranks: Sequence[Rank], signals: deque[int], folder: Path) -> None:
    """Wait until all ranks have ended, with patience for those that outlive another.

    Python handles no signal while a rank waits in C++ for one that is gone.
    """
    deadline = math.inf
    while alive := [rank for rank in ranks if looks_alive(rank)]:
        while signals:
            send(alive, signals.popleft())
        now = time.monotonic()
        ends = [rank.ended for rank in ranks if rank.ended]
        deadline = min(deadline, now + patience(ends, read_reports(folder)))
        if now > deadline + GRACE:
            send(alive, signal.SIGKILL)
        elif now > deadline:
            send([rank for rank in alive if signal.SIGTERM not in rank.sent], signal.SIGTERM)
        time.sleep(LOOK)


def patience(ends: Sequence[Ended], reports: Mapping[int, Report]) -> float:
    """How long other ranks may go on, those that reported a failure and hang in their exit too.

    Whoever died of a signal that was passed on had not begun; one that ended with 143 had all ranks
    agree to stop.
    """
    if reports or failed(ends, reports) or any(one.swept for one in ends):
        return GRACE
    return STOPPING if any(one.code == STOPPED for one in ends) else math.inf


def looks_alive(rank: Rank) -> bool:
    """Whether a rank is running; when it has ended, so does what is left of its group."""
    if rank.ended is None and (code := rank.process.poll()) is not None:
        rank.ended = Ended(rank.number, code, time.time(), frozenset(rank.sent))
        kill_group(rank)
    return rank.ended is None


def send(ranks: Sequence[Rank], number: int) -> None:
    """Send a signal to the ranks that are running, SIGKILL to their groups as well."""
    for rank in ranks:
        if looks_alive(rank):
            rank.sent.add(number)
            rank.process.send_signal(number)
            if number == signal.SIGKILL:
                kill_group(rank)


def end(rank: Rank) -> None:
    """Leave nothing behind of a rank."""
    send([rank], signal.SIGKILL)
    rank.process.wait()
    looks_alive(rank)
    if rank.reader:  # a process that left the group may hold the other end
        rank.reader.join(timeout=5)


def kill_group(rank: Rank) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(rank.process.pid, signal.SIGKILL)


def outcome(ends: Sequence[Ended], reports: Mapping[int, Report]) -> int:
    """The exit code of a run that went well or was stopped; raise the cause of a failure."""
    if failures := failed(ends, reports):
        raise explain(failures, reports, len(ends))
    if any(one.code == -signal.SIGINT for one in ends):  # before the rank could handle it
        raise RunError("stopped")
    return STOPPED if any(one.code for one in ends) else 0


def watch_parent() -> None:
    """End when the process that holds our lifeline has died, by SIGTERM and at last without asking.

    Nothing where there is none.
    """
    with contextlib.suppress(OSError):
        fd = os.open(os.environ.get("MIC_LAUNCHED", ""), os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        threading.Thread(target=outlive, args=(fd,), daemon=True).start()


def outlive(fd: int) -> None:
    os.read(fd, 1)  # nobody writes: it returns when the last write end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST)
    os._exit(STOPPED)
