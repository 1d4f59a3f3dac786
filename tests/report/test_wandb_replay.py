"""`mic sync`: a run's files, replayed, are the W&B run that was or could have been."""

import json
from pathlib import Path

import pytest
import wandb
from fake_wandb import KEY, FakeWandb, serving
from wandb_files import offline_folders, read

from mic.cli.main import main
from mic.config import loading
from mic.config.schema import Config
from mic.errors import InputError, RunError
from mic.files import write_json
from mic.report.wandb_replay import merge_steps, sync
from mic.tracking import run_directory
from mic.train.run import train

pytestmark = pytest.mark.usefixtures("no_wandb_account")


def write_run(folder: Path, lines: list[dict], end: str = "\n") -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(loading.to_yaml(Config(name="mine")))
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + end)
    return folder


RESUMED = [
    {"step": 0, "epoch": 0, "val/loss": 9.0},
    {"step": 1, "epoch": 0, "train/loss": 3.0},
    {"step": 2, "epoch": 0, "train/loss": 2.0, "geometry/rows": 40},
    {"step": 2, "epoch": 0, "val/loss": 7.0},
    {"step": 3, "epoch": 0, "train/loss": None},
    {"step": 2, "epoch": 1, "train/loss": 2.5},  # resumed from step 1
]


def test_lines_of_one_step_are_one_and_the_last_value_holds(tmp_path):
    run = write_run(tmp_path / "run", RESUMED)
    steps = merge_steps(run / "metrics.jsonl")
    assert list(steps) == [0, 1, 2, 3]
    assert steps[2] == {"epoch": 1, "train/loss": 2.5, "geometry/rows": 40, "val/loss": 7.0}
    assert str(steps[3]["train/loss"]) == "nan"


def test_a_line_that_was_cut_off_is_left_out_and_another_that_is_broken_is_named(tmp_path):
    cut = write_run(tmp_path / "cut", RESUMED[:2], end='\n{"step": 2, "tr')
    assert list(merge_steps(cut / "metrics.jsonl")) == [0, 1]
    broken = write_run(tmp_path / "broken", RESUMED[:2], end="\noops\n")
    with pytest.raises(InputError, match=r"metrics.jsonl: line 3 is not of mic; remove it"):
        merge_steps(broken / "metrics.jsonl")


def test_what_is_replayed_is_what_a_live_run_logs(tiny_config, tmp_path, monkeypatch, capsys):
    loaded = loading.load(tiny_config, "logging.wandb=offline", "monitor.balance_every=2")
    train(loaded)
    folder = tmp_path / "runs" / "tiny"
    (live,) = map(read, offline_folders(folder))
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    capsys.readouterr()
    assert main(["sync", str(folder)]) == 0
    shown = capsys.readouterr()
    assert [shown.out.strip()] == [str(offline_folders(folder)[-1])]
    replayed = read(offline_folders(folder)[-1])

    assert replayed.id == live.id
    assert replayed.config == live.config
    assert replayed.keys == live.keys
    unknown = {"NaN": None, "Infinity": None}  # null in metrics.jsonl
    for name in live.keys:
        expected = {step: unknown.get(str(x), x) for step, x in live.values(name).items()}
        sent = {step: unknown.get(str(x), x) for step, x in replayed.values(name).items()}
        assert sent == expected, name
    histograms = {name for name in live.keys if live.kind(name) == {"histogram"}}
    assert histograms == {f"geometry/spectrum/d{d}" for d in (4, 8, 16, 32)} | {"geometry/variance"}
    for name in histograms:  # snapshots keep fp32, so that a value may fall into the next bin
        for step, bins in live.values(f"{name}.bins").items():
            assert replayed.values(f"{name}.bins")[step] == pytest.approx(bins, rel=1e-4)
        for step, counts in live.values(f"{name}.values").items():
            assert sum(replayed.values(f"{name}.values")[step]) == sum(counts)
    pictures = {name for name in live.keys if live.kind(name) == {"image-file"}}
    assert {"figures/quality", "figures/variance", "figures/cross_correlation"} < pictures
    assert "correlation/map/d16" in pictures
    steps = [row["trainer/global_step"] for row in replayed.history]
    assert steps == sorted(steps)

    results = json.loads((folder / "results.json").read_text())
    for run in (live, replayed):
        assert run.exit_code == 0
        for dim, value in results["found"]["ndcg@10"].items():
            assert run.summary[f"results/found/ndcg@10/d{dim}"] == pytest.approx(value)
        assert run.summary["meta/steps"] == 4
        assert f"baselines/PCA/sts/spearman/d{dim}" in run.summary


def history(fake: FakeWandb, run: str) -> list[dict]:
    return [
        {name: value for name, value in row.items() if not name.startswith("_")}
        for row in fake.rows[run]
    ]


def test_a_run_synced_again_is_a_whole_new_one_beside_the_old(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", RESUMED)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        assert sync(folder).endswith(f"/me/mic/runs/{run_directory.run_info(folder)['id']}")
        first = run_directory.run_info(folder)
        run_id = first["id"]
        assert first == {"id": run_id, "synced": [run_id]}
        expected = [
            {"trainer/global_step": step, **values}
            for step, values in merge_steps(folder / "metrics.jsonl").items()
        ]
        expected[-1]["train/loss"] = "NaN"
        assert history(fake, run_id) == expected

        with (folder / "metrics.jsonl").open("a") as stream:
            stream.write('{"step": 4, "epoch": 1, "train/loss": 1.0}\n')
        sync(folder)
        more = {"trainer/global_step": 4, "epoch": 1, "train/loss": 1.0}
        assert history(fake, f"{run_id}-2") == [*expected, more]
        assert history(fake, run_id) == expected  # nothing doubles

        write_json(folder / "run.json", {"id": run_id})  # only W&B knows
        sync(folder)
        assert set(fake.rows) == {run_id, f"{run_id}-2", f"{run_id}-3"}
        assert run_directory.run_info(folder) == {"id": run_id, "synced": [f"{run_id}-3"]}
        wandb.teardown()


def test_what_is_no_run_and_who_has_no_key_get_one_line(tmp_path, monkeypatch, capsys):
    assert main(["sync", str(tmp_path / "absent")]) == 2
    assert "absent: no run; name a folder that `mic train` made" in capsys.readouterr().err
    folder = write_run(tmp_path / "run", RESUMED)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert main(["sync", str(folder)]) == 2
    message = capsys.readouterr().err
    assert message == (
        "mic: error: W&B: no key for wandb.example; `wandb login` or set WANDB_API_KEY\n"
    )


def test_a_server_that_falls_silent_ends_a_sync_with_the_reason(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", RESUMED)
    monkeypatch.setattr("mic.report.wandb_replay.PATIENCE", (5.0, 1.0))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        fake.silent_after("UpsertBucket")
        with pytest.raises(RunError, match=r"W&B: .*; try again later: mic sync .*run"):
            sync(folder)
        wandb.teardown()
    assert "synced" not in run_directory.run_info(folder)
