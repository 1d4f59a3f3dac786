"""The batch script of a sweep's workers, under a SLURM of small scripts.

However SLURM ends a task, the worker has time to save its trial, and the task alone comes back when
that is due.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_slurm import Job, put_command

from mic.errors import InputError
from mic.sweep.engines.slurm import write_array_job
from mic.sweep.sweep_file import read_sweep

STAND_IN = str(Path(__file__).parents[1] / "helpers" / "slurm_ranks.py")
Submit = Callable[..., Job]
PATIENCE = 600.0  # seconds after which a test that hangs is ended


def sweep_file(config: Path, **content: Any) -> Path:
    file = config.parent / "my sweep.yaml"
    usual = {
        "name": "mine",
        "method": "grid",
        "metric": {"name": "val/sts/spearman/d4", "goal": "maximize"},
        "parameters": {"objective.gamma": {"values": [0, 0.1]}},
        "command": ["mic", "train", str(config), "${args_no_hyphens}"],
    }
    file.write_text(yaml.safe_dump(usual | content))
    return file


@pytest.fixture
def submit(tmp_path: Path, tiny_config: Path) -> Iterator[Submit]:
    """Run the script as the first task of its job, whose `mic` is another command."""
    jobs: list[Job] = []
    script = write_array_job(read_sweep(sweep_file(tiny_config)), 3, ["--note", "a b"])

    def begin(*mic: str, script: Path = script, **options: Any) -> Job:
        folder = tmp_path / f"job{len(jobs)}"
        folder.mkdir()
        put_command(folder / "mic", *mic)
        jobs.append(Job(script, [], folder, **options))
        jobs[-1].start()
        return jobs[-1]

    yield begin
    for job in jobs:
        if job.shell.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(job.shell.pid, signal.SIGKILL)  # the worker is in the shell's group
            job.shell.wait()


def wait_for(condition: Callable[[], Any], job: Job) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert job.shell.poll() is None, job.log.read_text()
        assert time.monotonic() < end, job.log.read_text()
        time.sleep(0.01)


TRIAL = """
import json, signal, sys, time
from pathlib import Path
run = Path(sys.argv[-1]).parent
if (run / "saved").exists():
    line = json.dumps({"step": 4, "val/sts/spearman/d4": 0.5})
    (run / "metrics.jsonl").write_text(f"{line}\\n")
    sys.exit(0)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
(run / "ready").touch()
while not asked:
    time.sleep(0.01)
(run / "saved").touch()
sys.exit(143)
"""


def is_ready(job: Job) -> bool:
    return (job.folder / "ready.0").exists()


def test_the_script_is_a_job_of_so_many_workers(tiny_config, tmp_path):
    file = sweep_file(tiny_config)
    script = write_array_job(read_sweep(file), 8, ["--retries=2"])
    assert script == tmp_path / "runs/mine/sweep.sbatch"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text()
    assert f"\nmic sweep '{file}' --workers 1 --retries=2 &\n" in text
    head = [line.partition("--")[2] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert head == [
        *("job-name=mine", "array=1-8", "nodes=1", "ntasks=1"),
        *("gpus-per-task=1", "cpus-per-task=8", "time=12:00:00"),
        *("signal=B:USR1@120", "requeue", "open-mode=append"),
        f"output={tmp_path}/runs/mine/%x-%A_%a.log",
    ]
    assert [file.name for file in script.parent.iterdir()] == ["sweep.sbatch"]


def test_a_trial_of_several_processes_has_a_gpu_for_each(tiny_config):
    words = ["mic", "train", str(tiny_config), "trainer.devices=2", "${args_no_hyphens}"]
    text = write_array_job(read_sweep(sweep_file(tiny_config, command=words)), 1, []).read_text()
    assert "\n#SBATCH --gpus-per-task=2\n#SBATCH --cpus-per-task=16\n" in text


@pytest.mark.parametrize("option", [["--storage", "postgresql://me:word@db/x"], ["--storage=x"]])
def test_no_password_is_written_down(tiny_config, tmp_path, option):
    sweep = read_sweep(sweep_file(tiny_config))
    with pytest.raises(InputError, match="export MIC_STORAGE=URL before you call sbatch"):
        write_array_job(sweep, 1, option)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (1, False), (2, False), (143, True), (137, False)]
)
def test_only_a_worker_that_was_stopped_comes_back(submit, tmp_path, code, requeued):
    job = submit(sys.executable, STAND_IN, "ends", str(code), cpus_per_task=3)
    assert job.wait(PATIENCE) == code
    assert job.requeued() == requeued
    call = json.loads((job.folder / "said.0").read_text())
    file = str(tmp_path / "my sweep.yaml")
    assert call["arguments"] == ["sweep", file, "--workers", "1", "--note", "a b"]
    assert call["threads"] == "3"


def test_the_worker_is_told_of_the_limit_and_the_log_goes_on(submit):
    job = submit(sys.executable, STAND_IN, "waits")
    for start in (1, 2):
        wait_for(lambda: is_ready(job), job)
        (job.folder / "ready.0").unlink()
        job.near_the_limit()
        assert job.wait(PATIENCE) == 143
        assert (job.folder / "saved.0").exists()
        assert job.requeued()
        job.restarts += 1
        if start == 1:
            job.start()
    task = f"{job.number}_1"
    assert job.log.name == f"mine-{task}.log"
    assert job.log.read_text().splitlines() == [
        f"job {task}, start 1, on 127.0.0.[1-1]",
        "SIGTERM",
        f"job {task}: saved; back into the queue",
        f"job {task}, start 2, on 127.0.0.[1-1]",
        "SIGTERM",
        f"job {task}: saved; back into the queue",
    ]


@pytest.mark.parametrize("all_processes", [False, True])
def test_a_task_that_slurm_itself_ends_is_left_to_slurm(submit, all_processes):
    """The shell outlives its worker, whether SLURM tells it alone or all processes."""
    job = submit(sys.executable, STAND_IN, "waits")
    wait_for(lambda: is_ready(job), job)
    if all_processes:
        os.killpg(job.shell.pid, signal.SIGTERM)
    else:
        job.end()
    assert job.wait(PATIENCE) == 143
    assert (job.folder / "saved.0").exists()
    assert not job.requeued()


def test_a_task_that_is_told_twice_waits_for_its_worker(submit):
    """Preempted near the limit: SLURM has the last word."""
    job = submit(sys.executable, STAND_IN, "waits_to_save")
    wait_for(lambda: is_ready(job), job)
    job.near_the_limit()
    wait_for((job.folder / "asked.0").exists, job)
    job.end()
    (job.folder / "save").touch()
    assert job.wait(PATIENCE) == 143
    assert (job.folder / "saved.0").exists()
    assert not job.requeued()


def test_a_worker_that_is_still_starting_comes_back_too(submit):
    """Told before there is a worker, or before it listens."""
    job = submit("sh", "-c", "exec sleep 60")
    wait_for(lambda: job.log.read_text(), job)
    job.near_the_limit()
    assert job.wait(PATIENCE) == 143
    assert job.requeued()


@pytest.mark.slow
def test_a_real_worker_saves_its_trial_and_ends_the_sweep(submit, tiny_config, tmp_path):
    """Its trial is a stand-in, which goes on where it was."""
    program = tmp_path / "trial.py"
    program.write_text(TRIAL)
    words = ["python", str(program), "train", str(tiny_config), "${args_no_hyphens}"]
    parameters = {"objective.gamma": {"values": [0.1]}}
    file = sweep_file(tiny_config, name="real", command=words, parameters=parameters)
    script = write_array_job(read_sweep(file), 1, ["--retries=2"])
    job = submit(sys.executable, "-m", "mic.cli", script=script)
    run = tmp_path / "runs/real/t000-seed0"
    wait_for((run / "ready").exists, job)
    job.near_the_limit()
    assert job.wait(PATIENCE) == 143
    assert (run / "saved").exists()
    assert job.requeued()
    job.restarts += 1
    job.start()
    assert job.wait(PATIENCE) == 0
    assert not job.requeued()
    log = job.log.read_text()
    assert "t000-seed0: stopped, back in the queue; 0 of 1 finished" in log
    assert "t000-seed0: gamma=0.1, attempt 2" in log
    assert "1 of 1 finished; best: t000 (gamma=0.1)" in log
