"""Who this process is among those of a run, and what they do together outside of training.

Ranks are started by mic itself, by torchrun or by SLURM's srun. What takes one of them long (a
cache to fill) the others wait for at the store, not in a collective, which gives up after half an
hour; they look at the process that they wait for meanwhile, for a store knows nothing of deaths.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed
from torch.distributed.distributed_c10d import Store, _get_default_store

from mic import errors
from mic.collectives import in_group, rank
from mic.distributed.environment import in_slurm, number
from mic.distributed.failures import RankLostError, own_kind
from mic.errors import InputError, Preempted, RunError

T = TypeVar("T")
LOOK = 0.25  # seconds between two looks at what another rank does
FAREWELL = 60.0  # seconds that rank 0 keeps the store for others who leave
STOPPING = 300.0  # seconds that others wait for rank 0, who has logs to send, when all stop
_calls = itertools.count()  # of what uses the store: the same on all ranks, also in a second group


class Place(NamedTuple):
    """A process among `ranks`, `local_ranks` of them on each of `nodes` machines."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    nodes: int
    node: int = 0


ALONE = Place(0, 1, 0, 1, 1)


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
        job, step = number("SLURM_JOB_ID"), number("SLURM_STEP_ID")
        return number("MASTER_PORT", 15000 + (job + 101 * step) % 10000)


def environment() -> ClusterEnvironment | None:
    """What Lightning asks who is who; None for a process on its own.

    The ranks of torchrun and of mic.distributed.launcher find the same variables.

    Raises:
        InputError: A variable is missing or no number.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchElasticEnvironment()
    if "RANK" not in os.environ and in_slurm():
        number("SLURM_NTASKS_PER_NODE")  # Lightning's own words name an option of sbatch
        return SlurmStep(auto_requeue=False)
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return None
    return TorchElasticEnvironment() if number("WORLD_SIZE") > 1 else None


def place() -> Place:
    """Who this process is.

    Raises:
        InputError: A variable is missing or no number, or nodes have different numbers of ranks.
    """
    cluster = environment()
    if cluster is None:
        return ALONE
    if isinstance(cluster, SLURMEnvironment):
        names = ("PROCID", "NTASKS", "LOCALID", "NTASKS_PER_NODE", "NNODES", "NODEID")
        here = Place(*(number(f"SLURM_{name}") for name in names))
        if here.local_ranks * here.nodes != here.ranks:
            raise InputError(
                f"SLURM_NTASKS {here.ranks}: not SLURM_NTASKS_PER_NODE {here.local_ranks} times "
                f"SLURM_NNODES {here.nodes}; give every node as many tasks"
            )
        return here
    this, ranks, local_ranks = number("RANK"), number("WORLD_SIZE"), number("LOCAL_WORLD_SIZE")
    node = number("GROUP_RANK", this // local_ranks)
    here = Place(this, ranks, number("LOCAL_RANK"), local_ranks, ranks // local_ranks, node)
    if here.local_ranks * here.nodes != here.ranks:
        raise InputError(
            f"WORLD_SIZE {here.ranks}: no multiple of LOCAL_WORLD_SIZE {here.local_ranks}; "
            "start as many ranks on every node"
        )
    if here.node * here.local_ranks + here.local_rank != here.rank:
        raise InputError(
            f"RANK {here.rank}: not LOCAL_RANK {here.local_rank} of node {here.node} with "
            f"LOCAL_WORLD_SIZE {here.local_ranks}; start as many ranks on every node"
        )
    return here


@contextmanager
def group(cuda: bool = True) -> Iterator[Place]:
    """Be in the process group of all ranks, where Lightning's strategies stay too.

    Nothing in one process, or in a group already. CPU tensors travel by gloo, and those of a GPU,
    unless `cuda` is false, by NCCL. After an exception nobody is waited for: the group ends with
    the process. But when all ranks agreed to stop, they end after rank 0, for torchrun, and srun if
    it is asked to, end the others as soon as one has ended.

    Raises:
        InputError: As `place`, and where there are fewer GPUs than processes.
    """
    here = place()
    if here.ranks == 1 or in_group():
        yield here
        return
    enter(here, cuda)
    try:
        yield here
    except Preempted as error:
        if "said" in vars(error):  # by one for all; outside training a signal stops one rank alone
            end_after_rank_zero(_get_default_store(), f"mic/{next(_calls)}/stopped", here.rank)
        raise
    leave(here)


def enter(here: Place, cuda: bool) -> None:
    cluster = environment()
    assert cluster is not None
    os.environ["MASTER_ADDR"] = cluster.main_address
    os.environ["MASTER_PORT"] = str(cluster.main_port)
    backend = "gloo"
    if cuda and torch.cuda.is_available():
        seen = torch.cuda.device_count()
        if seen < here.local_ranks:
            raise InputError(
                f"{seen} GPUs for {here.local_ranks} processes on this machine: start as many as "
                "it has (trainer.devices, --nproc-per-node), and let each see all of them "
                "(SLURM: --gpus-per-node, not --gpus-per-task)"
            )
        torch.cuda.set_device(here.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, rank=here.rank, world_size=here.ranks)


def leave(here: Place) -> None:
    """Leave the group; rank 0, who may hold the store, last."""
    store, call = _get_default_store(), next(_calls)
    store.set(f"mic/{call}/left/{here.rank}", "")
    everyone = [f"mic/{call}/left/{one}" for one in range(here.ranks)]
    end = time.monotonic() + FAREWELL
    while here.rank == 0 and not store.check(everyone) and time.monotonic() < end:
        time.sleep(LOOK / 5)
    distributed.destroy_process_group()


def end_after_rank_zero(store: Store, done: str, this: int) -> None:
    """Return at once on rank 0, whose logs are written; on others when it is there, or gone."""
    end = time.monotonic() + STOPPING
    with suppress(RuntimeError):  # the store is gone with rank 0
        if this == 0:
            store.set(done, "")
        while not store.check([done]) and time.monotonic() < end:
            time.sleep(LOOK / 5)


def first_on_node(build: Callable[[], T]) -> T:
    """What `build` returns, called by the first rank of every node before the others.

    They find what it left in a cache. All ranks have to call it, in the same order.

    Raises:
        InputError, RunError: As `build` on the first rank, on all of its node; where it was another
            error, or the rank has died, the others raise a RunError.
    """
    here = place()
    if here.ranks == 1 or not in_group():
        return build()
    store = _get_default_store()
    done = f"mic/{next(_calls)}/first/{here.node}"
    if here.local_rank:
        wait_for(store, done, f"{done}/process")
        return build()
    store.set(f"{done}/process", json.dumps([here.rank, os.getpid()]))
    try:
        built = build()
    except Exception as error:
        with suppress(RuntimeError):  # the store is gone, and whoever waits knows
            store.set(done, json.dumps(failure(error)))
        raise
    store.set(done, "null")
    return built


def wait_for(store: Store, done: str, process: str) -> None:
    """Wait, for hours if need be, until another rank is done; raise what it raised."""
    while not store.check([done]):
        if store.check([process]):
            other, pid = json.loads(store.get(process))
            if not runs(pid) and not store.check([done]):
                raise RankLostError(f"rank {other} died while others waited for it")
        time.sleep(LOOK)
    if failed := json.loads(store.get(done)):
        raise retold(*failed)


def runs(pid: int) -> bool:
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
        InputError, RunError: As `make`, on all ranks; the others' is marked as said by rank 0. Of
            another error they hear as a RunError.
    """
    if not in_group():
        return make()
    if rank() == 0:
        try:
            made = make()
        except Exception as error:
            with suppress(RuntimeError):  # the signal that stopped us has stopped others sooner
                distributed.broadcast_object_list([None, failure(error)])
            raise
        distributed.broadcast_object_list([made, None])
        return made
    told: list[Any] = [None, None]
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise retold(*told[1])
    result: T = told[0]
    return result


def failure(error: Exception) -> tuple[str, str]:
    """An error as other ranks raise it: the name of its kind in mic.errors, and its text."""
    if kind := own_kind(error):
        return kind, str(error)
    return "RunError", f"rank {rank()}: {type(error).__name__}: {error}"


def retold(kind: str, text: str) -> InputError | RunError:
    """Another rank's error, marked so that this one need not say it again."""
    error: Any = getattr(errors, kind)(text)
    error.said = True
    raised: InputError | RunError = error
    return raised
