"""Tell whether a worker is alive: by its process on the same machine, else by its heartbeats.

Clocks of two machines are never compared: a worker of another machine is gone when the watching
worker has seen no new heartbeat of it for LEASE seconds. Its trial has ended by then, as a trial
ends with its worker.
"""

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mic.distributed.launcher import LAST
from mic.sweep.queue.state import Attempt, QueuedSetting
from mic.sweep.queue.storage import STORAGE_ERRORS, is_away

BEAT = 15.0  # seconds between two heartbeats
# seconds without a heartbeat after which a worker of another machine is gone: above BEAT + LAST
LEASE = 120.0


class WorkerId(NamedTuple):
    """A worker: `place` is where processes see each other, `name` is for people."""

    place: str
    name: str
    process: str


def this_worker() -> WorkerId:
    """The identity of this process."""
    host, pid = socket.gethostname(), os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id")
    place = [host, boot.read_text().strip() if boot.is_file() else ""]
    with contextlib.suppress(OSError):
        place.append(str(Path("/proc/self/ns/pid").stat().st_ino))  # a container has its own pids
    return WorkerId("/".join(place), f"{host}:{pid}", process_identity(pid))


def process_identity(pid: int) -> str:
    """A process's id and when it began, as ids are used again: `PID:START`."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return f"{pid}:{began}"


def is_alive(process: str) -> bool:
    """Whether a process of this place is running; a zombie is not.

    >>> is_alive(process_identity(os.getpid())), is_alive(f"{os.getpid()}:1"), is_alive("")
    (True, False, False)
    """
    pid, _, began = process.partition(":")
    if not pid:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not began:
        return True
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[19] == began and fields[0] not in "ZX"
    return False


class Heartbeat:
    """The heartbeats that a worker sends while it trains a trial.

    `send` stores one, with its number, and returns whether the trial is still this worker's.
    """

    def __init__(self, send: Callable[[int], bool]) -> None:
        self.send = send
        self.count = 0
        self.last_try = -math.inf
        self.last_stored = time.monotonic()

    def send_if_due(self) -> bool:
        """Send one every BEAT seconds; False when the trial has been taken from this worker."""
        now = time.monotonic()
        if now - self.last_try < BEAT:
            return True
        self.last_try = now
        try:
            still_ours = self.send(self.count + 1)
        except STORAGE_ERRORS as error:
            if not is_away(error):
                raise
            return True
        self.count, self.last_stored = self.count + 1, now
        return still_ours

    @property
    def overdue(self) -> bool:
        """Whether others may soon take this worker for dead, as the storage is away."""
        return time.monotonic() - self.last_stored > LEASE - LAST - BEAT


class LivenessWatch:
    """What a worker has seen of other workers' heartbeats, by its own clock."""

    def __init__(self, worker_id: WorkerId) -> None:
        self.worker_id = worker_id
        self.seen: dict[tuple[str, int], tuple[int, float]] = {}

    def is_gone(self, attempt: Attempt) -> bool:
        """Whether the worker of an attempt that has not ended is gone, and its trial with it."""
        if attempt.place != self.worker_id.place:
            return self.is_silent(("attempt", attempt.number), attempt.beat, LEASE)
        if is_alive(attempt.worker_process):
            return False
        if not is_alive(attempt.process):
            return True
        if self.is_silent(("orphan", attempt.number), attempt.beat, LAST + BEAT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(attempt.process.partition(":")[0]), signal.SIGKILL)
        return False

    def is_abandoned(self, setting: QueuedSetting) -> bool:
        """Whether the worker that drew a setting died before it had stored it whole."""
        return not setting.ready and self.is_silent(("setting", setting.number), 0, LEASE)

    def is_silent(self, key: tuple[str, int], beat: int, patience: float) -> bool:
        """Whether a count has not changed for `patience` seconds."""
        now = time.monotonic()
        if key not in self.seen or self.seen[key][0] != beat:
            self.seen[key] = (beat, now)
        return now - self.seen[key][1] > patience
