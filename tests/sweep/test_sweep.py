"""Sweeps with real workers and real trials: killed, stopped, failing, ended early, of two ranks.

Tests wait for events: a trial's file, a worker in the queue. PATIENCE only ends a test that hangs.
"""

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
from mic.sweep.folder import create_folder
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import QueuedTrial, SweepState
from mic.sweep.queue.storage import open_storage
from mic.sweep.sweep_file import read_sweep
from mic.tracking.metrics_log import read_metrics

METRIC = "val/sts/spearman/d4"
STEPS = 20
PATIENCE = 600.0  # seconds


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
        given = {key: item for key, item in whole.items() if item is not None}
        file.write_text(yaml.safe_dump(given))
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

    def end(self, code: int = 0) -> str:
        out, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, out
        return out


def queue_of(file: Path, storage: str | None = None) -> Queue:
    sweep = read_sweep(file)
    return Queue(sweep, open_storage(sweep.folder, storage))


def wait_for(condition: Callable[[], Any], *commands: Command) -> Any:
    """Wait until a condition holds, while all of these commands run; returns its value."""
    limit = time.monotonic() + PATIENCE
    while not (value := condition()):
        for command in commands:
            assert command.process.poll() is None, command.process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.05)
    return value


def held_trial(file: Path, mark: Path, command: Command) -> tuple[Queue, QueuedTrial]:
    """The queue of a running sweep, and its trial that waits in the middle of its steps."""
    name = wait_for(lambda: mark.exists() and mark.read_text(), command)
    queue = queue_of(file)
    return queue, next(trial for trial in queue.state().trials if trial.name == name)


def segments(queue: Queue, trial: QueuedTrial) -> list[dict[str, Any]]:
    return json.loads((queue.sweep.folder / trial.name / "run.json").read_text())["segments"]


def each_once(state: SweepState, trials: int) -> None:
    """Every run has finished, and none was finished twice."""
    assert [trial.state for trial in state.trials] == ["finished"] * trials
    for trial in state.trials:
        assert [attempt.outcome for attempt in trial.attempts].count("finished") == 1


@pytest.mark.slow
def test_a_killed_workers_run_is_resumed_and_every_run_finished_once(sweep_file, server, mark):
    gammas = {"objective.gamma": {"values": [0, 10]}}
    file = sweep_file(parameters=gammas, seeds=[0, 1])
    command = Command({**server, "HOLD": str(mark)}, str(file), "--workers", "2")
    queue, trial = held_trial(file, mark, command)
    killed = int(trial.last_attempt.worker_process.partition(":")[0])
    os.kill(killed, signal.SIGKILL)
    out = command.end()
    assert f"worker {trial.last_attempt.worker} is gone; its trial is resumed" in out
    state = queue.state()
    each_once(state, 4)
    again = next(other for other in state.trials if other.name == trial.name)
    assert [attempt.outcome for attempt in again.attempts] == ["lost", "finished"]
    first, second = segments(queue, again)
    assert first["step"] == 0
    assert second["step"] > 0  # at a checkpoint
    losses = read_metrics(queue.sweep.folder / trial.name / "metrics.jsonl")["train/loss"]
    assert list(losses) == list(range(1, STEPS + 1))  # each step once
    others = [other for other in state.trials if other.name != trial.name]
    assert all(len(segments(queue, other)) == 1 for other in others)

    for setting in state.settings:  # the optimiser sees the mean over the seeds
        values = [trial.values[0] for trial in state.trials_of(setting)]
        assert setting.values == pytest.approx((sum(values) / 2,), rel=1e-12)
        assert values[0] != values[1]
    logging = load(queue.sweep.folder / "t001-seed1" / "config.yaml").logging
    assert (logging.group, logging.tags) == ("grid/t001", ["grid"])

    before = {trial.name: trial.attempts for trial in state.trials}
    out = Command(server, str(file)).end()  # nothing is left to do, and nothing is done
    assert "4 of 4 finished; best: t" in out
    assert {trial.name: trial.attempts for trial in queue.state().trials} == before


def test_a_stopped_worker_puts_its_run_back_and_the_same_command_goes_on(sweep_file, server, mark):
    file = sweep_file(parameters={"objective.gamma": {"values": [0, 10]}})
    command = Command({**server, "HOLD": str(mark)}, str(file))
    queue, trial = held_trial(file, mark, command)
    command.process.send_signal(signal.SIGTERM)
    out = command.end(143)
    assert f"{trial.name}: stopped, back in the queue" in out
    stopped = queue.state().trials[0]
    assert stopped.state == "waiting"
    assert [attempt.outcome for attempt in stopped.attempts] == ["preempted"]
    assert "attempt 2" in Command(server, str(file)).end()
    state = queue.state()
    each_once(state, 2)
    assert len(segments(queue, state.trials[0])) == 2


def test_a_failing_trial_is_tried_again_recorded_and_the_sweep_goes_on(sweep_file, server):
    """Bad input, as a layer that is not there, is not tried again."""
    layers = {"values": [[1], [9]]}
    file = sweep_file(parameters={"objective.align_layers": layers})
    out = Command(server, str(file)).end()
    good, bad = queue_of(file).state().trials
    assert (good.state, bad.state) == ("finished", "failed")
    assert [attempt.outcome for attempt in bad.attempts] == ["refused"]
    assert "objective.align_layers" in bad.last_attempt.lines[-1]
    about = json.loads((file.parent / "runs/grid" / bad.name / "trial.json").read_text())
    assert about["state"] == "failed"
    assert about["lines"][-1] == bad.last_attempt.lines[-1]
    assert f"{bad.name} failed: " in out
    assert "1 of 2 finished, 1 failed" in out
    Command(server, str(file), "--retry-failed").end()
    assert [trial.name for trial in queue_of(file).state().trials] == ["t000-seed0", "t001-seed0"]
    again = queue_of(file).state().settings[1]
    assert (again.number, again.state) == (2, "failed")  # another try, under the old name


@pytest.mark.slow
def test_a_trial_that_dies_is_tried_again_and_then_given_up(sweep_file, server, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os; print('no memory left', flush=True); os.kill(os.getpid(), 9)")
    file = sweep_file(launcher=("python", str(script)))
    out = Command(server, str(file), "--retries", "1").end(1)
    state = queue_of(file).state()
    assert [trial.state for trial in state.trials] == ["failed", "spared"] * 3
    assert [attempt.outcome for attempt in state.trials[0].attempts] == ["failed", "failed"]
    assert state.trials[0].last_attempt.lines[-2:] == (
        "no memory left",
        "killed by signal 9 (SIGKILL)",
    )
    assert "the first 3 settings have all failed: the sweep stops" in out  # before the fourth
    assert "--retry-failed" in out


def test_a_poor_trial_is_ended_early(sweep_file, server, mark):
    rates = [1e-3, 1.1e-3, 1.2e-3, 1.3e-3, 1e-9]
    file = sweep_file(
        metric={"name": "val/loss"},
        parameters={"trainer.learning_rate": {"values": rates}},
        early_terminate={"type": "median", "min_iter": 1},
    )
    # it waits to be ended, as it may be faster than its worker; a slow one is ended before that
    held = {"HOLD": str(mark), "HELD": "t004-seed0"}
    out = Command(server | held, str(file)).end()
    *good, poor = queue_of(file).state().trials
    assert poor.name == "t004-seed0"
    assert [trial.state for trial in good] == ["finished"] * 4
    assert poor.state == poor.setting.state == "pruned"
    losses = read_metrics(file.parent / "runs/grid" / poor.name / "metrics.jsonl")["train/loss"]
    assert 10 <= max(losses) < STEPS
    assert f"{poor.name}: pruned; 4 of 5 finished, 1 pruned" in out


@pytest.mark.slow
def test_trials_of_two_ranks(sweep_file, server):
    file = sweep_file(
        launcher=("python", trials.__file__, "--nproc-per-node=2"),
        parameters={"objective.gamma": {"values": [0, 10]}},
    )
    Command(server, str(file)).end()
    queue = queue_of(file)
    each_once(queue.state(), 2)
    for trial in queue.state().trials:
        assert [segment["ranks"] for segment in segments(queue, trial)] == [2]


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
    create_folder(read_sweep(file))
    queue_of(file)
    sweep_file(parameters={"objective.gamma": {"values": [0, 1]}})
    assert main(["sweep", str(file)]) == 2
    assert "a sweep 'grid' with other axes has begun" in capsys.readouterr().err
    sweep_file("trainer.learning_rate=0.5")
    assert main(["sweep", str(file)]) == 2
    assert "trainer.learning_rate was 0.001, is 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_by_hand_and_a_database_that_crashes_in_between(sweep_file, server, mark):
    """The first trial waits in its middle until both workers have one, and over the crash."""
    file = sweep_file(parameters={"objective.gamma": {"values": [0, 10]}}, seeds=[0, 1])
    with postgres.serving() as database:
        environment = {**server, "MIC_STORAGE": database.url, "HOLD": str(mark)}
        workers = [Command(environment, str(file)) for _ in range(2)]
        wait_for(mark.exists, *workers)
        queue = queue_of(file, database.url)
        wait_for(lambda: len(names_of_workers(queue)) == 2, *workers)
        database.control("restart", "-m", "immediate")
        mark.with_suffix(".go").touch()
        outs = [worker.end() for worker in workers]
        state = queue.state()
    each_once(state, 4)
    assert all(len(trial.attempts) == 1 for trial in state.trials)
    assert len({trial.last_attempt.worker for trial in state.trials}) == 2
    assert not any("secret" in out for out in outs)
    assert not (file.parent / "runs/grid/journal.log").exists()


def names_of_workers(queue: Queue) -> set[str]:
    """The workers that have begun a trial."""
    return {attempt.worker for trial in queue.state().trials for attempt in trial.attempts}
