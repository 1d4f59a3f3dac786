"""A run's processes, from its launcher to its loaders' workers, begun, killed and seen off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from plan import Blow

LOOK = 0.2  # seconds between two looks at the processes
PATIENCE = 150.0  # seconds that they have to end, after the launcher has
LONGEST = 900.0  # seconds that a launcher may run
STUCK = 99  # the exit code of a launcher that has not ended by itself
PLACES = Path(__file__).parent / "places"


class Process(NamedTuple):
    pid: int
    parent: int
    group: int


class End(NamedTuple):
    """How a run's processes ended: when the blow came and how long after it all were gone."""

    code: int
    struck: float | None
    seconds: float
    orphans: int


class Life:
    """`mic train` as a user starts it, in a session of its own."""

    def __init__(self, arguments: Sequence[str], log: Path, place: str = "") -> None:
        self.struck = log.with_suffix(".struck")
        self.struck.unlink(missing_ok=True)
        environment = {**os.environ, "TORTURE_PLACE": place, "TORTURE_STRUCK": str(self.struck)}
        path = [str(PLACES), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        self.begun = time.time()
        with log.open("ab") as stream:
            self.launcher = subprocess.Popen(
                [sys.executable, "-m", "mic.cli", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.known = {self.launcher.pid}
        self.groups = {self.launcher.pid}

    @property
    def age(self) -> float:
        return time.time() - self.begun

    def look(self) -> list[Process]:
        """The processes that are there: the launcher's, theirs, and whoever is of their groups."""
        every = processes()
        found: list[Process] = []
        fresh = True
        while fresh:
            fresh = [
                one
                for one in every
                if one not in found
                and (one.pid in self.known or one.parent in self.known or one.group in self.groups)
            ]
            found += fresh
            self.known |= {one.pid for one in fresh}
            self.groups |= {one.group for one in fresh}
        self.known = {self.launcher.pid, *(one.pid for one in found)}  # numbers are used again
        return found

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, also when we are stopped ourselves."""
        for one in self.look():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        self.launcher.wait()

    def ranks(self) -> list[int]:
        """The ranks' process ids; the launcher starts them in their order."""
        own = [one for one in self.look() if one.parent == self.launcher.pid]
        return sorted(one.pid for one in own if one.group == one.pid)

    def strike(self, blow: Blow, seconds: float) -> float | None:
        """Wait and send the signal; when it came, or None for a run that had ended before."""
        if blow.place:
            self.wait()
            return float(self.struck.read_text()) - self.begun if self.struck.exists() else None
        while self.age < seconds or len(self.ranks()) < 2:
            if self.launcher.poll() is not None:
                return None
            time.sleep(LOOK)
        struck = self.age
        self.send(blow)
        if blow.again:
            time.sleep(blow.again)
            self.send(blow)
        return struck

    def send(self, blow: Blow) -> None:
        ranks = self.ranks()
        whom = {
            "launcher": [self.launcher.pid],
            "all ranks": ranks,
            **{f"rank {number}": [rank] for number, rank in enumerate(ranks)},
        }
        for pid in whom.get(blow.whom, ()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.Signals[blow.by])

    def end(self, struck: float | None = None) -> End:
        """Wait until all have ended."""
        self.wait()
        limit = self.age + PATIENCE
        while left := [one for one in self.look() if one.pid != self.launcher.pid]:
            if self.age > limit:
                break
            time.sleep(LOOK)
        code = self.launcher.poll()
        seconds = self.age - (struck or 0.0)
        return End(STUCK if code is None else code, struck, seconds, len(left))

    def wait(self) -> None:
        """Wait for the launcher."""
        while self.launcher.poll() is None and self.age < LONGEST:
            self.look()
            time.sleep(LOOK)


def processes() -> list[Process]:
    """All that run on this machine; one that has ended and that nobody waits for does not."""
    shown = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in shown.stdout.splitlines()]
    return [
        Process(int(pid), int(parent), int(group))
        for pid, parent, group, state in rows
        if not state.startswith("Z")
    ]
