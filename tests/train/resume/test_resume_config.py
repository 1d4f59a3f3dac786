"""Whether a run that is there already is begun anew, gone on with, left alone or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mic.cli.main import main
from mic.config.loading import load
from mic.config.schema import Config
from mic.errors import InputError
from mic.files import write_json
from mic.tracking import run_directory
from mic.train.resume.checkpoint_files import CHECKPOINTS, WholeFile, publish
from mic.train.resume.compatibility import Start, examine
from mic.train.run import train

Made = Callable[..., Config]


@pytest.fixture
def begun(tiny_config: Path) -> Made:
    """Makes the folder of a run of four steps, with a checkpoint, and perhaps results."""

    def make(saved: int | None = 2, finished: int | None = None) -> Config:
        config = load(tiny_config)
        run = run_directory.create(config)
        if saved is not None:
            (run / CHECKPOINTS).mkdir()
            partial, io = run / CHECKPOINTS / ".saving.partial", WholeFile()
            io.save_checkpoint({"step": torch.tensor(saved)}, partial)
            publish(partial, io, saved, keep=2)
        if finished is not None:
            write_json(run / "results.json", {"meta": {"steps": finished}})
        return config

    return make


def test_where_nothing_is_a_run_begins(tiny_config):
    assert examine(load(tiny_config), overwrite=False) == Start()


def test_an_unfinished_run_goes_on_at_its_checkpoint(begun):
    config = begun()
    start = examine(config, overwrite=False)
    assert (start.checkpoint.step, start.finished, start.changed) == (2, False, {})
    assert examine(config, overwrite=True) == Start()


def test_a_run_without_a_checkpoint_begins_anew(begun, capsys):
    config = begun(saved=None)
    assert examine(config, overwrite=False) == Start()
    assert "tiny: an unfinished run without a checkpoint: begun anew" in capsys.readouterr().err


def test_a_finished_run_is_left_alone(begun):
    assert examine(begun(finished=4), overwrite=False) == Start(finished=True)


def test_results_that_cannot_be_read_are_refused(begun):
    config = begun()
    (run_directory.path_of(config) / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json: not the results of a run; remove it, or"):
        examine(config, overwrite=False)


@pytest.mark.parametrize("finished", [None, 4], ids=["an unfinished run", "a finished run"])
def test_other_settings_are_refused_with_old_and_new_value_and_the_flag(begun, request, finished):
    config = begun(finished=finished)
    config.seed = 3
    config.trainer.learning_rate = 2e-3
    config.data.train["pairs"].columns = ["positive", "anchor"]
    with pytest.raises(InputError) as caught:
        examine(config, overwrite=False)
    assert str(caught.value) == (
        f"{run_directory.path_of(config)}: holds {request.node.callspec.id} with other settings: "
        "seed was 0, is 3; data.train.pairs.columns was ['anchor', 'positive'], is "
        "['positive', 'anchor']; trainer.learning_rate was 0.001, is 0.002. Choose another "
        "name=..., add --overwrite to begin anew, or go on all the same with "
        "--allow-change seed --allow-change data.train.pairs.columns "
        "--allow-change trainer.learning_rate"
    )
    assert examine(config, overwrite=True) == Start()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.save_every=1", "trainer.save_every"),
        ("trainer.devices=2", "trainer.devices"),
        ("trainer.strategy=fsdp", "trainer.strategy"),
        ("data.num_workers=2", "data.num_workers"),
        ("data.train.pairs.path=elsewhere.jsonl", "data.train.pairs.path"),
        ("evaluation.test.pairs.found.path=elsewhere.csv", "evaluation.test.pairs.found.path"),
        ("logging.csv=true", "logging.csv"),
        ("trainer.max_steps=5", "trainer.max_steps"),
    ],
)
def test_what_changes_no_result_may_change(begun, tiny_config, override, key):
    begun()
    start = examine(load(tiny_config, override), overwrite=False)
    assert start.checkpoint.step == 2
    assert list(start.changed) == [key]
    old, new = start.changed[key]
    assert old != new


def test_steps_are_added_but_not_taken_away(begun, tiny_config):
    begun(saved=4, finished=4)
    start = examine(load(tiny_config, "trainer.max_steps=9"), overwrite=False)
    assert (start.checkpoint.step, start.finished) == (4, False)
    assert start.changed == {"trainer.max_steps": [4, 9]}
    with pytest.raises(InputError, match=r"a finished run with .* trainer\.max_steps was 4, is 3"):
        examine(load(tiny_config, "trainer.max_steps=3"), overwrite=False)
    fewer = load(tiny_config, "trainer.max_steps=3")
    assert examine(fewer, overwrite=False, allow_change=["trainer.max_steps"]).finished


def test_steps_cannot_be_added_without_a_checkpoint(begun, tiny_config):
    begun(saved=None, finished=4)
    with pytest.raises(InputError, match=r"max_steps=9: .* its checkpoints are gone; add --overw"):
        examine(load(tiny_config, "trainer.max_steps=9"), overwrite=False)


@pytest.mark.parametrize(
    ("allowed", "goes_on"),
    [
        (["trainer.learning_rate", "trainer.warmup"], True),
        (["trainer"], True),
        (["trainer.learning_rate"], False),
        (["train"], False),
        (["trainer.learning"], False),
        ([], False),
    ],
)
def test_a_setting_or_a_section_may_be_allowed_to_change(begun, tiny_config, allowed, goes_on):
    begun()
    config = load(tiny_config, "trainer.learning_rate=0.1", "trainer.warmup=0.5")
    if goes_on:
        start = examine(config, overwrite=False, allow_change=allowed)
        assert start.checkpoint.step == 2
        assert set(start.changed) == {"trainer.learning_rate", "trainer.warmup"}
        return
    with pytest.raises(InputError, match="other settings"):
        examine(config, overwrite=False, allow_change=allowed)


# Real runs


@pytest.fixture
def trained(whole: Path, tmp_path: Path) -> Path:
    """A finished run of four steps and its data, in a folder of their own."""
    shutil.copytree(whole, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, pairs_file: Path, sts_file: Path
) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(pairs_file, folder / "pairs.jsonl")
    (folder / "tiny.yaml").write_text(
        f"""
name: tiny
runs: {folder / "runs"}
dims: [4, 16]
encoder: {{name: {model_folder}, max_length: 16}}
objective: {{align_layers: [1, 2]}}
data:
  train: {{pairs: {{path: {folder / "pairs.jsonl"}, columns: [anchor, positive]}}}}
  validation_rows: 20
evaluation:
  validation:
    sts: {{sts: {{path: {sts_file}, columns: [sentence1, sentence2, score]}}}}
  pca_texts: 100
trainer: {{max_steps: 4, batch_size: 16, learning_rate: 1.0e-3, validate_every: 9}}
"""
    )
    train(load(folder / "tiny.yaml"))
    return folder


def test_a_finished_run_says_so_and_nothing_is_touched(trained, capsys):
    run = trained / "runs" / "tiny"
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    assert main(["resume", str(run)]) == 0
    assert capsys.readouterr().err == (
        f"mic: {run}: has finished; nothing to do (--overwrite trains it anew)\n"
    )
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_run_that_was_moved_and_its_data_go_on(trained, capsys):
    """Where things are is not what they are; run.json says what was changed."""
    run = (trained / "runs" / "tiny").rename(trained / "moved")
    rows = (trained / "pairs.jsonl").rename(trained / "rows.jsonl")
    code = main(["resume", str(run), f"data.train.pairs.path={rows}", "trainer.max_steps=6"])
    output = capsys.readouterr().err
    assert code == 0, output
    assert f"{run}: goes on after step 4" in output
    assert json.loads((run / "results.json").read_text())["meta"]["steps"] == 6
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    assert not (trained / "runs" / "tiny").exists()
    first, second = json.loads((run / "run.json").read_text())["segments"]
    assert first == {"step": 0, "ranks": 1, "changed": {}}
    assert second["step"] == 4
    assert second["changed"]["trainer.max_steps"] == [4, 6]
    assert second["changed"]["data.train.pairs.path"][1] == str(rows)
    assert load(run / "config.yaml").trainer.max_steps == 6


def test_other_rows_under_the_same_name_are_refused(trained, capsys):
    rows, run = trained / "pairs.jsonl", trained / "runs" / "tiny"
    rows.write_text(rows.read_text().replace("cat", "cow", 1))
    more = ["resume", str(run), f"data.train.pairs.path={rows}", "trainer.max_steps=5"]
    names = ("config.yaml", "run.json", "metrics.jsonl")
    contents = [(run / name).read_bytes() for name in names]
    assert main(more) == 2
    assert [(run / name).read_bytes() for name in names] == contents
    assert capsys.readouterr().err.splitlines()[-1] == (
        "mic: error: data.train.pairs: holds other rows than when the run began; give it those, "
        "begin anew, or go on all the same with --allow-change data"
    )
    assert main([*more, "--allow-change", "data"]) == 0
    assert json.loads((run / "results.json").read_text())["meta"]["steps"] == 5
