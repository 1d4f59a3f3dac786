"""Sweeps with real workers and real trials: killed, stopped, failing, ended early, of two ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import postgres
import pytest
import trials
import yaml

from mic.cli.main import main
from mic.config.loading import load
from mic.sweep.folder import lay_out
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Board, Run
from mic.sweep.queue.storage import open_storage
from mic.sweep.sweep_file import read_sweep
from mic.tracking.metrics_log import read_metrics

METRIC = "val/sts/spearman/d4"
STEPS = 20


@pytest.fixture
def server(trial_server: dict[str, str]) -> dict[str, str]:
    return trial_server


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file by which a run says that it waits."""
    return tmp_path / "held"


@pytest.fixture
def sweep_file(tmp_path: Path, tiny_config: Path) -> Callable[..., Path]:
    """Writes a sweep of the tiny config: a grid of gamma and tau with two seeds, unless told."""

    def write(*overrides: str, launcher: tuple[str, ...] = (), **content: Any) -> Path:
        first = launcher or ("python", trials.__file__)
        often = {"max_steps": STEPS, "save_every": 4, "validate_every": 10}
        settings = ["dims=[4,16]", *(f"trainer.{key}={value}" for key, value in often.items())]
        command = [*first, "train", str(tiny_config), *settings, *overrides]
        whole = {
            "method": "grid",
            "metric": {"name": METRIC, "goal": "maximize"},
            "parameters": {
                "objective.gamma": {"values": [0, 10]},
                "objective.threshold": {"values": [0, 0.2]},
                "seed": {"values": [0, 1]},
            },
            "command": [*command, "${args_no_hyphens}"],
            **content,
        }
        file = tmp_path / "grid.yaml"
        file.write_text(yaml.safe_dump({key: one for key, one in whole.items() if one is not None}))
        return file

    return write


class Command:
    """`mic sweep ...`, running."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mic.cli", "sweep", *words],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, code: int = 0, patience: float = 90) -> str:
        out, _ = self.process.communicate(timeout=patience)
        assert self.process.returncode == code, out
        return out


def queue_of(file: Path, storage: str | None = None) -> Queue:
    sweep = read_sweep(file)
    return Queue(sweep, open_storage(sweep.folder, storage))


def wait_for(found: Callable[[], Any], patience: float = 60) -> Any:
    limit = time.monotonic() + patience
    while not (value := found()):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return value


def held(queue: Queue, mark: Path) -> Run:
    """The run that waits in the middle of its steps, which its file says."""
    name = wait_for(lambda: mark.exists() and mark.read_text())
    return next(run for run in queue.board().runs if run.name == name)


def segments(queue: Queue, run: Run) -> list[dict[str, Any]]:
    return json.loads((queue.sweep.folder / run.name / "run.json").read_text())["segments"]


def each_once(board: Board, runs: int) -> None:
    """Every run has finished, and none was finished twice."""
    assert [run.state for run in board.runs] == ["finished"] * runs
    for run in board.runs:
        assert [one.how for one in run.attempts].count("finished") == 1


def test_a_killed_workers_run_is_resumed_and_every_run_finished_once(sweep_file, server, mark):
    gammas = {"objective.gamma": {"values": [0, 10]}}
    file = sweep_file(parameters=gammas, seeds=[0, 1])
    command = Command({**server, "HOLD": str(mark)}, str(file), "--workers", "2")
    queue = wait_for(lambda: (file.parent / "runs/grid/journal.log").exists() and queue_of(file))
    run = held(queue, mark)
    killed = int(run.last.worker_process.partition(":")[0])
    os.kill(killed, signal.SIGKILL)
    out = command.end()
    assert f"worker {run.last.worker} is gone; its run is resumed" in out
    board = queue.board()
    each_once(board, 4)
    again = next(one for one in board.runs if one.name == run.name)
    assert [one.how for one in again.attempts] == ["lost", "finished"]
    first, second = segments(queue, again)
    assert first["step"] == 0
    assert second["step"] > 0  # at a checkpoint
    losses = read_metrics(queue.sweep.folder / run.name / "metrics.jsonl")["train/loss"]
    assert list(losses) == list(range(1, STEPS + 1))  # each step once
    others = [one for one in board.runs if one.name != run.name]
    assert all(len(segments(queue, one)) == 1 for one in others)

    for setting in board.settings:  # the optimiser sees the mean over the seeds
        values = [one.values[0] for one in board.of(setting)]
        assert setting.values == pytest.approx((sum(values) / 2,), rel=1e-12)
        assert values[0] != values[1]
    logging = load(queue.sweep.folder / "t001-seed1" / "config.yaml").logging
    assert (logging.group, logging.tags) == ("grid/t001", ["grid"])

    before = {one.name: one.attempts for one in board.runs}
    out = Command(server, str(file)).end()  # nothing is left to do, and nothing is done
    assert "4 of 4 finished; best: t" in out
    assert {one.name: one.attempts for one in queue.board().runs} == before


def test_a_stopped_worker_puts_its_run_back_and_the_same_command_goes_on(sweep_file, server, mark):
    file = sweep_file(parameters={"objective.gamma": {"values": [0, 10]}})
    command = Command({**server, "HOLD": str(mark)}, str(file))
    queue = wait_for(lambda: (file.parent / "runs/grid/journal.log").exists() and queue_of(file))
    run = held(queue, mark)
    command.process.send_signal(signal.SIGTERM)
    out = command.end(143)
    assert f"{run.name}: stopped, back in the queue" in out
    stopped = queue.board().runs[0]
    assert (stopped.state, [one.how for one in stopped.attempts]) == ("waiting", ["preempted"])
    assert "attempt 2" in Command(server, str(file)).end()
    board = queue.board()
    each_once(board, 2)
    assert len(segments(queue, board.runs[0])) == 2


def test_a_failing_trial_is_tried_again_recorded_and_the_sweep_goes_on(sweep_file, server):
    """Bad input, as a layer that is not there, is not tried again."""
    layers = {"values": [[1], [9]]}
    file = sweep_file(parameters={"objective.align_layers": layers})
    out = Command(server, str(file)).end()
    good, bad = queue_of(file).board().runs
    assert (good.state, bad.state) == ("finished", "failed")
    assert [one.how for one in bad.attempts] == ["refused"]
    assert "objective.align_layers" in bad.last.lines[-1]
    about = json.loads((file.parent / "runs/grid" / bad.name / "trial.json").read_text())
    assert about["state"] == "failed"
    assert about["lines"][-1] == bad.last.lines[-1]
    assert f"{bad.name} failed: " in out
    assert "1 of 2 finished, 1 failed" in out
    Command(server, str(file), "--retry-failed").end()
    assert [run.name for run in queue_of(file).board().runs] == ["t000-seed0", "t001-seed0"]
    again = queue_of(file).board().settings[1]
    assert (again.number, again.state) == (2, "failed")  # another try, under the old name


def test_a_trial_that_dies_is_tried_again_and_then_given_up(sweep_file, server, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os; print('no memory left', flush=True); os.kill(os.getpid(), 9)")
    file = sweep_file(launcher=("python", str(script)))
    out = Command(server, str(file), "--retries", "1").end(1)
    board = queue_of(file).board()
    assert [run.state for run in board.runs] == ["failed", "spared"] * 3
    assert [one.how for one in board.runs[0].attempts] == ["failed", "failed"]
    assert board.runs[0].last.lines[-2:] == ("no memory left", "killed by signal 9 (SIGKILL)")
    assert "the first 3 settings have all failed: the sweep stops" in out  # before the fourth
    assert "--retry-failed" in out


def test_a_poor_trial_is_ended_early(sweep_file, server, tmp_path):
    rates = [1e-3, 1.1e-3, 1.2e-3, 1.3e-3, 1e-9]
    file = sweep_file(
        metric={"name": "val/loss"},
        parameters={"trainer.learning_rate": {"values": rates}},
        early_terminate={"type": "median", "min_iter": 1},
    )
    held = {"HOLD": str(tmp_path / "held"), "HELD": "t004-seed0"}  # else it may be faster than we
    out = Command(server | held, str(file)).end()
    *good, poor = queue_of(file).board().runs
    assert (tmp_path / "held").read_text() == poor.name
    assert [run.state for run in good] == ["finished"] * 4
    assert poor.state == poor.setting.state == "pruned"
    losses = read_metrics(file.parent / "runs/grid" / poor.name / "metrics.jsonl")["train/loss"]
    assert 10 <= max(losses) < STEPS
    assert f"{poor.name}: pruned; 4 of 5 finished, 1 pruned" in out


def test_trials_of_two_ranks(sweep_file, server):
    file = sweep_file(
        launcher=("python", trials.__file__, "--nproc-per-node=2"),
        parameters={"objective.gamma": {"values": [0, 10]}},
    )
    Command(server, str(file)).end()
    queue = queue_of(file)
    each_once(queue.board(), 2)
    assert [one["ranks"] for run in queue.board().runs for one in segments(queue, run)] == [2, 2]


def test_a_metric_that_is_not_logged_stops_the_sweep_and_names_what_is(sweep_file, server):
    file = sweep_file(metric={"name": "val/sts/spearman/d5", "goal": "maximize"})
    out = Command(server, str(file)).end(2)
    assert "metric 'val/sts/spearman/d5': not logged; there are val/sts/spearman/d" in out


def test_the_dry_run_lists_the_runs_and_writes_nothing(sweep_file, capsys):
    file = sweep_file()
    assert main(["sweep", str(file), "--dry-run"]) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "seed" in line]
    assert names == [f"t{n:03d}-seed{seed}" for n in range(4) for seed in (0, 1)]
    assert not (file.parent / "runs").exists()
    assert main(["sweep", "status", str(file)]) == 2
    assert "not begun" in capsys.readouterr().err


def test_another_base_or_other_axes_under_the_same_name_are_refused(sweep_file, capsys):
    file = sweep_file()
    lay_out(read_sweep(file))
    queue_of(file)
    sweep_file(parameters={"objective.gamma": {"values": [0, 1]}})
    assert main(["sweep", str(file)]) == 2
    assert "a sweep 'grid' with other axes has begun" in capsys.readouterr().err
    sweep_file("trainer.learning_rate=0.5")
    assert main(["sweep", str(file)]) == 2
    assert "trainer.learning_rate was 0.001, is 0.5" in capsys.readouterr().err


def test_two_workers_by_hand_and_a_database_that_crashes_in_between(sweep_file, server):
    file = sweep_file(parameters={"objective.gamma": {"values": [0, 10]}}, seeds=[0, 1])
    with postgres.serving() as database:
        environment = {**server, "MIC_STORAGE": database.url}
        workers = [Command(environment, str(file)) for _ in range(2)]
        wait_for(lambda: (file.parent / "runs/grid/t000-seed0/metrics.jsonl").exists())
        queue = queue_of(file, database.url)
        database.control("restart", "-m", "immediate")
        outs = [worker.end() for worker in workers]
        now = queue.board()
    each_once(now, 4)
    assert all(len(run.attempts) == 1 for run in now.runs)
    assert len({run.last.worker for run in now.runs}) == 2
    assert not any("secret" in out for out in outs)
    assert not (file.parent / "runs/grid/journal.log").exists()
