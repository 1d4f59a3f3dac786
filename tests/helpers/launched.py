"""A run of two ranks that need no PyTorch, and its parent: `python launched.py MODE FOLDER`.

Every rank leaves FOLDER/RANK.pid when it is ready; the parent ends as the command line would.
"""

import os
import signal
import sys
import time
from pathlib import Path

import mic.distributed.launcher
from mic.distributed.failures import report_failure
from mic.distributed.launcher import launch, watch_parent
from mic.errors import InputError, RunError

MODE, PLACE = (*sys.argv, "", "")[1:3]  # pytest looks in for doctests
FOLDER = Path(PLACE)
RANK = int(os.environ.get("RANK", 0))
FOREVER = 600.0  # seconds, more than any test waits: what sleeps so long has to be ended
SHORT = 0.5  # seconds of grace where a rank has to be ended


def parent() -> int:
    ends_alone = MODE.startswith("fails") and MODE.endswith(("lost", "same"))
    mic.distributed.launcher.GRACE = FOREVER if ends_alone else SHORT
    try:
        return launch([sys.executable, __file__, MODE, str(FOLDER)], 2)
    except (InputError, RunError) as error:
        sys.stderr.write(f"mic: error: {error}\n")
        return 2 if isinstance(error, InputError) else 1


def ready(pid: int | None = None, name: str = f"{RANK}.pid") -> None:
    partial = FOLDER / f"{name}.partial"
    partial.write_text(str(pid or os.getpid()))
    partial.replace(FOLDER / name)


def other_rank() -> int:
    """Wait until the other rank is ready; its process id."""
    file = FOLDER / f"{1 - RANK}.pid"
    while not file.exists():
        time.sleep(0.01)
    return int(file.read_text())


def wait_for_end(pid: int) -> None:
    """Wait until the parent has seen that the other rank has ended."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def codes(*each: str) -> None:
    """End with a code; first rank 1, then rank 0."""
    ready()
    pid = other_rank()
    if RANK == 0:
        wait_for_end(pid)
    os._exit(int(each[RANK]))


def fails(kind: str, other: str) -> None:
    """Rank 1 fails; rank 0 fails because of it and ends first, or waits, or ignores SIGTERM."""
    if other == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    pid = other_rank()
    try:
        if RANK == 1:
            raise {"input": InputError, "run": RunError, "value": ValueError}[kind]("boom")
        if other == "lost":
            raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
        if other == "same":
            raise RunError("boom")
        time.sleep(FOREVER)
    except Exception as error:
        code = 2 if isinstance(error, InputError) else 1
        if RANK == 1 and other in ("lost", "same"):
            wait_for_end(pid)  # the cause is the last to be known
        sys.exit(code if report_failure(error, code) else "not launched")


def killed(number: str) -> None:
    ready()
    other_rank()
    if RANK == 1:
        os.kill(os.getpid(), int(number))
    time.sleep(FOREVER)


def hears(count: str) -> None:
    """Note signals in a file; end when there were `count` of them."""
    heard: list[str] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
    ready()
    while True:  # rather than pause(), which a signal just before it leaves waiting
        if len(heard) > len(list(FOLDER.glob(f"{RANK}.heard.*"))):
            ready(name=f"{RANK}.heard.{len(heard)}")
        if len(heard) >= int(count):
            (FOLDER / f"{RANK}.signals").write_text(" ".join(heard))
            sys.exit(143)
        time.sleep(0.01)


def orphans(deaf: str = "") -> None:
    """Wait for the parent's death, with a child as a data loader has it."""
    mic.distributed.launcher.LAST = 0.0 if deaf else FOREVER
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch_parent()
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FOREVER)
        os._exit(0)
    ready(child, f"{RANK}.child")
    ready()
    time.sleep(FOREVER)


def leaves() -> None:
    """End, and leave a process behind."""
    if (child := os.fork()) == 0:
        time.sleep(FOREVER)
        os._exit(0)
    ready(child)


def speaks() -> None:
    sys.stdout.write(f"out of {RANK}\n")
    sys.stdout.flush()
    sys.stderr.write(f"err of {RANK}\nno line's end")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    (FOLDER / f"{RANK}.environment").write_text(" ".join(os.environ[name] for name in names))
    ready(os.getsid(0))


if __name__ == "__main__":
    if "MIC_LAUNCHED" not in os.environ:
        sys.exit(parent())
    mode, *rest = MODE.split(",")
    globals()[mode](*rest)
