"""Two machines train one run, with the bits of two ranks on one machine.

Both are this machine under two addresses; experiments/nodes has two network namespaces.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trials

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive the test; SIGTERM has torchrun end its ranks."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.send_signal(number)
                process.wait(10)


def free_port(address: str) -> int:
    with socket.socket() as free:
        try:
            free.bind((address, 0))
        except OSError:
            pytest.skip(f"{address} is no address of this machine")
        return int(free.getsockname()[1])


def node(
    environment: dict[str, str], address: str, port: int, *arguments: str
) -> subprocess.Popen[str]:
    """torchrun on a machine, with one rank of two."""
    torchrun = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}")
    where = ("--rdzv-id", "mic", "--local-addr", address)
    command = [sys.executable, *torchrun, *meeting, *where, trials.__file__, "train", *arguments]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logged(run: Path) -> list[dict[str, Any]]:
    """A run's log without what depends on the time it took, and on the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("speed/", "memory/")
    return [
        {key: value for key, value in line.items() if not key.startswith(timed)} for line in lines
    ]


@pytest.mark.slow
def test_two_nodes_train_what_two_ranks_on_one_train(
    fork, trial_server, tiny_config, tmp_path, started
):
    runs, addresses = tmp_path / "runs", ("127.0.0.1", "127.0.0.2")
    ports = [free_port(address) for address in addresses]
    codes, output = fork("train", str(tiny_config), "name=one", ranks=2)
    assert codes == [0, 0], output
    for address in addresses:
        started.append(node(trial_server, address, ports[0], str(tiny_config), "name=two"))
    outputs = [node_process.communicate(timeout=180)[0] for node_process in started]
    assert [node_process.returncode for node_process in started] == [0, 0], "\n".join(outputs)
    assert sum("sts: spearman" in text for text in outputs) == 1  # the table, by rank 0
    (segment,) = json.loads((runs / "two/run.json").read_text())["segments"]
    assert segment["ranks"] == 2
    assert logged(runs / "two") == logged(runs / "one")
    weights = [runs / name / "encoder/model.safetensors" for name in ("one", "two")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
