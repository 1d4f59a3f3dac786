"""Ranks know their number, wait for each other as long as it takes, and share their errors."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from threading import Semaphore, Thread, current_thread
from typing import Any

import pytest
from torch import distributed

from mic.distributed.failures import lost_rank
from mic.distributed.launcher import launch
from mic.distributed.process_group import (
    RankInfo,
    cluster_environment,
    end_after_rank_zero,
    first_on_node,
    from_rank_zero,
    group,
    rank_info,
    wait_for,
)
from mic.errors import InputError, RunError

LIMIT = 300.0  # seconds until a test that hangs is given up
SCRIPT = Path(__file__).parents[1] / "helpers" / "processes_ranks.py"
TORCH = {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
SLURM = {
    "SLURM_JOB_ID": 4711,
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": 0,
    "SLURM_NTASKS": 4,
    "SLURM_NTASKS_PER_NODE": 2,
    "SLURM_NNODES": 2,
    "SLURM_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": 2,
    "SLURM_LOCALID": 0,
    "SLURM_NODEID": 1,
}


@pytest.fixture
def variables(monkeypatch):
    """Set variables in an environment where no launcher has left any."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_")) or name in (
            *TORCH,
            "GROUP_RANK",
        ):
            monkeypatch.delenv(name)

    def put(values: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, str(value))

    return put


def check_shared(folder: Path, launcher: str) -> list[dict[str, Any]]:
    """What both ranks have seen of what they did together; what is left to look at."""
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank, values in enumerate(seen):
        reported = rank == 1
        assert values.pop("info") == [rank, 2, rank, 2, 1, 0]
        assert values.pop("environment") == launcher
        assert values.pop("backend") == "gloo"
        assert values.pop("received") == [0, 2]
        assert values.pop("bad input") == ["InputError", "dims: none", reported]
        assert values.pop("again") == 0
        assert values.pop("first one") == values.pop("first two") == "by rank 0"
        assert values.pop("first failed") == ["RunError", "disk full", reported]
    assert seen[0].pop("boom") == ["ValueError", "boom", False]
    assert seen[1].pop("boom") == ["RunError", "rank 0: ValueError: boom", True]
    assert seen[0].pop("first boom") == ["KeyError", "'boom'", False]
    assert seen[1].pop("first boom") == ["RunError", "rank 0: KeyError: 'boom'", True]
    return seen


def test_a_rank_dies_while_the_other_waits_in_a_collective(tmp_path, monkeypatch):
    monkeypatch.setattr("mic.distributed.launcher.GRACE", 600.0)  # rank 0 has to end by itself
    with pytest.raises(RunError, match=r"^rank 1 was killed by signal 9"):
        launch([sys.executable, str(SCRIPT), str(tmp_path), "dies"], 2)
    first, second = check_shared(tmp_path, "TorchElasticEnvironment")
    assert (first, second) == ({"lost": True}, {})


def test_two_ranks_of_torchrun(tmp_path, fork):
    codes, output = fork(str(tmp_path), module="processes_ranks", ranks=2)
    assert codes == [0, 0], output
    assert check_shared(tmp_path, "TorchElasticEnvironment") == [{"left": True}] * 2


def test_alone(variables):
    assert cluster_environment() is None
    assert rank_info() == RankInfo(0, 1, 0, 1, 1)
    with group() as info:
        assert info == rank_info()
        assert not distributed.is_initialized()
        assert from_rank_zero(lambda: 1) == first_on_node(lambda: 1) == 1
    with pytest.raises(KeyError):
        first_on_node(lambda: {}["none"])


def test_one_rank_of_a_scheduler_is_alone(variables):
    variables({"RANK": 0, "WORLD_SIZE": 1})
    assert rank_info() == RankInfo(0, 1, 0, 1, 1)


def test_nodes_of_torchrun(variables):
    variables(TORCH | {"RANK": 7, "WORLD_SIZE": 8, "GROUP_RANK": 3})
    assert rank_info() == RankInfo(7, 8, 1, 2, 4, 3)
    variables({"GROUP_RANK": None})
    assert rank_info().node == 3


def test_slurm(variables):
    variables(SLURM)
    assert rank_info() == RankInfo(2, 4, 0, 2, 2, 1)
    cluster = cluster_environment()
    assert (cluster.main_address, cluster.main_port) == ("gpu07", 19711)
    assert (cluster.global_rank(), cluster.world_size()) == (2, 4)
    assert (cluster.local_rank(), cluster.node_rank()) == (0, 1)
    assert not cluster.auto_requeue
    cluster.validate_settings(num_devices=2, num_nodes=2)


def test_a_second_step_meets_on_its_own_node_and_port(variables):
    variables(SLURM | {"SLURM_STEP_ID": 1, "SLURM_STEP_NODELIST": "gpu[08,11-12]"})
    cluster = cluster_environment()
    assert (cluster.main_address, cluster.main_port) == ("gpu08", 19812)
    variables({"MASTER_ADDR": "10.0.0.8", "MASTER_PORT": 29500})  # the user knows better
    assert (cluster.main_address, cluster.main_port) == ("10.0.0.8", 29500)


@pytest.mark.parametrize(
    "difference",
    [
        {"SLURM_STEP_ID": None},  # a batch script: srun has started nothing
        {"SLURM_STEP_ID": -5},  # a batch script since SLURM 26.05
        {"SLURM_STEP_ID": 4294967290},  # salloc's shell
        {"SLURM_JOB_NAME": "interactive"},
        {"SLURM_JOB_NAME": "bash"},
        {"SLURM_NTASKS": 1},
        {"SLURM_PROCID": None},
    ],
    ids=str,
)
def test_slurm_with_one_process(variables, difference):
    variables(SLURM | difference)
    assert rank_info() == RankInfo(0, 1, 0, 1, 1)


def test_a_launcher_within_slurm_counts(variables):
    variables(SLURM | TORCH)
    assert rank_info() == RankInfo(1, 2, 1, 2, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (TORCH | {"LOCAL_RANK": None}, "LOCAL_RANK: not set, .* by torchrun$"),
        (TORCH | {"LOCAL_WORLD_SIZE": None}, "LOCAL_WORLD_SIZE: not set"),
        (TORCH | {"WORLD_SIZE": None}, "^WORLD_SIZE: not set"),
        (TORCH | {"RANK": None}, "^RANK: not set"),
        (TORCH | {"WORLD_SIZE": "two"}, "WORLD_SIZE 'two': not a number"),
        (TORCH | {"LOCAL_WORLD_SIZE": 0}, "LOCAL_WORLD_SIZE '0': not a number"),
        (TORCH | {"WORLD_SIZE": 5}, "WORLD_SIZE 5: no multiple of LOCAL_WORLD_SIZE 2"),
        (
            TORCH
            | {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
            | {"GROUP_RANK": 1},  # three ranks on node 0, one on node 1
            "RANK 3: not LOCAL_RANK 0 of node 1",
        ),
        (SLURM | {"SLURM_NTASKS_PER_NODE": None}, "NODE: not set, .* srun --ntasks-per-node$"),
        (SLURM | {"SLURM_NTASKS": 3}, "SLURM_NTASKS 3: not SLURM_NTASKS_PER_NODE 2 times"),
        (SLURM | {"SLURM_LOCALID": None}, "SLURM_LOCALID: not set"),
    ],
)
def test_numbers_that_do_not_fit(variables, values, message):
    variables(values)
    with pytest.raises(InputError, match=message):
        rank_info()


def test_ranks_that_stop_end_after_rank_zero():
    """torchrun sends SIGTERM to the others when one has ended, and rank 0 may have logs to send."""
    order: list[int] = []

    class WatchedStore(distributed.HashStore):
        """Counts how often each thread has looked."""

        def __init__(self) -> None:
            super().__init__()
            self.looks = defaultdict(lambda: Semaphore(0))

        def check(self, keys: list[str]) -> bool:
            self.looks[current_thread().name].release()
            return super().check(keys)

    store = WatchedStore()

    def end(rank: int) -> None:
        end_after_rank_zero(store, "stopped", rank)
        order.append(rank)

    threads = [Thread(target=end, args=(rank,), name=f"rank {rank}") for rank in (1, 2)]
    for thread in threads:
        looks = store.looks[thread.name]
        thread.start()
        assert looks.acquire(timeout=LIMIT)
        assert looks.acquire(timeout=LIMIT)  # it goes on after the first look
    assert order == []
    end(0)
    for thread in threads:
        thread.join()
    assert {*order} == {0, 1, 2}


def test_who_waits_for_a_dead_process_is_told():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    store = distributed.HashStore()
    store.set("process", json.dumps([4, process.pid]))
    with pytest.raises(RunError, match=r"^rank 4 died") as caught:
        wait_for(store, "done", "process")
    assert lost_rank(caught.value)
    assert not getattr(caught.value, "reported", False)  # a dead rank has reported nothing
    store.set("done", "null")  # it was done before it ended
    wait_for(store, "done", "process")
