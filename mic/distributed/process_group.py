"""Find this process's rank, join the process group, and run code on one rank for all of them.

Ranks are started by mic itself, by torchrun or by SLURM's srun. While one of them does long work
(fills a cache), the others wait at the store, not in a collective, which gives up after half an
hour. They check meanwhile that the process that they wait for is alive; the store does not.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar, cast

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed
from torch.distributed.distributed_c10d import Store, _get_default_store

from mic import errors
from mic.collectives import in_group, rank
from mic.distributed.environment import in_slurm, read_number
from mic.distributed.failures import RankLostError, mic_error_kind
from mic.errors import InputError, Preempted, RunError

T = TypeVar("T")
POLL = 0.25  # seconds between two looks at what another rank does
FAREWELL = 60.0  # seconds that rank 0 keeps the store while other ranks leave
STOPPING = 300.0  # seconds that others wait for rank 0, which has logs to send, when all stop
_calls = itertools.count()  # of what uses the store: the same on all ranks, also in a second group


class RankInfo(NamedTuple):
    """The rank of a process among `ranks`, `local_ranks` of them on each of `nodes` machines."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    nodes: int
    node: int = 0


ALONE = RankInfo(0, 1, 0, 1, 1)


class SlurmStep(SLURMEnvironment):
    """Ranks that srun started; they meet on their step's first node, at a port of their own.

    Lightning takes the job's first node, which need not be in the step, and a port that the steps
    of a job share.
    """

    @property
    def main_address(self) -> str:
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
        return os.environ.get("MASTER_ADDR") or self.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        job, step = read_number("SLURM_JOB_ID"), read_number("SLURM_STEP_ID")
        return read_number("MASTER_PORT", 15000 + (job + 101 * step) % 10000)


def cluster_environment() -> ClusterEnvironment | None:
    """Lightning's environment of the launcher that started this process; None without one.

    torchrun and mic.distributed.launcher set the same variables.

    Raises:
        InputError: A variable is missing or no number.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchElasticEnvironment()
    if "RANK" not in os.environ and in_slurm():
        read_number("SLURM_NTASKS_PER_NODE")  # Lightning's own message names an option of sbatch
        return SlurmStep(auto_requeue=False)
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return None
    return TorchElasticEnvironment() if read_number("WORLD_SIZE") > 1 else None


def rank_info() -> RankInfo:
    """The rank of this process, from the launcher's environment variables.

    Raises:
        InputError: A variable is missing or no number, or nodes have different numbers of ranks.
    """
    cluster = cluster_environment()
    if cluster is None:
        return ALONE
    if isinstance(cluster, SLURMEnvironment):
        names = ("PROCID", "NTASKS", "LOCALID", "NTASKS_PER_NODE", "NNODES", "NODEID")
        info = RankInfo(*(read_number(f"SLURM_{name}") for name in names))
        if info.local_ranks * info.nodes != info.ranks:
            raise InputError(
                f"SLURM_NTASKS {info.ranks}: not SLURM_NTASKS_PER_NODE {info.local_ranks} times "
                f"SLURM_NNODES {info.nodes}; give every node as many tasks"
            )
        return info
    rank, ranks = read_number("RANK"), read_number("WORLD_SIZE")
    local_rank, local_ranks = read_number("LOCAL_RANK"), read_number("LOCAL_WORLD_SIZE")
    node = read_number("GROUP_RANK", rank // local_ranks)
    info = RankInfo(rank, ranks, local_rank, local_ranks, ranks // local_ranks, node)
    if info.local_ranks * info.nodes != info.ranks:
        raise InputError(
            f"WORLD_SIZE {info.ranks}: no multiple of LOCAL_WORLD_SIZE {info.local_ranks}; "
            "start as many ranks on every node"
        )
    if info.node * info.local_ranks + info.local_rank != info.rank:
        raise InputError(
            f"RANK {info.rank}: not LOCAL_RANK {info.local_rank} of node {info.node} with "
            f"LOCAL_WORLD_SIZE {info.local_ranks}; start as many ranks on every node"
        )
    return info


@contextmanager
def group(cuda: bool = True) -> Iterator[RankInfo]:
    """Join the process group of all ranks, which Lightning's strategies then use.

    Does nothing in a single process, or in a group already. CPU tensors travel by gloo, and those
    of a GPU, unless `cuda` is false, by NCCL. After an exception no rank is waited for: the group
    ends with the process. But when all ranks agreed to stop, they end after rank 0, because
    torchrun, and srun if it is asked to, end the others as soon as one has ended.

    Raises:
        InputError: As `rank_info`, and where there are fewer GPUs than processes.
    """
    info = rank_info()
    if info.ranks == 1 or in_group():
        yield info
        return
    enter(info, cuda)
    try:
        yield info
    except Preempted as error:
        # set when all ranks stopped together; outside training a signal stops one rank alone
        if "reported" in vars(error):
            end_after_rank_zero(_get_default_store(), f"mic/{next(_calls)}/stopped", info.rank)
        raise
    leave(info)


def enter(info: RankInfo, cuda: bool) -> None:
    cluster = cluster_environment()
    assert cluster is not None
    os.environ["MASTER_ADDR"] = cluster.main_address
    os.environ["MASTER_PORT"] = str(cluster.main_port)
    backend = "gloo"
    if cuda and torch.cuda.is_available():
        seen = torch.cuda.device_count()
        if seen < info.local_ranks:
            raise InputError(
                f"{seen} GPUs for {info.local_ranks} processes on this machine: start as many as "
                "it has (trainer.devices, --nproc-per-node), and let each see all of them "
                "(SLURM: --gpus-per-node, not --gpus-per-task)"
            )
        torch.cuda.set_device(info.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, rank=info.rank, world_size=info.ranks)


def leave(info: RankInfo) -> None:
    """Leave the group; rank 0, which may hold the store, last."""
    store, call = _get_default_store(), next(_calls)
    store.set(f"mic/{call}/left/{info.rank}", "")
    everyone = [f"mic/{call}/left/{rank}" for rank in range(info.ranks)]
    end = time.monotonic() + FAREWELL
    while info.rank == 0 and not store.check(everyone) and time.monotonic() < end:
        time.sleep(POLL / 5)
    distributed.destroy_process_group()


def end_after_rank_zero(store: Store, done: str, rank: int) -> None:
    """Return at once on rank 0, whose logs are written; on others after it, or when it is gone."""
    end = time.monotonic() + STOPPING
    with suppress(RuntimeError):  # the store is gone with rank 0
        if rank == 0:
            store.set(done, "")
        while not store.check([done]) and time.monotonic() < end:
            time.sleep(POLL / 5)


def first_on_node(build: Callable[[], T]) -> T:
    """What `build` returns, called by the first rank of every node before the others.

    The others find the result in a cache. All ranks have to call it, in the same order.

    Raises:
        InputError, RunError: As `build` on the first rank, on all of its node; where it was another
            error, or the rank has died, the others raise a RunError.
    """
    info = rank_info()
    if info.ranks == 1 or not in_group():
        return build()
    store = _get_default_store()
    done = f"mic/{next(_calls)}/first/{info.node}"
    if info.local_rank:
        wait_for(store, done, f"{done}/process")
        return build()
    store.set(f"{done}/process", json.dumps([info.rank, os.getpid()]))
    try:
        built = build()
    except Exception as error:
        with suppress(RuntimeError):  # the store is gone, and the ranks that wait see that
            store.set(done, json.dumps(pack_error(error)))
        raise
    store.set(done, "null")
    return built


def wait_for(store: Store, done: str, process: str) -> None:
    """Wait without a limit until another rank is done; raise its error.

    Raises RankLostError when it died.
    """
    while not store.check([done]):
        if store.check([process]):
            other, pid = json.loads(store.get(process))
            if not process_exists(pid) and not store.check([done]):
                raise RankLostError(f"rank {other} died while others waited for it")
        time.sleep(POLL)
    if failed := json.loads(store.get(done)):
        raise unpack_error(*failed)


def process_exists(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def from_rank_zero(make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, which alone calls it, on all ranks.

    Raises:
        InputError, RunError: As `make`, on all ranks; marked as reported on all but rank 0. Any
            other error is a RunError on these.
    """
    if not in_group():
        return make()
    if rank() == 0:
        try:
            result = make()
        except Exception as error:
            with suppress(RuntimeError):  # the signal that stopped this rank stopped others too
                distributed.broadcast_object_list([None, pack_error(error)])
            raise
        distributed.broadcast_object_list([result, None])
        return result
    received: list[Any] = [None, None]
    distributed.broadcast_object_list(received)
    if received[1] is not None:
        raise unpack_error(*received[1])
    return cast(T, received[0])


def pack_error(error: Exception) -> tuple[str, str]:
    """An error to be sent to other ranks: its class in mic.errors and its message."""
    if kind := mic_error_kind(error):
        return kind, str(error)
    return "RunError", f"rank {rank()}: {type(error).__name__}: {error}"


def unpack_error(kind: str, text: str) -> InputError | RunError:
    """Another rank's error, marked as reported, so that this rank does not print it again."""
    error: Any = getattr(errors, kind)(text)
    error.reported = True
    raised: InputError | RunError = error
    return raised
