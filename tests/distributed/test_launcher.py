"""A run's ranks start, hear signals and end together; whoever failed first is named first."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mic.distributed.failures import FailureReport, RankExit, explain, failed, report_failure
from mic.distributed.launcher import exit_code, launch, watch_parent
from mic.errors import InputError, RunError

SCRIPT = Path(__file__).parents[1] / "helpers" / "launched.py"
Start = Callable[[str], subprocess.Popen[str]]
LIMIT = 300.0  # seconds until a test that hangs is given up; less than launched.FOREVER


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a mode of launched.py."""
    started: list[subprocess.Popen[str]] = []

    def begin(mode: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), mode, str(tmp_path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "RANK"},
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """A run's exit code and standard error."""
    _, text = process.communicate(timeout=LIMIT)
    return process.returncode, text


def pids_in(*files: Path, parent: subprocess.Popen[str] | None = None) -> list[int]:
    """The process ids in files; while a parent runs, wait until they are there."""
    while not all(file.exists() for file in files) and parent and parent.poll() is None:
        time.sleep(0.01)
    return [int(file.read_text()) for file in files]


def gone(pids: Sequence[int]) -> bool:
    """Whether processes end. One that has ended and that nobody waits for counts as gone."""
    limit = time.monotonic() + LIMIT
    while any(runs(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.02)
    return not any(runs(pid) for pid in pids)


def runs(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize(
    ("codes", "expected", "text"),
    [
        ("0,0", 0, ""),
        ("143,143", 143, ""),
        ("0,143", 143, ""),
        ("0,3", 1, "mic: error: rank 1 ended with code 3\n"),
        ("4,3", 1, "mic: error: rank 1 ended with code 3\n"),
        ("4,143", 1, "mic: error: rank 0 ended with code 4\n"),
    ],
)
def test_exit_code(start, codes, expected, text):
    assert ended(start(f"codes,{codes}")) == (expected, text)


def test_a_traceback_follows_the_cause(start):
    code, text = ended(start("fails,value,waits"))
    first, *rest = text.splitlines()
    assert (code, first) == (1, "mic: error: rank 1: ValueError: boom")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: boom"


@pytest.mark.parametrize(
    ("mode", "expected", "text"),
    [
        ("input,lost", 2, "mic: error: boom\n"),
        ("run,lost", 1, "mic: error: rank 1: boom\n"),
        ("run,same", 1, "mic: error: boom\n"),
    ],
)
def test_the_cause_is_not_who_lost_another(start, mode, expected, text):
    assert ended(start(f"fails,{mode}")) == (expected, text)


def test_a_killed_rank_ends_the_run(start, tmp_path):
    code, text = ended(start("killed,9"))
    assert (code, text) == (
        1,
        "mic: error: rank 1 was killed by signal 9 (SIGKILL; out of memory?)\n",
    )
    assert gone(pids_in(tmp_path / "0.pid"))


def test_who_ignores_sigterm_is_killed(start, tmp_path):
    code, text = ended(start("fails,run,deaf"))
    assert (code, text) == (1, "mic: error: rank 1: boom\n")
    assert gone(pids_in(tmp_path / "0.pid"))


@pytest.mark.parametrize(
    "signals",
    [["SIGTERM", "SIGINT"], ["SIGUSR1", "SIGINT"], ["SIGINT", "SIGINT"]],
    ids=" ".join,
)
def test_signals_are_passed_on_once_each(start, tmp_path, signals):
    """The last one shows that the one before it did not come twice."""
    parent = start(f"hears,{len(signals)}")
    pids_in(tmp_path / "0.pid", tmp_path / "1.pid", parent=parent)
    for number, name in enumerate(signals, 1):
        parent.send_signal(signal.Signals[name])
        pids_in(*(tmp_path / f"{rank}.heard.{number}" for rank in (0, 1)), parent=parent)
    assert ended(parent) == (143, "")
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.signals").read_text().split() == signals


def test_a_signal_before_ranks_listen_stops_them(start, tmp_path):
    parent = start("killed,0")
    pids_in(tmp_path / "0.pid", tmp_path / "1.pid", parent=parent)
    parent.send_signal(signal.SIGTERM)
    assert ended(parent) == (143, "")


@pytest.mark.parametrize("mode", ["orphans", "orphans,deaf"])
def test_ranks_end_with_their_parent(start, tmp_path, mode):
    """Also those that ignore SIGTERM, and although children of theirs hold the pipe."""
    parent = start(mode)
    children = pids_in(tmp_path / "0.child", tmp_path / "1.child", parent=parent)
    ranks = pids_in(tmp_path / "0.pid", tmp_path / "1.pid", parent=parent)
    parent.kill()
    try:
        assert gone(ranks)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_nothing_is_left_of_a_rank_that_ended(start, tmp_path):
    assert ended(start("leaves")) == (0, "")
    assert gone(pids_in(tmp_path / "0.pid", tmp_path / "1.pid"))


def test_ranks_speak_with_a_mark(start, tmp_path):
    parent = start("speaks")
    out, err = parent.communicate(timeout=LIMIT)
    assert out == "out of 0\n"
    lines = err.replace("no line's endrank", "no line's end\nrank").splitlines()
    assert [line for line in lines if line.startswith("rank 1: ")] == [
        "rank 1: out of 1",
        "rank 1: err of 1",
        "rank 1: no line's end",
    ]
    assert "err of 0" in lines
    assert (tmp_path / "1.environment").read_text() == "1 2 1 2 127.0.0.1"
    sessions = {*pids_in(tmp_path / "0.pid", tmp_path / "1.pid"), os.getsid(0)}
    assert len(sessions) == 3  # a terminal's Ctrl-C reaches the parent alone


def test_a_command_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        launch(["no-such-command"], 2)


def test_outside_of_a_launched_rank_there_is_nobody_to_tell(monkeypatch):
    monkeypatch.delenv("MIC_REPORTS", raising=False)
    monkeypatch.setenv("RANK", "0")
    assert not report_failure(ValueError("boom"), 1)
    monkeypatch.setenv("MIC_REPORTS", "/no/such/folder")
    assert not report_failure(ValueError("boom"), 1)


def test_another_file_under_the_pipes_number_is_not_the_parent(monkeypatch):
    """A subprocess of a rank inherits the variable, not the pipe."""
    read, write = os.pipe()
    monkeypatch.setenv("MIC_LAUNCHED", f"{read}:1")
    os.close(write)
    threads = threading.active_count()
    watch_parent()  # a thread that reads the pipe would end this process
    assert threading.active_count() == threads
    os.close(read)


SENT = frozenset({signal.SIGTERM})


def boom(rank: int, time: float, text: str = "boom", *, lost: bool = False) -> FailureReport:
    return FailureReport(rank, time, "RunError", text, 1, "", lost)


@pytest.mark.parametrize(
    ("ends", "reports", "expected"),
    [
        # somebody else's SIGKILL before an error that is not known as its consequence
        ([RankExit(0, 1, 1.0), RankExit(1, -9, 2.0)], [boom(0, 1.0)], "rank 1 was killed"),
        # our own SIGKILL is no cause
        (
            [RankExit(0, 1, 1.0), RankExit(1, -9, 2.0, frozenset({9}))],
            [boom(0, 1.0)],
            "rank 0: boom",
        ),
        # a watchdog's abort follows an error, and precedes the loss of a rank
        ([RankExit(0, -6, 1.0), RankExit(1, 1, 2.0)], [boom(1, 2.0)], "rank 1: boom"),
        (
            [RankExit(0, -6, 2.0), RankExit(1, 1, 1.0)],
            [boom(1, 1.0, lost=True)],
            "rank 0 was killed",
        ),
        # a crash after the report
        (
            [RankExit(0, -11, 2.0), RankExit(1, 1, 3.0)],
            [boom(0, 1.0), boom(1, 3.0)],
            "boom",
        ),
        (
            [RankExit(0, 1, 2.0), RankExit(1, 1, 3.0)],
            [boom(0, 2.0, "b"), boom(1, 1.0, "a")],
            "rank 1: a",
        ),
        (
            [RankExit(0, 7, 2.0), RankExit(1, 1, 1.0)],
            [boom(1, 1.0, lost=True)],
            "rank 0 ended with code 7",
        ),
        (
            [RankExit(0, 143, 2.0), RankExit(1, 1, 1.0)],
            [boom(1, 1.0, lost=True)],
            "rank 1: boom",
        ),
        ([RankExit(0, 143, 2.0), RankExit(1, 1, 1.0, SENT)], [boom(1, 1.0)], "rank 1: boom"),
    ],
)
def test_cause(ends, reports, expected):
    by_rank = {report.rank: report for report in reports}
    assert str(explain(failed(ends, by_rank), by_rank, len(ends))).startswith(expected)


def test_bad_input_keeps_its_kind():
    report = FailureReport(0, 1.0, "InputError", "dims: none", 2, "", False)
    with pytest.raises(InputError, match=r"^dims: none$"):
        exit_code([RankExit(0, 2, 1.0), RankExit(1, 0, 1.0)], {0: report})


def test_ctrl_c_before_ranks_listen():
    stopped = RankExit(0, -signal.SIGINT, 1.0, frozenset({signal.SIGINT}))
    with pytest.raises(RunError, match=r"^stopped$"):
        exit_code([stopped], {})


def test_a_rank_that_lost_a_stopped_one_was_stopped():
    """In a collective Python handles no signal, and only learns that the other rank has ended."""
    ends = [RankExit(0, 143, 1.0, SENT), RankExit(1, 1, 2.0, SENT)]
    assert exit_code(ends, {1: boom(1, 2.0, lost=True)}) == 143


def test_of_a_stop_rank_0_speaks(monkeypatch, tmp_path):
    monkeypatch.setenv("MIC_REPORTS", str(tmp_path))
    for rank, silent in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        assert report_failure(RunError("stopped"), 143) == silent
    assert not list(tmp_path.iterdir())
