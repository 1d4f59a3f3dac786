"""The batch script of experiments/slurm, unchanged, under a SLURM of small scripts.

Whatever SLURM does to a job, the script ends with the ranks' exit code, asks for the job back when
that is due, and the run ends with the bits of one that was left alone.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trials
from fake_slurm import Job, put_command

SCRIPT = Path(__file__).parents[2] / "experiments/slurm/train.sbatch"
STAND_IN = Path(__file__).parents[1] / "helpers" / "slurm_ranks.py"
Submit = Callable[..., Job]


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Submit]:
    """Run the script as a job of two tasks, whose `mic` is another command."""
    jobs: list[Job] = []

    def begin(mic: list[str], *arguments: str, **options: Any) -> Job:
        folder = tmp_path / f"job{len(jobs)}"
        folder.mkdir()
        put_command(folder / "mic", sys.executable, *mic)
        shape = {"nodes": 1, "ntasks-per-node": 2, "cpus-per-task": 1, "job-name": "mine"}
        jobs.append(Job(SCRIPT, list(arguments), folder, **shape | options))
        jobs[-1].start()
        return jobs[-1]

    yield begin
    for job in jobs:
        if job.shell.poll() is None:
            for group in (job.shell.pid, *job.tasks()):  # srun is in the shell's
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            job.shell.wait()


def wait_for(what: Callable[[], Any], job: Job, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert job.shell.poll() is None, job.log.read_text()
        assert time.monotonic() < end, job.log.read_text()
        time.sleep(0.01)


def ready(job: Job) -> bool:
    return len(list(job.folder.glob("ready.*"))) == 2


@pytest.mark.parametrize(
    ("codes", "expected", "requeued"),
    [("0,0", 0, False), ("0,1", 1, False), ("2,2", 2, False), ("143,143", 143, True)],
)
def test_only_a_job_that_was_stopped_comes_back(submit, codes, expected, requeued):
    job = submit([str(STAND_IN), "ends", codes], "my config.yaml", "seed=1", "data.a.path=x y")
    assert job.wait(20) == expected
    assert job.requeued() == requeued
    for rank in (0, 1):
        seen = json.loads((job.folder / f"said.{rank}").read_text())
        assert seen["arguments"] == [
            *("train", "my config.yaml"),
            *("name=mine", "seed=1", "data.a.path=x y"),
        ]
        assert seen["threads"] == "1"


def test_all_ranks_are_told_of_the_limit_and_the_log_goes_on(submit):
    job = submit([str(STAND_IN), "waits"], "config.yaml")
    for start in (1, 2):
        wait_for(lambda: ready(job), job)
        job.near_the_limit()
        assert job.wait(20) == 143
        assert job.requeued()
        assert job.log.read_text().count("SIGUSR1") == 2 * start
        for file in job.folder.glob("ready.*"):
            file.unlink()
        job.restarts += 1
        if start == 1:
            job.start()
    assert [line for line in job.log.read_text().splitlines() if line.startswith("job ")] == [
        f"job {job.number}, start 1, on 127.0.0.[1-1]: config.yaml",
        f"job {job.number}: saved; back into the queue",
        f"job {job.number}, start 2, on 127.0.0.[1-1]: config.yaml",
        f"job {job.number}: saved; back into the queue",
    ]


def test_a_job_that_slurm_itself_ends_is_left_to_slurm(submit):
    """The shell outlives srun, and does not call a cancelled job back."""
    job = submit([str(STAND_IN), "waits"], "config.yaml")
    wait_for(lambda: ready(job), job)
    job.end()
    assert job.wait(20) == 143
    assert job.log.read_text().count("SIGTERM") == 2
    assert len(list(job.folder.glob("saved.*"))) == 2
    assert not job.requeued()


def test_no_job_begins_its_run_anew_again_and_again(submit):
    for arguments, word in (((), "usage"), (("config.yaml", "--overwrite"), "--overwrite")):
        job = submit([str(STAND_IN), "ends", "0,0"], *arguments)
        assert job.wait(20) == 2
        assert job.log.read_text().startswith(word)
        assert job.tasks() == []


def test_who_waits_for_a_rank_that_has_failed_is_ended(submit):
    job = submit([str(STAND_IN), "hangs"], "config.yaml", second=0.01)
    assert job.wait(20) == 137
    assert not job.requeued()


def steps(run: Path) -> int:
    """The last step in a run's log."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def log(run: Path) -> list[dict[str, float]]:
    """What is the same wherever and whenever a run is trained."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [
        {key: value for key, value in line.items() if not key.startswith(("speed/", "memory/"))}
        for line in lines
    ]
    return [line for line in lines if line.keys() > {"step", "epoch"}]


@pytest.mark.slow
def test_a_run_stopped_at_the_limit_ends_as_one_that_was_left_alone(
    submit, trial_server, fork, tiny_config, tmp_path, monkeypatch
):
    """Two nodes of one task each; the run that is left alone has two ranks on one machine."""
    monkeypatch.setenv("TRIALS", trial_server["TRIALS"])
    runs = tmp_path / "runs"
    arguments = (str(tiny_config), "trainer.max_steps=40", "trainer.validate_every=10")
    job = submit(
        [trials.__file__],
        *(*arguments, "logging.wandb=offline"),
        **{"nodes": 2, "ntasks-per-node": 1, "job-name": "stopped"},
    )
    wait_for(lambda: steps(runs / "stopped") >= 3, job)
    job.near_the_limit()
    assert job.wait() == 143, job.log.read_text()
    assert job.requeued()
    reached = steps(runs / "stopped")
    assert reached < 40
    before = json.loads((runs / "stopped/run.json").read_text())
    job.restarts += 1
    job.start()
    assert job.wait() == 0, job.log.read_text()
    assert not job.requeued()

    codes, output = fork("train", *arguments, "name=whole", ranks=2)
    assert codes == [0, 0], output

    about = json.loads((runs / "stopped/run.json").read_text())
    assert about["id"] == before["id"]
    assert [(segment["step"], segment["ranks"]) for segment in about["segments"]] == [
        (0, 2),
        (reached, 2),
    ]
    mirrors = {folder.name for folder in (runs / "stopped/wandb").glob("offline-run-*")}
    assert len(mirrors) == 2
    assert {name.rpartition("-")[2] for name in mirrors} == {about["id"]}
    assert f"stopped by SIGUSR1 after step {reached}; the state is saved" in job.log.read_text()
    assert log(runs / "stopped") == log(runs / "whole")
    weights = [runs / name / "encoder/model.safetensors" for name in ("stopped", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
