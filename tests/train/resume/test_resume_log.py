"""What a run that stopped and went on has told its mirrors: every line once, under the same ids."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_folders, read

from mic.config.loading import load
from mic.errors import Preempted
from mic.report.run_report import report
from mic.tracking.loggers import RunLogger
from mic.tracking.wandb import mirror
from mic.train.callbacks import Progress
from mic.train.run import train

pytestmark = pytest.mark.usefixtures("no_wandb_account")
STEPS, STOPPED = 6, 3


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steady(run: Path) -> list[dict]:
    """The log without what a clock or a meter said."""
    return [
        {name: value for name, value in line.items() if not name.startswith(("speed/", "memory/"))}
        for line in logged(run)
    ]


@pytest.fixture
def resumed(tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that stopped after step 3, with every mirror, and went on to its end."""
    overrides = (
        "logging.wandb=offline",
        "logging.tensorboard=true",
        "logging.csv=true",
        f"trainer.max_steps={STEPS}",
        "trainer.validate_every=4",
    )
    run = tmp_path / "runs" / "tiny"
    calls: list[str] = []
    with monkeypatch.context() as patch:
        shown = Progress.on_train_batch_end

        def ask(self, trainer, *rest) -> None:
            shown(self, trainer, *rest)
            if trainer.global_step == STOPPED:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Progress, "on_train_batch_end", ask)
        patch.setattr(mirror.WandbMirror, "preempting", lambda _: calls.append("preempting"))
        with pytest.raises(Preempted, match=rf"stopped by SIGTERM after step {STOPPED}; "):
            train(load(tiny_config, *overrides))
    assert calls == ["preempting"]
    with (run / "metrics.jsonl").open("a") as stream:  # of steps that the checkpoint does not have
        stream.write('{"step": 4, "epoch": 0, "train/loss": 17.0}\n')
    train(load(tiny_config, *overrides))
    return run


def test_a_resumed_run_has_every_line_once_in_every_mirror(resumed, tiny_config, tmp_path):
    whole = tmp_path / "runs" / "whole"
    overrides = (f"trainer.max_steps={STEPS}", "trainer.validate_every=4", "name=whole")
    train(load(tiny_config, *overrides))
    assert steady(resumed) == steady(whole)

    lines = logged(resumed)
    with (resumed / "csv" / "metrics.csv").open() as stream:
        table = list(csv.DictReader(stream))
    losses = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert sorted(losses) == list(range(1, STEPS + 1))
    rows = [row for row in table if row["train/loss"]]
    assert len(rows) == STEPS
    assert {int(row["step"]): float(row["train/loss"]) for row in rows} == pytest.approx(losses)

    board = EventAccumulator(str(resumed / "tensorboard"))
    board.Reload()
    shown = board.Scalars("train/loss")
    assert len(shown) == STEPS
    assert {point.step: point.value for point in shown} == pytest.approx(losses, rel=1e-6)

    segments = json.loads((resumed / "run.json").read_text())["segments"]
    assert segments == [
        {"step": 0, "ranks": 1, "changed": {}},
        {"step": STOPPED, "ranks": 1, "changed": {}},
    ]
    assert json.loads((resumed / "results.json").read_text())["meta"]["segments"] == 2
    report([resumed], None)
    assert "finished, in 2 segments" in (resumed / "report.html").read_text()
    first, second = map(read, offline_folders(resumed))
    assert first.id == second.id == json.loads((resumed / "run.json").read_text())["id"]
    assert sorted(first.values("train/loss")) == [1, 2, 3]
    assert sorted(second.values("train/loss")) == [4, 5, 6]
    assert [json.loads(str(run.summary["segment"])) for run in (first, second)] == [1, 2]
    assert (first.exit_code, second.exit_code) == (1, 0)

    best = [line for line in lines if "best/loss" in line]  # it outlives the resume
    assert [line["step"] for line in best] == [4, STEPS, STEPS]
    losses = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert best[-1]["best/loss"] == pytest.approx(min(losses[4], losses[STEPS]))
    scores = [line["val/sts/spearman/d4"] for line in lines if "val/sts/spearman/d4" in line]
    assert best[-1]["best/sts/spearman/d4"] == pytest.approx(max(scores[1:]))  # 0: untrained


def test_a_log_that_is_shorter_than_its_checkpoint_says_is_told_and_kept(tmp_path, capsys):
    logger = RunLogger(tmp_path)
    logger.write({"train/loss": 1.0}, steps=1)
    held = logger.position()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    logger.cut(held, 1)
    assert capsys.readouterr().err == ""
    logger.cut(held + 1, 2)
    assert "metrics.jsonl: is shorter than at the checkpoint of step 2" in capsys.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
