"""Sweeps whose workers are killed and whose database crashes: is every run there, once?

`python experiments/sweeps/survive.py`: three sweeps through the real command line, twelve runs with
a worker killed, twelve with PostgreSQL crashing and a worker killed, and runs of two ranks under
torchrun. Writes record.md beside this file; ends with 1 if anything is not as it should be.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(HERE.parent / "torture")]

import model
import postgres

from mic.files import write_text
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import QueuedTrial
from mic.sweep.queue.storage import open_storage
from mic.sweep.sweep_file import read_sweep
from mic.tracking.metrics_log import read_metrics

WORK = ROOT / "runs" / "survive"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
PLAIN = ("mic",)
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node=2", "-m", "mic.cli")
AXES = {
    "objective.gamma": {"values": [0, 0.1, 10]},
    "objective.threshold": {"values": [0, 0.1]},
    "seed": {"values": [0, 1]},
}
Row = list[str]


def main() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    model.make(WORK / "model")
    rows = [one_machine(), database(), two_ranks()]
    write(rows)
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def sweep_file(name: str, launcher: Sequence[str], axes: dict[str, Any], *more: str) -> Path:
    file = WORK / f"{name}.yaml"
    config = HERE.relative_to(ROOT) / "base.yaml"
    settings = [f"encoder.name={WORK / 'model'}", f"runs={WORK}", *more]
    content = {
        "method": "grid",
        "metric": {"name": "val/docstrings_validation/ndcg@10/d8", "goal": "maximize"},
        "parameters": axes,
        "command": [*launcher, "train", str(config), *settings, "${args_no_hyphens}"],
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def start(file: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    say(f"mic sweep {file.name} {' '.join(more)}")
    return subprocess.Popen(
        [sys.executable, "-m", "mic.cli", "sweep", str(file), *more],
        env={**ENVIRONMENT, **environment},
        cwd=ROOT,
        text=True,
    )


def queue_of(file: Path, url: str | None = None) -> Queue:
    sweep = read_sweep(file)
    return Queue(sweep, open_storage(sweep.folder, url))


def kill_a_worker(queue: Queue, finished: int) -> tuple[QueuedTrial, int]:
    """Kill the worker of a run that is between two checkpoints; the run and the steps it had."""
    while True:
        state = queue.state()
        for trial in state.trials:
            metrics = queue.sweep.folder / trial.name / "metrics.jsonl"
            step = max(read_metrics(metrics).get("train/loss", {}), default=0)
            if state.count("finished") >= finished and trial.state == "running" and 40 < step < 150:
                assert trial.last_attempt
                os.kill(int(trial.last_attempt.worker_process.partition(":")[0]), signal.SIGKILL)
                say(f"killed worker {trial.last_attempt.worker} at {trial.name}, step {step}")
                return trial, step
        time.sleep(0.1)


def resumed(queue: Queue, trial: QueuedTrial) -> str:
    """Where a killed run went on; empty when its log is not that of one run."""
    folder = queue.sweep.folder / trial.name
    segments = json.loads((folder / "run.json").read_text())["segments"]
    steps = list(read_metrics(folder / "metrics.jsonl")["train/loss"])
    last = queue.sweep.base.trainer.max_steps
    whole = steps == list(range(5, last + 1, 5))
    return str(segments[1]["step"]) if len(segments) == 2 and whole else ""


def verdict(queue: Queue, runs: int, killed: QueuedTrial | None, ends: Sequence[int]) -> Row:
    """Whether all runs have finished, each once, and only the killed one had a second attempt."""
    state = queue.state()
    once = all(
        [attempt.outcome for attempt in trial.attempts].count("finished") == 1
        for trial in state.trials
    )
    again = [trial.name for trial in state.trials if len(trial.attempts) > 1]
    right = once and len(state.trials) == runs and again == ([killed.name] if killed else [])
    step = resumed(queue, killed) if killed else "-"
    progress = f"{state.count('finished')} of {runs}"
    good = right and bool(step) and all(code == 0 for code in ends)
    return [
        progress,
        str(sum(len(trial.attempts) for trial in state.trials)),
        step,
        "yes" if good else "NO",
    ]


def one_machine() -> Row:
    file = sweep_file("one_machine", PLAIN, AXES)
    process = start(file, "--workers", "2")
    wait_for(WORK / "one_machine" / "journal.log")
    queue = queue_of(file)
    trial, step = kill_a_worker(queue, 2)
    code = process.wait()
    told = f"2 workers of one `mic sweep`, journal file; one killed by SIGKILL at step {step}"
    return [told, *verdict(queue, 12, trial, [code])]


def database() -> Row:
    file = sweep_file("database", PLAIN, AXES)
    with postgres.serving() as server:
        workers = [start(file, MIC_STORAGE=server.url) for _ in range(2)]
        wait_for(WORK / "database" / "t000-seed0" / "metrics.jsonl")
        queue = queue_of(file, server.url)
        while queue.state().count("finished") < 3:
            time.sleep(0.2)
        say("the server crashes and comes back")
        server.control("restart", "-m", "immediate")
        trial, step = kill_a_worker(queue, 4)
        ends = [worker.wait() for worker in workers]
        assert sorted(ends) == [-9, 0], ends
        told = "2 workers by hand, PostgreSQL, which crashes and restarts; "
        told += f"one worker killed at step {step}"
        return [told, *verdict(queue, 12, trial, [])]


def two_ranks() -> Row:
    axes = {"objective.gamma": {"values": [0, 0.1]}}
    file = sweep_file("two_ranks", TORCHRUN, axes)
    code = start(file).wait()
    queue = queue_of(file)
    row = verdict(queue, 2, None, [code])
    for trial in queue.state().trials:
        about = json.loads((queue.sweep.folder / trial.name / "run.json").read_text())
        if [one["ranks"] for one in about["segments"]] != [2]:
            row[-1] = "NO"
    return ["trials of 2 ranks under torchrun, 1 worker", *row]


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.1)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def write(rows: Sequence[Row]) -> None:
    packages = ("mic-embeddings", "optuna", "psycopg", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    head = ["sweep", "runs finished", "attempts", "resumed at step", "as it should be"]
    lines = [
        "Written by `python experiments/sweeps/survive.py`; "
        f"Python {platform.python_version()}, {versions}, {os.cpu_count()} CPU cores.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    write_text(HERE / "record.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
