"""Whether a worker is alive: by its process where that can be seen, else by its signs of life.

No two machines' clocks are compared: a worker elsewhere is gone when whoever watches has seen no
new sign of it for LEASE seconds. Its trial has ended by then, for it ends with its worker.
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
from mic.sweep.queue.state import Attempt, Setting
from mic.sweep.queue.storage import TROUBLE, away

BEAT = 15.0  # seconds between two signs of life
LEASE = 120.0  # seconds without any after which a worker elsewhere is gone: above BEAT + LAST


class Life(NamedTuple):
    """Who a worker is: where processes see each other, how it is called, and its process."""

    place: str
    name: str
    process: str


def own() -> Life:
    """This process's."""
    host, pid = socket.gethostname(), os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [host, boot.read_text().strip() if boot.is_file() else ""]
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))  # a container's own numbers
    return Life("/".join(parts), f"{host}:{pid}", identity(pid))


def identity(pid: int) -> str:
    """A process's number, and when it began: numbers are used again."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return f"{pid}:{began}"


def alive(process: str) -> bool:
    """Whether a process of this place is running; one that waits to be reaped is not.

    >>> alive(identity(os.getpid())), alive(f"{os.getpid()}:1"), alive("")
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


class Signs:
    """The signs of life that a worker gives while it is at a run.

    `give` sends one, with its number, and says whether the run is still the worker's.
    """

    def __init__(self, give: Callable[[int], bool]) -> None:
        self.give = give
        self.count = 0
        self.tried = -math.inf
        self.heard = time.monotonic()

    def given(self) -> bool:
        """Give one when it is time; False when the run has been taken from this worker."""
        now = time.monotonic()
        if now - self.tried < BEAT:
            return True
        self.tried = now
        try:
            still_ours = self.give(self.count + 1)
        except TROUBLE as error:
            if not away(error):
                raise
            return True
        self.count, self.heard = self.count + 1, now
        return still_ours

    @property
    def unheard(self) -> bool:
        """Whether others may soon take this worker for dead, since the storage is away."""
        return time.monotonic() - self.heard > LEASE - LAST - BEAT


class Watch:
    """What a worker has seen of the others, by its own clock."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.seen: dict[tuple[str, int], tuple[int, float]] = {}

    def gone(self, attempt: Attempt) -> bool:
        """Whether the worker of an attempt that has not ended is gone, and its trial with it."""
        if attempt.place != self.life.place:
            return self.silent(("attempt", attempt.number), attempt.beat, LEASE)
        if alive(attempt.worker_process):
            return False
        if not alive(attempt.process):
            return True
        if self.silent(("orphan", attempt.number), attempt.beat, LAST + BEAT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(attempt.process.partition(":")[0]), signal.SIGKILL)
        return False

    def abandoned(self, setting: Setting) -> bool:
        """Whether whoever drew a setting died before it could be begun."""
        return not setting.ready and self.silent(("setting", setting.number), 0, LEASE)

    def silent(self, key: tuple[str, int], beat: int, patience: float) -> bool:
        """Whether a count has stayed what it is for `patience` seconds."""
        now = time.monotonic()
        if key not in self.seen or self.seen[key][0] != beat:
            self.seen[key] = (beat, now)
        return now - self.seen[key][1] > patience
