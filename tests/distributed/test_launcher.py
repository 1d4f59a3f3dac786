"""A run's ranks start, hear signals and end together; whoever failed first is named first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mic.distributed.failures import Ended, Report, explain, failed
from mic.distributed.launcher import launch, outcome, report, watch_parent
from mic.errors import InputError, RunError

SCRIPT = Path(__file__).parents[1] / "helpers" / "launched.py"
Start = Callable[[str], subprocess.Popen[str]]


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
    for one in started:
        one.kill()
        one.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """A run's exit code and standard error."""
    _, text = process.communicate(timeout=30)
    return process.returncode, text


def wait_for(*files: Path) -> list[int]:
    """The process ids in files, once they are there."""
    end = time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, files
        time.sleep(0.01)
    return [int(file.read_text()) for file in files]


def gone(pids: Sequence[int], seconds: float = 5) -> bool:
    """Whether processes end soon. One that has ended and that nobody waits for counts as gone."""
    end = time.monotonic() + seconds
    while any(runs(pid) for pid in pids) and time.monotonic() < end:
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
    before = time.monotonic()
    code, text = ended(start("killed,9"))
    assert (code, text) == (
        1,
        "mic: error: rank 1 was killed by signal 9 (SIGKILL; out of memory?)\n",
    )
    assert time.monotonic() - before < 10
    assert gone(wait_for(tmp_path / "0.pid"), 0)


def test_who_ignores_sigterm_is_killed(start, tmp_path):
    code, text = ended(start("fails,run,deaf"))
    assert (code, text) == (1, "mic: error: rank 1: boom\n")
    assert gone(wait_for(tmp_path / "0.pid"), 0)


@pytest.mark.parametrize(
    "signals",
    [["SIGTERM"], ["SIGUSR1"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGINT"]],
    ids=" ".join,
)
def test_signals_are_passed_on_once_each(start, tmp_path, signals):
    parent = start(f"hears,{len(signals)}")
    wait_for(tmp_path / "0.pid", tmp_path / "1.pid")
    for number, one in enumerate(signals, 1):
        parent.send_signal(signal.Signals[one])
        wait_for(*(tmp_path / f"{rank}.heard.{number}" for rank in (0, 1)))
    assert ended(parent) == (143, "")
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.signals").read_text().split() == signals


def test_a_signal_before_ranks_listen_stops_them(start, tmp_path):
    parent = start("killed,0")
    wait_for(tmp_path / "0.pid", tmp_path / "1.pid")
    parent.send_signal(signal.SIGTERM)
    assert ended(parent) == (143, "")


@pytest.mark.parametrize("mode", ["orphans", "orphans,deaf"])
def test_ranks_end_with_their_parent(start, tmp_path, mode):
    """Also those that ignore SIGTERM, and although children of theirs hold the pipe."""
    parent = start(mode)
    children = wait_for(tmp_path / "0.child", tmp_path / "1.child")
    ranks = wait_for(tmp_path / "0.pid", tmp_path / "1.pid")
    parent.kill()
    assert gone(ranks)
    for child in children:
        os.kill(child, signal.SIGKILL)


def test_nothing_is_left_of_a_rank_that_ended(start, tmp_path):
    assert ended(start("leaves")) == (0, "")
    assert gone(wait_for(tmp_path / "0.pid", tmp_path / "1.pid"), 0)


def test_ranks_speak_with_a_mark(start, tmp_path):
    parent = start("speaks")
    out, err = parent.communicate(timeout=30)
    assert out == "out of 0\n"
    lines = err.replace("no line's endrank", "no line's end\nrank").splitlines()
    assert [line for line in lines if line.startswith("rank 1: ")] == [
        "rank 1: out of 1",
        "rank 1: err of 1",
        "rank 1: no line's end",
    ]
    assert "err of 0" in lines
    assert (tmp_path / "1.environment").read_text() == "1 2 1 2 127.0.0.1"
    sessions = {*wait_for(tmp_path / "0.pid", tmp_path / "1.pid"), os.getsid(0)}
    assert len(sessions) == 3  # a terminal's Ctrl-C reaches the parent alone


def test_a_command_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        launch(["no-such-command"], 2)


def test_outside_of_a_launched_rank_there_is_nobody_to_tell(monkeypatch):
    monkeypatch.delenv("MIC_REPORTS", raising=False)
    monkeypatch.setenv("RANK", "0")
    assert not report(ValueError("boom"), 1)
    monkeypatch.setenv("MIC_REPORTS", "/no/such/folder")
    assert not report(ValueError("boom"), 1)


def test_another_file_under_the_pipes_number_is_not_the_parent(monkeypatch):
    """A subprocess of a rank inherits the variable, not the pipe."""
    read, write = os.pipe()
    monkeypatch.setenv("MIC_LAUNCHED", f"{read}:1")
    os.close(write)
    watch_parent()  # would end this process
    time.sleep(0.05)
    os.close(read)


TOLD = frozenset({signal.SIGTERM})


def told(rank: int, time: float, message: str = "boom", *, lost: bool = False) -> Report:
    return Report(rank, time, "RunError", message, 1, "", lost)


@pytest.mark.parametrize(
    ("ends", "reports", "expected"),
    [
        # somebody else's SIGKILL before an error that is not known as its consequence
        ([Ended(0, 1, 1.0), Ended(1, -9, 2.0)], [told(0, 1.0)], "rank 1 was killed"),
        # our own SIGKILL is no cause
        ([Ended(0, 1, 1.0), Ended(1, -9, 2.0, frozenset({9}))], [told(0, 1.0)], "rank 0: boom"),
        # a watchdog's abort follows an error, and precedes the loss of a rank
        ([Ended(0, -6, 1.0), Ended(1, 1, 2.0)], [told(1, 2.0)], "rank 1: boom"),
        ([Ended(0, -6, 2.0), Ended(1, 1, 1.0)], [told(1, 1.0, lost=True)], "rank 0 was killed"),
        # a crash after the report
        ([Ended(0, -11, 2.0), Ended(1, 1, 3.0)], [told(0, 1.0), told(1, 3.0)], "boom"),
        ([Ended(0, 1, 2.0), Ended(1, 1, 3.0)], [told(0, 2.0, "b"), told(1, 1.0, "a")], "rank 1: a"),
        (
            [Ended(0, 7, 2.0), Ended(1, 1, 1.0)],
            [told(1, 1.0, lost=True)],
            "rank 0 ended with code 7",
        ),
        ([Ended(0, 143, 2.0), Ended(1, 1, 1.0)], [told(1, 1.0, lost=True)], "rank 1: boom"),
        ([Ended(0, 143, 2.0), Ended(1, 1, 1.0, TOLD)], [told(1, 1.0)], "rank 1: boom"),
    ],
)
def test_cause(ends, reports, expected):
    by_rank = {one.rank: one for one in reports}
    assert str(explain(failed(ends, by_rank), by_rank, len(ends))).startswith(expected)


def test_bad_input_keeps_its_kind():
    said = Report(0, 1.0, "InputError", "dims: none", 2, "", False)
    with pytest.raises(InputError, match=r"^dims: none$"):
        outcome([Ended(0, 2, 1.0), Ended(1, 0, 1.0)], {0: said})


def test_ctrl_c_before_ranks_listen():
    stopped = Ended(0, -signal.SIGINT, 1.0, frozenset({signal.SIGINT}))
    with pytest.raises(RunError, match=r"^stopped$"):
        outcome([stopped], {})


def test_a_rank_that_lost_a_stopped_one_was_stopped():
    """In a collective Python hears no signal, but that the other rank has ended."""
    ends = [Ended(0, 143, 1.0, TOLD), Ended(1, 1, 2.0, TOLD)]
    assert outcome(ends, {1: told(1, 2.0, lost=True)}) == 143


def test_of_a_stop_rank_0_speaks(monkeypatch, tmp_path):
    monkeypatch.setenv("MIC_REPORTS", str(tmp_path))
    for rank, silent in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        assert report(RunError("stopped"), 143) == silent
    assert not list(tmp_path.iterdir())
