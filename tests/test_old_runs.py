"""A run, its checkpoint, an export and a sweep that mic wrote before it had packages still load."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentences import sentence

from mic.cli.main import main

OLD = Path(__file__).parent / "old_runs"
SUITE = """
sts: {sts: {path: sts.csv, columns: [sentence1, sentence2, score]}}
pairs: {heldout: {path: pairs.jsonl, columns: [anchor, positive], limit: 50}}
"""
TEXTS = [sentence(number) for number in (0, 17, 345)]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, with the process in it: their configs name files relative to it."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def scores(results: Path) -> dict[str, dict[str, float]]:
    tasks = json.loads(results.read_text())
    return {name: values for name, values in tasks.items() if name != "meta"}


def test_a_finished_run_is_left_as_it_is(old, capsys):
    before = (old / "runs/run/results.json").read_bytes()
    assert main(["train", "run.yaml"]) == 0
    assert "has finished" in capsys.readouterr().err
    assert (old / "runs/run/results.json").read_bytes() == before


def test_the_report_of_a_run_has_its_figures(old):
    assert main(["report", "runs/run"]) == 0
    page = (old / "runs/run/report.html").read_text()
    final = scores(old / "runs/run/results.json")["sts"]["spearman"]["4"]
    assert f"{final:.1f}" in page


def test_evaluation_gives_the_scores_that_training_had(old):
    (old / "suite.yaml").write_text(SUITE)
    arguments = ["runs/run", "--suite", "suite.yaml", "--no-baselines", "--to", "evaluated"]
    assert main(["evaluate", *arguments]) == 0
    (results,) = (old / "evaluated").rglob("results.json")
    trained = scores(old / "runs/run/results.json")
    evaluated = scores(results)
    for task in evaluated.keys() & trained.keys():
        for metric, by_width in evaluated[task].items():
            for width, value in by_width.items():
                assert value == pytest.approx(trained[task][metric][width], abs=0.01)
    assert evaluated.keys() & trained.keys()


def test_run_and_export_give_the_same_vectors(old):
    from mic.encoder import Encoder

    run, export = Encoder.from_pretrained("runs/run"), Encoder.from_pretrained("export")
    for dim in (4, 8, 16, 32):
        np.testing.assert_allclose(
            export.encode(TEXTS, dim=dim), run.encode(TEXTS, dim=dim), atol=1e-6
        )


def test_a_run_is_exported_as_it_was_then(old):
    from safetensors.numpy import load_file

    assert main(["export", "runs/run", "--to", "again"]) == 0
    then, now = load_file("export/model.safetensors"), load_file("again/model.safetensors")
    assert then.keys() == now.keys()
    for name, weights in then.items():
        np.testing.assert_array_equal(now[name], weights)


def test_an_interrupted_run_goes_on_from_its_old_checkpoint(old):
    """From step 2 to the weights of step 4, but for what another CPU rounds."""
    from safetensors.numpy import load_file

    run = old / "runs/run"
    shutil.move(run / "encoder", old / "then")
    (run / "results.json").unlink()
    assert main(["resume", "runs/run"]) == 0
    segments = json.loads((run / "run.json").read_text())["segments"]
    assert [segment["step"] for segment in segments] == [0, 2]
    then, now = (
        load_file(old / "then/model.safetensors"),
        load_file(run / "encoder/model.safetensors"),
    )
    for name, weights in then.items():
        np.testing.assert_allclose(now[name], weights, atol=1e-5)


def test_one_length_stays_the_length_for_everything(old):
    from mic.tracking.run_directory import read_config

    encoder = read_config(Path("runs/run")).encoder
    assert encoder.max_length == encoder.eval_max_length == encoder.save_max_length == 16


def test_a_finished_sweep_is_reported_and_not_trained_again(old, capsys):
    trials = sorted(file for file in (old / "runs/sweep").rglob("results.json"))
    before = [file.read_bytes() for file in trials]
    assert main(["sweep", "sweep.yaml"]) == 0
    assert main(["sweep", "status", "sweep.yaml"]) == 0
    assert "4" in capsys.readouterr().out
    assert main(["report", "--sweep", "runs/sweep"]) == 0
    table = (old / "runs/sweep/table.md").read_text()
    assert "gamma" in table
    assert (old / "runs/sweep/best.yaml").is_file()
    assert len(trials) == 4
    assert [file.read_bytes() for file in trials] == before
