"""What a machine's workers share, and what people see of them."""

from io import StringIO

from rich.console import Console

from mic.distributed.launcher import available_cores
from mic.sweep.queue.state import Attempt, QueuedSetting, sweep_state
from mic.sweep.status import status_table, visible_trials
from mic.sweep.sweep_file import read_sweep
from mic.sweep.workers import visible_gpus, worker_environment

NAME = "configs/sweep/layers.yaml"


def test_threads_are_divided_between_workers_and_ranks_unless_somebody_has_said():
    assert worker_environment(0, 1, 1, {"A": "b"}, []) == {"A": "b"}
    variables = worker_environment(1, 2, 2, {}, [])
    assert variables == {"OMP_NUM_THREADS": str(max(1, available_cores() // 4))}
    assert worker_environment(0, 2, 1, {"OMP_NUM_THREADS": "7"}, [])["OMP_NUM_THREADS"] == "7"


def test_gpus_are_dealt_out_and_shared_where_there_are_fewer_than_workers():
    def dealt(workers: int, gpus: list[str]) -> list[str]:
        each = (worker_environment(n, workers, 1, {}, gpus) for n in range(workers))
        return [variables["CUDA_VISIBLE_DEVICES"] for variables in each]

    assert dealt(2, ["0", "1", "2", "3"]) == ["0,1", "2,3"]
    assert dealt(4, ["5", "7"]) == ["5", "7", "5", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(0, 2, 1, {}, [])
    assert (
        worker_environment(0, 1, 1, {"CUDA_VISIBLE_DEVICES": "3"}, ["3"])["CUDA_VISIBLE_DEVICES"]
        == "3"
    )


def test_gpus_are_those_that_cuda_may_see_or_that_the_driver_lists(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "GPU 0: one"; echo "GPU 1: two"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus({}) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == ["1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []


def test_a_trial_is_no_run_or_rank_of_whoever_started_the_sweep():
    names = {"WANDB_RUN_ID": "x", "WANDB_SWEEP_ID": "y", "SLURM_STEP_ID": "0", "HOME": "/"}
    assert worker_environment(0, 1, 1, names, []) == {"HOME": "/"}


def test_the_table_has_a_row_a_run_and_on_a_low_terminal_those_under_way():
    sweep = read_sweep(NAME)
    point = {"objective.align_layers": [1, 2], "objective.gamma": 0.1}
    settings = [QueuedSetting(n, point, n, True, "finished" if n < 3 else "open") for n in range(5)]
    place = {"place": "", "worker": "host:1", "worker_process": "1:", "beat": 0, "process": ""}
    attempts = [
        Attempt(n, n, 0, **place, outcome="finished", began=0.0, seconds=60.0, values=(12.34567,))
        for n in range(3)
    ]
    state = sweep_state(settings, attempts, [0], 2, planned=20)
    console = Console(width=150, file=StringIO())
    console.print(status_table(sweep, state))
    text = console.file.getvalue()
    assert "layers: 3 of 60 finished, about 57 min left" in text  # 20 settings of three seeds
    assert "t000-seed0" in text
    assert "12.35" in text
    assert "host:1" in text
    assert [trial.name for trial in visible_trials(state.trials, 3)] == [
        "t002-seed0",
        "t003-seed0",
        "t004-seed0",
    ]
