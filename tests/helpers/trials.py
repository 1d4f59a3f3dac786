"""Runs of `mic train` without importing torch for each: a process that has imported it forks.

`python trials.py train CONFIG` stands where `mic train` stands in a sweep file's command, under
srun or torchrun, and `python trials.py --nproc-per-node=2 train CONFIG` where torchrun does. It has
the server at $TRIALS, a fork of forked.py's process, fork others that do what `mic train CONFIG`
does, with this one's environment and output; it passes signals on and ends as they end. When it is
killed, so are they.

The first run that comes to its step HELD_AT, or the run $HELD alone, makes the file $HOLD, with its
folder's name, and waits there until it is asked to stop, so that a test can end it in its middle,
or until there is a file $HOLD.go.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
HELD_AT = 12


def ask(arguments: list[str]) -> int:
    """What stands in for `mic train` and torchrun."""
    ranks = 1
    if arguments[0].startswith("--nproc-per-node="):
        ranks = int(arguments.pop(0).partition("=")[2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trials = [Trial(arguments, rank, ranks, port) for rank in range(ranks)]
    for number in PASSED_ON:
        signal.signal(number, lambda heard, _: [os.kill(trial.pid, heard) for trial in trials])
    codes = [trial.code() for trial in trials]
    code = next((code for code in codes if code), 0)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


class Trial:
    """A forked process, seen from the one that asked for it."""

    def __init__(self, arguments: list[str], rank: int, ranks: int, port: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        more = {name: str(value) for name, value in names.items()} if ranks > 1 else {}
        environment = {**os.environ, **more}
        asked = {"arguments": arguments, "environment": environment, "cwd": str(Path.cwd())}
        text = json.dumps(asked).encode()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(os.environ["TRIALS"])
        socket.send_fds(self.server, [len(text).to_bytes(8, "big")], [1, 2])
        self.server.sendall(text)
        self.pid = int.from_bytes(self.server.recv(8), "big")

    def code(self) -> int:
        return int.from_bytes(self.server.recv(8), "big", signed=True)


def serve(path: str) -> None:
    """Fork a process that forks a trial for everyone who asks, and lives as long as this one."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    parent = os.getpid()
    if os.fork():
        server.close()
        return
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    while True:
        client, _ = server.accept()
        head, fds, _, _ = socket.recv_fds(client, 8, 2)
        size, text = int.from_bytes(head, "big"), b""
        while len(text) < size:
            text += client.recv(size - len(text))
        child = os.fork()
        if child == 0:
            server.close()
            client.close()
            train(json.loads(text), fds)
        for fd in fds:
            os.close(fd)
        client.sendall(child.to_bytes(8, "big"))
        threading.Thread(target=attend, args=(client, child), daemon=True).start()


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)


def train(asked: dict, fds: list[int]) -> None:
    """In the fork: be the trial."""
    from lightning.pytorch.utilities import rank_zero_only

    from mic.cli import main

    for number, fd in enumerate(fds, 1):
        os.dup2(fd, number)
        os.close(fd)
    os.setsid()
    os.environ.clear()
    os.environ.update(asked["environment"])
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))
    rank_zero_only.rank = int(rank)  # which it read when it was imported
    os.chdir(asked["cwd"])
    if "HOLD" in os.environ:
        hold(Path(os.environ["HOLD"]), asked["arguments"][1])
    code = 1
    try:
        code = main.main(asked["arguments"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def hold(mark: Path, config: str) -> None:
    """Wait at step HELD_AT to be asked to stop or to go on, unless another run has done so."""
    from mic.train.module import MICModule

    step = MICModule.training_step
    name = Path(config).parent.name
    if os.environ.get("HELD", name) != name:
        return

    def held(self, *args, **kwargs):
        if self.global_step == HELD_AT:
            with suppress(FileExistsError), mark.open("x") as file:
                file.write(name)
                file.flush()
                go = mark.with_suffix(".go")
                while signal.getsignal(signal.SIGTERM).asked is None and not go.exists():
                    time.sleep(0.02)
        return step(self, *args, **kwargs)

    MICModule.training_step = held


def attend(client: socket.socket, child: int) -> None:
    """Say how a trial ended; end it when nobody waits for it any more."""

    def orphaned() -> None:
        with suppress(OSError):
            if client.recv(1) == b"":
                os.kill(child, signal.SIGKILL)

    watching = threading.Thread(target=orphaned, daemon=True)
    watching.start()
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        client.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1:]))
