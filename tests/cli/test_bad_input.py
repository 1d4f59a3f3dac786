"""Bad input through the command line: one line that names value and cure, and nothing left behind.

Exit codes: 2 for bad input, 1 for a run that failed.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mic.cli.main import main

Refusal = Callable[..., str]
ZEROS = "a" + "0" * 63


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Runs `mic` and returns the message of its only `mic: error:` line, once the code is right."""

    def run(*arguments: object, code: int = 2) -> str:
        assert main([str(argument) for argument in arguments]) == code
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("mic: error: ")]
        assert len(errors) == 1
        if code == 2:
            assert captured.err.splitlines() == errors
        return errors[0].removeprefix("mic: error: ")

    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def broken_model(model_folder: Path, tmp_path: Path) -> Path:
    """The model with the second half of its weights cut off."""
    folder = shutil.copytree(model_folder, tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


@pytest.mark.parametrize(
    ("overrides", "value", "cure"),
    [
        ("max_stps=3", "'max_stps'", "did you mean 'trainer.max_steps'"),
        ("trainer.max_steps=many", "'many'", "Integer"),
        ("dims=[16,8]", "dims [16, 8]", "did you mean [8, 16]"),
        ("dims=[16,64]", "width 64", "above the embedding's 32; remove it"),
        ("evaluation.dims=[33]", "width 33", "remove it"),
        ("encoder.projection=8", "width 16", "above the embedding's 8; remove it"),
        ("objective.align_layers=[1,7]", "layer 7", "to 3; correct objective.align_layers"),
        ("objective.align_layers=[-1]", "layer -1", "correct objective.align_layers"),
        ("objective.align_layers=[outptu]", "'outptu'", "write its number, a share"),
        ("objective.align_layers=['1']", "'1'", "write its number, a share"),
        ("objective.align_layers=[]", "[]", "set objective.gamma=0"),
        ("encoder.freeze_layers=4", "encoder.freeze_layers=4", "the backbone has 3"),
        ("encoder={freeze_embeddings: true, freeze_layers: 3}", "freeze_layers=3", "freeze fewer"),
        ("trainer.learning_rate=1e300", "learning_rate=1e+300", "must be below"),
        ("trainer.batch_size=181", "trainer.batch_size=181", "a smaller batch"),
        ("trainer.batch_size=1", "trainer.batch_size=1", "at least 2"),
        ("seed=-1", "seed=-1", "at least 0"),
        (f"encoder.sha256={ZEROS}", ZEROS, "correct encoder.sha256"),
        ("encoder.name=nobody/nothing", "'nobody/nothing'", "give a local folder"),
        ("encoder.name=package:nothing_here", "nothing_here", "pip install nothing-here"),
        ("encoder.name=no/such/folder/at/all", "'no/such/folder/at/all'", "give a local folder"),
        ("data.train.pairs.path=nothing.jsonl", "nothing.jsonl", "no such file"),
        ("data.train.pairs.columns=[anchor,nope]", "'nope'", "it has ['anchor', 'positive'"),
        ("data.train.pairs.columns=[]", "pairs.jsonl", "set `columns`"),
        ("data.train.more.columns=[a]", "data.train.more.path", "give it a value"),
        ("evaluation.test.sts.found={path: x.csv}", "x.csv", "name three: two texts and a score"),
        ("evaluation.validation.sts.sts.columns=[sentence1,sentence2,sentence1]", "'the ", "mend"),
        ("name=a/b", "'a/b'", "one folder name"),
    ],
)
def test_a_bad_override_is_refused_before_anything_is_written(
    refusal: Refusal, tiny_config: Path, runs: Path, overrides: str, value: str, cure: str
) -> None:
    message = refusal("train", tiny_config, overrides)
    assert value in message
    assert cure in message
    assert not runs.exists()


@pytest.mark.parametrize(
    ("name", "content", "value", "cure"),
    [
        ("x.jsonl", b"", "x.jsonl: empty", "give a file with at least one row"),
        ("x.csv", b"anchor,other\na,b\n", "no column 'positive'", "it has ['anchor', 'other']"),
        ("x.jsonl", b'{"anchor": "a", "positive": ""}\n', "row 1", "data.on_bad_row=skip"),
        ("x.jsonl", b'{"anchor": "a"\n', "row 1: not jsonl", "mend the row"),
        ("x.jsonl.gz", b'{"anchor": "a"}\n', "after row 0", "drop .gz from its name"),
        ("x.parquet", b"anchor,positive\n", "row 1: not parquet", "name the file after"),
        ("x.csv", b"anchor,positive\na,\xe9\n", "row 1: not UTF-8", "iconv -t utf-8"),
    ],
)
def test_a_bad_data_file_is_refused_before_anything_is_written(
    refusal: Refusal,
    tiny_config: Path,
    runs: Path,
    tmp_path: Path,
    name: str,
    content: bytes,
    value: str,
    cure: str,
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    message = refusal("train", tiny_config, f"data.train.pairs.path={file}")
    assert message.startswith(str(file))
    assert value in message
    assert cure in message
    assert not runs.exists()


def test_a_suite_of_tasks_is_no_config_to_train(refusal: Refusal) -> None:
    file = Path(__file__).parents[2] / "configs" / "suite" / "paper.yaml"
    message = refusal("train", file)
    assert message == f"{file}: a suite; use it with `mic evaluate MODEL --suite {file}`"


def test_a_task_of_a_taken_name_is_refused(
    refusal: Refusal, tiny_config: Path, pairs_file: Path, runs: Path
) -> None:
    source = f"{{path: {pairs_file}, columns: [anchor, positive], limit: 20}}"
    message = refusal("train", tiny_config, f"evaluation.test.pairs.sts={source}")
    assert message == "evaluation task 'sts': the name is taken; give each its own"
    assert not runs.exists()


def test_cut_weights_are_refused(
    refusal: Refusal, tiny_config: Path, broken_model: Path, runs: Path
) -> None:
    start = f"encoder {broken_model}: not readable: "
    assert refusal("train", tiny_config, f"encoder.name={broken_model}").startswith(start)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a cat\n\na dog\n", ["MODEL"], "standard input: line 2 is empty; remove it"),
        ("a cat\n", ["MODEL", "--dim", "33"], "width 33 is above the embedding's 32; remove it"),
        ("a cat\n", ["MODEL", "--dim", "0"], "width 0 is below 1; remove it"),
        ("a cat\n", ["BROKEN"], "not readable"),
        ("a cat\n", ["nobody/nothing"], "encoder 'nobody/nothing': neither a folder nor reachable"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    refusal: Refusal,
    model_folder: Path,
    broken_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    names = {"MODEL": model_folder, "BROKEN": broken_model}
    assert message in refusal("encode", *(names.get(text, text) for text in arguments))


@pytest.mark.parametrize("content", [b"name: [1, 2", b"name: caf\xe9", b"- a"])
def test_an_unreadable_config_is_refused(refusal: Refusal, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    assert refusal("train", file).startswith(f"{file}: ")


def test_a_missing_config_names_one_to_start_from(refusal: Refusal) -> None:
    message = refusal("train", "nowhere.yaml")
    assert message == "config nowhere.yaml: no such file; start from configs/quickstart.yaml"


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_is_not_finite_fails_the_run(
    refusal: Refusal, tiny_config: Path, runs: Path, log_every: int
) -> None:
    override = ["trainer.learning_rate=1e30", "trainer.gradient_clip=0", "trainer.warmup=0"]
    message = refusal("train", tiny_config, *override, f"trainer.log_every={log_every}", code=1)
    # seen at a step that is logged, or before that in the embeddings of a validation
    assert ("loss is nan" if log_every == 1 else "are not finite") in message
    assert "lower trainer.learning_rate" in message
    left = {path.name for path in (runs / "tiny").iterdir()}
    assert left <= {"config.yaml", "geometry", "metrics.jsonl", "run.json", "untrained"}


@pytest.mark.parametrize("runs", ["runs", "runs/below"])
def test_a_folder_that_cannot_be_made_is_refused(
    refusal: Refusal, tiny_config: Path, tmp_path: Path, runs: str
) -> None:
    (tmp_path / "runs").write_text("a file")
    message = refusal("train", tiny_config, f"runs={tmp_path / runs}")
    assert message.startswith(f"{tmp_path / runs}/tiny: cannot be made: ")
    assert message.endswith("set runs=FOLDER")
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_finished_run_is_replaced_only_when_asked(
    refusal: Refusal, tiny_config: Path, runs: Path
) -> None:
    short = (tiny_config, "trainer.max_steps=1")
    assert main(["train", *map(str, short)]) == 0
    results = runs / "tiny" / "results.json"
    before = results.read_bytes()
    message = refusal("train", *short, "seed=1")
    assert message == (
        f"{runs / 'tiny'}: holds a finished run with other settings: seed was 0, is 1. Choose "
        "another name=..., add --overwrite to begin anew, or go on all the same with "
        "--allow-change seed"
    )
    for options in ([], ["--overwrite"]):
        refusal("train", *short, *options, "data.train.pairs.columns=[nope]")
    assert results.read_bytes() == before
    assert main(["train", *map(str, short), "seed=1", "--overwrite"]) == 0
    assert json.loads(results.read_text())["meta"]["seed"] == 1


@pytest.mark.parametrize("names", [["notes.txt"], ["config.yaml", "notes.txt"]])
def test_a_folder_that_is_no_run_is_never_deleted(
    refusal: Refusal, tiny_config: Path, runs: Path, names: list[str]
) -> None:
    folder = runs / "tiny"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("name: a project of another program")
    for options in ([], ["--overwrite"]):
        message = refusal("train", tiny_config, *options)
        assert message == (f"{folder}: holds files that are no run of mic; choose another name=...")
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_link_is_not_followed(
    refusal: Refusal, tiny_config: Path, runs: Path, tmp_path: Path
) -> None:
    runs.mkdir()
    (runs / "tiny").symlink_to(tmp_path)
    assert "is a file or a link" in refusal("train", tiny_config, "--overwrite")
    assert tiny_config.exists()


def test_a_disk_without_room_for_the_model_is_refused_before_training(
    refusal: Refusal, tiny_config: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=90_000))
    message = refusal("train", tiny_config)
    assert "0 MB free, and the checkpoints and the trained model take 1 MB; free some" in message
    assert not runs.exists()
