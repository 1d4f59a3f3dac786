"""An exported folder loads without mic and gives our vectors at every width."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from exports import DIMS, close, stock
from layouts import LAYOUTS
from safetensors.torch import load_file
from sentences import answer, sentence
from tiny_model import WIDTH

from mic.cli.main import main
from mic.config.loading import load
from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError
from mic.export import export as exports
from mic.export import source
from mic.export.export import MARK, ExportOptions, export
from mic.train.resume import checkpoint_files
from mic.train.run import train

TEXTS = [*map(sentence, range(4)), " ".join(map(answer, range(9))), "cat"]


@pytest.fixture(scope="module")
def headed(model_folder, tmp_path_factory):
    """A model with a head that is no longer the identity, as a folder."""
    encoder = Encoder.from_pretrained(model_folder, max_length=9, projection=20)
    torch.nn.init.normal_(encoder.projection.weight)
    encoder.save(tmp_path_factory.mktemp("headed") / "model")
    return tmp_path_factory.getbasetemp() / "headed0" / "model"


@pytest.fixture(scope="module")
def ema_run(tiny, tmp_path_factory):
    """A run with an ema teacher that lags far enough behind to be told from the student."""
    config = tiny(tmp_path_factory.mktemp("ema"))
    taught = ("teacher.kind=ema", "teacher.decay=0.5", "objective.distillation.weight=1")
    train(load(config, *taught, "trainer.learning_rate=0.01"))
    return config.parent / "runs" / "tiny"


# The same vectors


@pytest.mark.parametrize("dim", [None, 4, 7])
@pytest.mark.parametrize("model", ["run", "headed"])
def test_stock_sentence_transformers_gives_our_vectors_at_every_width(
    tiny_run, headed, tmp_path, model, dim
):
    model = tiny_run if model == "run" else headed
    export(ExportOptions(str(model), tmp_path / "out", dim))
    ours = Encoder.from_pretrained(model)
    limit = dim or ours.width
    theirs = stock(tmp_path / "out")
    assert theirs.get_embedding_dimension() == limit
    close(theirs.encode(TEXTS), ours.encode(TEXTS, dim=limit))  # of length 1 as they come
    for width in range(1, limit + 1):
        cut = theirs.encode(TEXTS, truncate_dim=width, normalize_embeddings=True)
        close(cut, ours.encode(TEXTS, dim=width))
    if limit > 4:
        short = stock(tmp_path / "out", truncate_dim=4).encode(TEXTS)
        assert (np.linalg.norm(short, axis=1) < 0.99).all()  # what the card warns of
    again = Encoder.from_pretrained(tmp_path / "out")
    assert again.width == limit
    close(again.encode(TEXTS), ours.encode(TEXTS, dim=limit))


@pytest.mark.parametrize("model", ["run", "headed"])
def test_half_precision_halves_the_file_and_is_computed_with_in_single(
    tiny_run, headed, tmp_path, model
):
    model = tiny_run if model == "run" else headed
    for dtype in ("fp32", "fp16"):
        export(ExportOptions(str(model), tmp_path / dtype, 8, dtype))
    weights = load_file(tmp_path / "fp16" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    large, small = (
        (tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("fp32", "fp16")
    )
    assert small < 0.6 * large
    embeddings = stock(tmp_path / "fp16").encode(TEXTS)
    assert embeddings.dtype == np.float32
    close(embeddings, Encoder.from_pretrained(tmp_path / "fp16").encode(TEXTS))
    close(embeddings, Encoder.from_pretrained(model).encode(TEXTS, dim=8), 2e-2)


def without_module(folder):
    file = folder / "modules.json"
    modules = json.loads(file.read_text())
    file.write_text(json.dumps([m for m in modules if not m["type"].endswith(".Dense")]))


def without_prompt(folder):
    file = folder / "config_sentence_transformers.json"
    settings = json.loads(file.read_text())
    del settings["prompts"]["query"]
    file.write_text(json.dumps(settings))


def without_lower_case(folder):
    for name, key in (
        ("tokenizer.json", "normalizer"),
        ("sentence_bert_config.json", "do_lower_case"),
    ):
        content = json.loads((folder / name).read_text())
        content[key] = None if key == "normalizer" else False
        (folder / name).write_text(json.dumps(content))


LOST = {
    "Dense with Tanh": (without_module, "gives other embeddings"),
    "prompts": (without_prompt, "the prompt 'query : ' is not in it"),
    "lower-cased by its settings": (without_lower_case, "gives other embeddings"),
}


@pytest.mark.parametrize("layout", LOST)
def test_what_is_lost_on_the_way_is_noticed_and_nothing_is_exported(tmp_path, monkeypatch, layout):
    lose, says = LOST[layout]
    model = LAYOUTS[layout][1](tmp_path / "model")
    write = exports.write_model

    def losing(folder, *arguments):
        write(folder, *arguments)
        lose(folder)

    monkeypatch.setattr(exports, "write_model", losing)
    with pytest.raises(RunError, match=f"{says}.*nothing was exported"):
        export(ExportOptions(str(model), tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# Whose weights


def test_the_student_is_the_runs_encoder_and_the_teacher_that_of_the_newest_checkpoint(
    ema_run, tmp_path
):
    newest = checkpoint_files.newest(ema_run / "checkpoints").read()["state_dict"]
    for who, prefix in (("student", "encoder."), ("teacher", "teacher.encoder.")):
        assert main(["export", str(ema_run), "--to", str(tmp_path / who), f"--{who}"]) == 0
        held = load_file(tmp_path / who / "model.safetensors")
        for name, value in held.items():
            assert torch.equal(value, newest[f"{prefix}model.0.model.{name}"]), name
        assert f"the {who}" in (tmp_path / who / "README.md").read_text()
    student, teacher = (Encoder.from_pretrained(tmp_path / who) for who in ("student", "teacher"))
    assert np.abs(student.encode(TEXTS) - teacher.encode(TEXTS)).max() > 1e-3
    card = (tmp_path / "teacher" / "README.md").read_text()
    assert "the student at the run's end, not this model" in card
    assert "## Geometry" not in card


def test_a_run_that_is_not_finished_needs_a_checkpoint_by_name(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "runs" / "cut")
    (run / "results.json").unlink()
    shutil.rmtree(run / "encoder")
    with pytest.raises(InputError, match=r"not finished: at step 4 of 4; .*--checkpoint newest"):
        export(ExportOptions(str(run), tmp_path / "out"))
    export(ExportOptions(str(run), tmp_path / "newest", checkpoint="newest"))
    file = next(checkpoint_files.candidates(run / "checkpoints")).path
    export(ExportOptions(str(run), tmp_path / "named", checkpoint=str(file)))
    for out in ("newest", "named"):
        embeddings = Encoder.from_pretrained(tmp_path / out).encode(TEXTS)
        close(embeddings, Encoder.from_pretrained(tiny_run).encode(TEXTS))
        assert "at the checkpoint of step 4" in (tmp_path / out / "README.md").read_text()


def test_a_damaged_checkpoint_is_passed_over_and_refused_where_it_is_named(ema_run, tmp_path):
    run = shutil.copytree(ema_run, tmp_path / "runs" / "damaged")
    first = next(checkpoint_files.candidates(run / "checkpoints")).path
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged; its SHA-256 is not the one in its name"):
        export(ExportOptions(str(run), tmp_path / "out", checkpoint=str(first)))
    with pytest.raises(InputError, match="no whole checkpoint; end the run with `mic resume"):
        export(ExportOptions(str(run), tmp_path / "out", teacher=True))
    other = first.with_name("mine.ckpt")
    other.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"mine\.ckpt: not a checkpoint of this run"):
        export(ExportOptions(str(run), tmp_path / "out", checkpoint=str(other)))


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dim", "33"], "--dim 33: .* has 32 dimensions; give 1 to 32"),
        (["--dim", "0"], "--dim 0: give 1 or more"),
        (["--public"], "--public: nothing is sent anywhere; add --push REPO"),
        (["--push", "a b"], "--push a b: no name of a repository; give OWNER/NAME"),
        (["--teacher"], "--teacher: .* has teacher.kind=none"),
        (["--checkpoint", "no.ckpt"], "--checkpoint no.ckpt: no such file; in .* step-0000"),
        (["--quality-of", "{empty}"], "--quality-of .*: names no task; set evaluation.test"),
    ],
    ids=str,
)
def test_options_that_will_not_do_are_refused(tiny_run, tmp_path, capsys, options, says):
    empty = tmp_path / "empty.yaml"
    empty.write_text("name: empty\n")
    options = [option.format(empty=empty) for option in options]
    assert main(["export", str(tiny_run), "--to", str(tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr().err
    assert re.match(f"mic: error: {says}", printed)
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"]


@pytest.mark.parametrize("option", [{"teacher": True}, {"checkpoint": "newest"}])
def test_a_model_that_is_no_run_has_no_teacher_and_no_checkpoint(model_folder, tmp_path, option):
    with pytest.raises(InputError, match=r"is no run of mic; leave it out, or name a run"):
        export(ExportOptions(str(model_folder), tmp_path / "out", **option))


def test_what_mic_did_not_export_is_not_replaced(tiny_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name, says in {
        "mine": "holds files that mic did not export",
        "file": "is a file or a link",
        "link": "is a file or a link",
    }.items():
        with pytest.raises(InputError, match=f"{name}: {says}; give another --to FOLDER"):
            export(ExportOptions(str(tiny_run), tmp_path / name))
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    export(ExportOptions(str(tiny_run), tmp_path / "empty"))
    assert (tmp_path / "empty" / MARK).is_file()


def test_a_full_disk_is_refused_before_and_leaves_the_older_export_when_it_fills(
    tiny_run, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    export(ExportOptions(str(tiny_run), out, 4))
    before = (out / "README.md").read_text()
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(exports.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
        with pytest.raises(InputError, match=r"1 MB free, and the export takes \d+ MB; free some"):
            export(ExportOptions(str(tiny_run), out))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exports, "write_card", full)
        with pytest.raises(RunError, match=r"could not be written: .*No space left.*free some"):
            export(ExportOptions(str(tiny_run), out))
    assert (out / "README.md").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_encoder_folder_of_a_run_stands_for_the_run(tiny_run):
    assert source.read_source(str(tiny_run / "encoder")).dims == (*DIMS, WIDTH)
