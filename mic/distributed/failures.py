"""Why a run of several ranks failed: what every rank reports, and which of them is the cause.

One rank's failure makes the others fail in its wake, often sooner than it has ended itself. Those
say only that they lost somebody, and are the cause of nothing.
"""

import json
import os
import re
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from mic.errors import InputError, RunError
from mic.files import write_text

STOPPED = 143  # the exit code of a run that was asked to stop
BAD_INPUT = 2
# what gloo and NCCL say of a peer that is gone
GONE = re.compile(
    r"gloo/transport/|Connection (closed|reset|refused)|Broken pipe|Socket closed"
    r"|NCCL communicator was aborted"
)


class RankLostError(RunError):
    """Another rank has died, and so could say nothing."""


class Ended(NamedTuple):
    """How a rank ended: its exit code, when, and the signals that it had from its parent."""

    rank: int
    code: int
    time: float
    sent: frozenset[int] = frozenset()

    @property
    def swept(self) -> bool:
        """Whether it died of a signal of its parent's."""
        return -self.code in self.sent

    @property
    def killed(self) -> int:
        """The signal of somebody else that killed it; 0 if none."""
        return 0 if self.code >= 0 or self.swept else -self.code


@dataclass(frozen=True)
class Report:
    """What a rank says of its own failure; mic's own errors need no traceback."""

    rank: int
    time: float
    kind: str
    message: str
    code: int
    traceback: str
    lost: bool


def report(error: BaseException, code: int) -> bool:
    """In a rank: tell the parent why it ends. False when it has to tell the user itself.

    That is where no parent reads it; and of a stop, which is no failure, rank 0 speaks for all.
    """
    folder, rank = os.environ.get("MIC_REPORTS"), os.environ.get("RANK")
    if not folder or not rank:
        return False
    if code == STOPPED:
        return rank != "0"
    found = Report(
        rank=int(rank),
        time=time.time(),
        kind=type(error).__name__,
        message=str(error),
        code=code,
        traceback="" if own_kind(error) else "".join(traceback.format_exception(error)),
        lost=lost(error),
    )
    try:
        write_text(Path(folder, f"{rank}.json"), json.dumps(asdict(found)))
    except OSError:  # the parent is gone, and its folder with it
        return False
    return True


def read_reports(folder: Path) -> dict[int, Report]:
    """The reports by rank."""
    found = [Report(**json.loads(file.read_bytes())) for file in folder.glob("*.json")]
    return {one.rank: one for one in found}


def own_kind(error: BaseException) -> str | None:
    """The error of mic.errors that an error is, whose text says all there is to say.

    >>> own_kind(InputError("dims: none")), own_kind(ValueError("boom"))
    ('InputError', None)
    """
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == InputError.__module__)
    return next((kind.__name__ for kind in kinds), None)


def lost(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone, or repeats what another one said.

    >>> lost(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
    True
    >>> lost(ConnectionResetError("Connection reset by peer"))  # not from another rank
    False
    """
    if isinstance(error, RankLostError) or getattr(error, "said", False):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    gone = "DistError" in names or (type(error) is RuntimeError and GONE.search(str(error)))
    return bool(gone) or (error.__cause__ is not None and lost(error.__cause__))


def failed(ends: Sequence[Ended], reports: Mapping[int, Report]) -> list[Ended]:
    """The ranks that failed: neither done nor stopped, nor swept away by their parent or the stop.

    A signal does not reach Python in a collective: the rank learns that another one has stopped.
    """
    stop = any(one.code == STOPPED or one.swept for one in ends)
    return [
        one
        for one in ends
        if one.code not in (0, STOPPED)
        and not (one.swept and one.rank not in reports)
        and not (stop and one.sent and one.rank in reports and reports[one.rank].lost)
    ]


def explain(failures: Sequence[Ended], reports: Mapping[int, Report], ranks: int) -> Exception:
    """The error to raise for a run of `ranks` ranks; its first line names the cause."""
    cause = min(failures, key=lambda one: precedence(one, reports.get(one.rank)))
    found = reports.get(cause.rank)
    if found is None:
        return RunError(f"rank {cause.rank} {how(cause)}")
    if found.code == BAD_INPUT:
        return InputError(found.message)
    said = f"rank {found.rank}: "
    if not found.traceback:
        everyone = len(reports) == ranks and len({one.message for one in reports.values()}) == 1
        return RunError(found.message if everyone else said + found.message)
    said += f"{found.kind}: {found.message}" if found.message else found.kind
    return RunError(f"{said}\n{found.traceback.rstrip()}")


def precedence(end: Ended, found: Report | None) -> tuple[int, float]:
    """Killed by somebody else, an error of its own, an end without a word, lost another rank.

    An abort is how NCCL's watchdog ends a rank that waits for one that is gone.
    """
    if found is not None:
        return (3 if found.lost else 1), found.time
    return (0 if end.killed not in (0, signal.SIGABRT) else 2), end.time


def how(end: Ended) -> str:
    """How a rank ended that said nothing.

    >>> how(Ended(1, -9, 0.0)), how(Ended(1, 3, 0.0))
    ('was killed by signal 9 (SIGKILL; out of memory?)', 'ended with code 3')
    """
    if not end.killed:
        return f"ended with code {end.code}"
    try:
        name = signal.Signals(end.killed).name
    except ValueError:  # a real-time signal
        name = "no name"
    hint = "; out of memory?" if end.killed == signal.SIGKILL else ""
    return f"was killed by signal {end.killed} ({name}{hint})"
