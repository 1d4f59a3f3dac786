"""A run of two ranks that need no PyTorch, and its parent: `python launched.py MODE FOLDER`.

Every rank leaves FOLDER/RANK.pid when it is ready; the parent ends as the command line would.
"""

import os
import signal
import sys
import time
from pathlib import Path

import mic.distributed.launcher
from mic.distributed.launcher import launch, report, watch_parent
from mic.errors import InputError, RunError

MODE, PLACE = (*sys.argv, "", "")[1:3]  # pytest looks in for doctests
FOLDER = Path(PLACE)
RANK = int(os.environ.get("RANK", 0))


def parent() -> int:
    mic.distributed.launcher.GRACE = 0.5
    try:
        return launch([sys.executable, __file__, MODE, str(FOLDER)], 2)
    except (InputError, RunError) as error:
        sys.stderr.write(f"mic: error: {error}\n")
        return 2 if isinstance(error, InputError) else 1


def ready(pid: int | None = None, name: str = f"{RANK}.pid") -> None:
    partial = FOLDER / f"{name}.partial"
    partial.write_text(str(pid or os.getpid()))
    partial.replace(FOLDER / name)


def wait_for(name: str) -> None:
    while not (FOLDER / name).exists():
        time.sleep(0.01)


def codes(*each: str) -> None:
    """End with a code; first the other rank, then this one."""
    ready()
    wait_for(f"{1 - RANK}.pid")
    if RANK == 0:
        time.sleep(0.2)
    os._exit(int(each[RANK]))


def fails(kind: str, other: str) -> None:
    """Rank 1 fails; rank 0 fails in its wake, ignores SIGTERM, or kills itself later."""
    if other == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    wait_for(f"{1 - RANK}.pid")
    try:
        if RANK == 1:
            raise {"input": InputError, "run": RunError, "value": ValueError}[kind]("boom")
        if other == "lost":
            raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
        if other == "same":
            raise RunError("boom")
        time.sleep(60)
    except Exception as error:
        code = 2 if isinstance(error, InputError) else 1
        if RANK == 1:
            time.sleep(0.3)  # the cause is the last to be known
        sys.exit(code if report(error, code) else "not launched")


def killed(number: str) -> None:
    ready()
    if RANK == 1:
        os.kill(os.getpid(), int(number))
    time.sleep(60)


def hears(times: str) -> None:
    """Note signals in a file; end when there were enough of them."""
    heard: list[str] = []
    for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(one, lambda number, frame: heard.append(signal.Signals(number).name))
    ready()
    while True:  # rather than pause(), which a signal just before it leaves waiting
        if len(heard) > len(list(FOLDER.glob(f"{RANK}.heard.*"))):
            ready(name=f"{RANK}.heard.{len(heard)}")
        if len(heard) == int(times):
            time.sleep(0.2)
            (FOLDER / f"{RANK}.signals").write_text(" ".join(heard))
            sys.exit(143)
        time.sleep(0.01)


def orphans(deaf: str = "") -> None:
    """Wait for the parent's death, with a child as a data loader has it."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mic.distributed.launcher.LAST = 0.3
    watch_parent()
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(20)
        os._exit(0)
    ready(child, f"{RANK}.child")
    ready()
    time.sleep(60)


def leaves() -> None:
    """End, and leave a process behind."""
    if (child := os.fork()) == 0:
        time.sleep(60)
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
