"""Find out why a run of several ranks failed: every rank reports its error, one is the cause.

One rank's failure makes the others fail too, often before it has ended itself. Their errors only
say that another rank is gone, and are never the cause.
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
# the errors of gloo and NCCL when another rank is gone
GONE = re.compile(
    r"gloo/transport/|Connection (closed|reset|refused)|Broken pipe|Socket closed"
    r"|NCCL communicator was aborted"
)


class RankLostError(RunError):
    """Another rank has died without a report."""


class RankExit(NamedTuple):
    """How a rank ended: its exit code, the time, and the signals that the launcher sent it."""

    rank: int
    code: int
    time: float
    sent: frozenset[int] = frozenset()

    @property
    def killed_by_launcher(self) -> bool:
        """Whether it died of a signal that the launcher sent."""
        return -self.code in self.sent

    @property
    def killed(self) -> int:
        """The signal that killed it, unless the launcher sent it; 0 if none."""
        return 0 if self.code >= 0 or self.killed_by_launcher else -self.code


@dataclass(frozen=True)
class FailureReport:
    """A rank's own failure; `traceback` is empty for mic's own errors, `lost` as `lost_rank`."""

    rank: int
    time: float
    kind: str
    message: str
    code: int
    traceback: str
    lost: bool


def report_failure(error: BaseException, code: int) -> bool:
    """In a rank: write why it ends, for the launcher. False when the rank has to print it itself.

    That is where no launcher reads it, and, of a stop, which is no failure, on rank 0.
    """
    folder, rank = os.environ.get("MIC_REPORTS"), os.environ.get("RANK")
    if not folder or not rank:
        return False
    if code == STOPPED:
        return rank != "0"
    report = FailureReport(
        rank=int(rank),
        time=time.time(),
        kind=type(error).__name__,
        message=str(error),
        code=code,
        traceback="" if mic_error_kind(error) else "".join(traceback.format_exception(error)),
        lost=lost_rank(error),
    )
    try:
        write_text(Path(folder, f"{rank}.json"), json.dumps(asdict(report)))
    except OSError:  # the launcher is gone, and its folder with it
        return False
    return True


def read_reports(folder: Path) -> dict[int, FailureReport]:
    """The reports by rank."""
    reports = [FailureReport(**json.loads(file.read_bytes())) for file in folder.glob("*.json")]
    return {report.rank: report for report in reports}


def mic_error_kind(error: BaseException) -> str | None:
    """The name of the class in mic.errors that an error is an instance of; None for others.

    >>> mic_error_kind(InputError("dims: none")), mic_error_kind(ValueError("boom"))
    ('InputError', None)
    """
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == InputError.__module__)
    return next((kind.__name__ for kind in kinds), None)


def lost_rank(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone, or repeats another rank's error.

    >>> lost_rank(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
    True
    >>> lost_rank(ConnectionResetError("Connection reset by peer"))  # not from another rank
    False
    """
    if isinstance(error, RankLostError) or getattr(error, "reported", False):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    gone = "DistError" in names or (type(error) is RuntimeError and GONE.search(str(error)))
    return bool(gone) or (error.__cause__ is not None and lost_rank(error.__cause__))


def failed(exits: Sequence[RankExit], reports: Mapping[int, FailureReport]) -> list[RankExit]:
    """The ranks that failed: those that neither finished nor stopped, and were not made to end.

    A signal does not reach Python in a collective: there a rank only learns that another one, which
    has stopped, is gone. That is no failure.
    """
    stop = any(end.code == STOPPED or end.killed_by_launcher for end in exits)
    return [
        end
        for end in exits
        if end.code not in (0, STOPPED)
        and not (end.killed_by_launcher and end.rank not in reports)
        and not (stop and end.sent and end.rank in reports and reports[end.rank].lost)
    ]


def explain(
    failures: Sequence[RankExit], reports: Mapping[int, FailureReport], ranks: int
) -> Exception:
    """The error to raise for a run of `ranks` ranks; its first line names the cause."""
    cause = min(failures, key=lambda end: precedence(end, reports.get(end.rank)))
    report = reports.get(cause.rank)
    if report is None:
        return RunError(f"rank {cause.rank} {describe_exit(cause)}")
    if report.code == BAD_INPUT:
        return InputError(report.message)
    prefix = f"rank {report.rank}: "
    if not report.traceback:
        messages = {each.message for each in reports.values()}
        everyone = len(reports) == ranks and len(messages) == 1
        return RunError(report.message if everyone else prefix + report.message)
    first_line = f"{report.kind}: {report.message}" if report.message else report.kind
    return RunError(f"{prefix}{first_line}\n{report.traceback.rstrip()}")


def precedence(end: RankExit, report: FailureReport | None) -> tuple[int, float]:
    """The order in which failures are taken for the cause; the least is.

    Killed from outside; an error of its own; an end without a report; an error that another rank is
    gone. An abort is how NCCL's watchdog ends a rank that waits for one that is gone.
    """
    if report is not None:
        return (3 if report.lost else 1), report.time
    return (0 if end.killed not in (0, signal.SIGABRT) else 2), end.time


def describe_exit(end: RankExit) -> str:
    """How a rank without a report ended, for a message.

    >>> describe_exit(RankExit(1, -9, 0.0)), describe_exit(RankExit(1, 3, 0.0))
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
