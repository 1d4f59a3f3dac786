"""Runs of `mic train` that are killed at chosen places, without importing torch for each anew.

`python forked.py SOCKET` imports mic once, serves trials at SOCKET (trials.py), and forks the ranks
of every run that it reads, one JSON line each, from standard input:

    {"arguments": ["train", ...], "ranks": 2, "log": "FILE", "without": [], "checked": false,
     "kills": [{"where": "batch", "nth": 5, "by": "SIGKILL", "rank": 1}]}

It answers with the ranks' exit statuses. The signals are real and so are the processes; `where` is
a place in the code that the rank kills itself at when it comes there for the n-th time. Functions
of mic.train.resume.exact_resume named in `without` do nothing. `checked` has the shapes checked as
the tests themselves do, which makes a run a third longer.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

    import jaxtyping
    import typecheck

    typecheck.install()

    import datasets  # noqa: F401  # what a run imports late
    import torch
    import trials
    from lightning.pytorch.utilities import rank_zero_only
    from transformers import BertModel, PreTrainedTokenizerFast  # noqa: F401

    torch.set_num_threads(1)
    from mic.cli import main
    from mic.evaluation import scoring
    from mic.tracking import loggers
    from mic.train import run as training
    from mic.train.callbacks import geometry
    from mic.train.module import MICModule
    from mic.train.resume import checkpoint_files, exact_resume

    training.draw_figures = lambda *_: None  # its pictures take a third of a run's time
    jaxtyping.config.update("jaxtyping_disable", True)

PATIENCE = 300.0  # seconds for the ranks of a run to end, also on a busy machine


class Forked:
    """The process that forks runs, seen from a test; at `socket` it serves trials."""

    def __init__(self, folder: Path) -> None:
        self.log, self.socket = folder / "log", folder / "socket"
        command = [sys.executable, __file__, str(self.socket)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self,
        *arguments: str,
        ranks: int = 1,
        kills: Sequence[Mapping[str, Any]] = (),
        without: Sequence[str] = (),
        module: str = "",
        checked: bool = False,
    ) -> tuple[list[int], str]:
        """The exit statuses of a run's ranks, and what they wrote.

        Of `mic` with the arguments, or of the `main` of another module of the tests.
        """
        asked = {"arguments": arguments, "ranks": ranks, "kills": kills, "without": without}
        asked |= {"module": module, "checked": checked}
        self.log.unlink(missing_ok=True)
        assert self.process.stdin
        self.process.stdin.write(json.dumps({**asked, "log": str(self.log)}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.hear()), self.log.read_text()

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


@contextmanager
def forked(folder: Path) -> Iterator[Forked]:
    """A process that forks runs, for as long as one wants it."""
    server = Forked(folder)
    with server.process:
        assert server.hear() == "ready\n"
        yield server
        server.process.kill()  # its way out takes seconds


def places() -> dict[str, tuple[Any, str]]:
    """Where a rank can be killed: an object and the name of its function."""
    return {
        "batch": (MICModule, "training_step"),
        "stepped": (MICModule, "optimizer_step"),
        "validating": (MICModule, "validation_step"),
        "evaluating": (scoring, "rank_share"),
        "logging": (loggers.RunLogger, "write"),
        "snapshot": (geometry, "write_snapshot"),
        "writing": (checkpoint_files.Hashed, "write"),
        "publishing": (exact_resume, "publish"),
        "renamed": (checkpoint_files, "flush_folder"),
        "pointing": (checkpoint_files, "write_json"),
    }


def arm(where: str, nth: int, by: str) -> None:
    """Have this process kill itself when it comes to a place for the n-th time."""
    owner, name = places()[where]
    function, calls = getattr(owner, name), [0]

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            os.kill(os.getpid(), getattr(signal, by))
        return function(*args, **kwargs)

    setattr(owner, name, deadly)


def rank_of(asked: dict[str, Any], rank: int, port: int) -> int:
    """What a forked rank does; its exit code."""
    ranks = asked["ranks"]
    log = Path(asked["log"]).open("a")  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    if ranks > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        rank_zero_only.rank = rank  # as Lightning does when it is imported
    for kill in asked.get("kills", ()):
        if kill.get("rank", rank) == rank:
            arm(kill["where"], kill.get("nth", 1), kill["by"])
    for name in asked.get("without", ()):
        setattr(exact_resume, name, lambda *_: None)
    jaxtyping.config.update("jaxtyping_disable", not asked["checked"])
    try:
        if asked["module"]:
            importlib.import_module(asked["module"]).main(*asked["arguments"])
            return 0
        return main.main(asked["arguments"])
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1


def run(asked: dict[str, Any]) -> list[int]:
    """Fork the ranks and wait for them; those that outlive the patience are killed, and 99."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(asked["ranks"]):
        child = os.fork()
        if child == 0:
            code = rank_of(asked, rank, port)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    ends: dict[int, int] = {}
    limit = time.monotonic() + PATIENCE
    while len(ends) < len(children):
        for child in children:
            if child not in ends:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    ends[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > limit:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    ends[child] = 99
        time.sleep(0.02)
    return [ends[child] for child in children]


if __name__ == "__main__":
    trials.serve(sys.argv[1])
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201
