"""Model folders that are not whole are refused, never completed with random numbers."""

import io
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mic.cli.main import main
from mic.encoder.encoder import Encoder
from mic.errors import InputError


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "model")


def test_weights_that_lack_a_block_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    remaining = {name: value for name, value in weights.items() if ".layer.2." not in name}
    save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"16 weights missing \(encoder.layer.2.*fetch the model"):
        Encoder.from_pretrained(folder)


def test_weights_without_berts_pooler_are_whole(folder):
    weights = load_file(folder / "model.safetensors")
    remaining = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(remaining) < len(weights)
    save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})
    assert Encoder.from_pretrained(folder).encode(["a cat"]).shape == (1, 32)


def test_weights_of_another_width_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(InputError, match="not readable"):
        Encoder.from_pretrained(folder)


def test_a_folder_without_tokenizer_is_refused(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="no tokenizer in it; copy"):
        Encoder.from_pretrained(folder)


def test_more_tokens_than_embeddings_are_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "gnu"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"its tokenizer has \d+ tokens, the model \d+ embeddings"):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "modules.json: not JSON"), ("[1]", "no list of modules"), ("{}", "no list of modules")],
)
def test_a_broken_list_of_modules_is_refused(folder, content, says):
    (folder / "modules.json").write_text(content)
    with pytest.raises(InputError, match=says):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_batch_size_below_one_encodes_nothing(folder, size, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("a cat\n"))
    assert main(["encode", str(folder), "--batch-size", size]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"mic: error: batch size {size}: must be at least 1\n"


def test_sentences_that_are_not_utf_8_are_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert main(["encode", str(folder)]) == 2
    assert "standard input: not UTF-8; convert it with `iconv" in capsys.readouterr().err
