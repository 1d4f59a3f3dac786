"""A sharded encoder (FSDP2, here on CPUs) trains as one that every rank holds whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from forked import Forked
from safetensors.torch import load_file
from transformers import BertConfig

from mic.cli.main import main

TIMES = ("speed/", "memory/")
EXACT = "trainer.gradient_clip=0.05"  # below what the gradients have: a sum over all shares
WAYS = {"plain": (), "chunks, projection": ("trainer.chunk_size=3", "encoder.projection=24")}


@pytest.fixture
def config(tiny_config: Path, model_folder: Path, tmp_path: Path) -> Path:
    """tiny_config with 6 steps; `still` beside it is the model without dropout."""
    still = tmp_path / "still"
    still.mkdir()
    for file in model_folder.iterdir():
        if file.name != "config.json":
            (still / file.name).symlink_to(file)
    quiet = BertConfig.from_pretrained(model_folder)
    quiet.hidden_dropout_prob = quiet.attention_probs_dropout_prob = 0.0
    quiet.save_pretrained(still)
    return tiny_config


def train(fork: Forked, config: Path, name: str, *options: str, **plan: object) -> list[int]:
    steps = ("trainer.max_steps=6", "trainer.save_every=2", "monitor.balance_every=0", EXACT)
    codes, output = fork("train", str(config), f"name={name}", *steps, *options, ranks=2, **plan)
    assert codes in ([0, 0], [143, 143]), output
    return codes


def weights(config: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(config.parent / "runs" / name / "encoder" / "model.safetensors")


def lines(config: Path, name: str) -> list[dict]:
    text = (config.parent / "runs" / name / "metrics.jsonl").read_text()
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(TIMES)}
        for line in text.splitlines()
    ]


@pytest.mark.parametrize(
    "way", ["plain", pytest.param("chunks, projection", marks=pytest.mark.slow)]
)
def test_a_sharded_encoder_learns_what_a_whole_one_learns(fork, config, way):
    still = f"encoder.name={config.parent / 'still'}"
    train(fork, config, "ddp", still, *WAYS[way])
    train(fork, config, "fsdp", still, *WAYS[way], "trainer.strategy=fsdp")
    expected, actual = weights(config, "ddp"), weights(config, "fsdp")
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-6)
    for line, other in zip(lines(config, "ddp"), lines(config, "fsdp"), strict=True):
        assert line.keys() == other.keys()
        for key in line:
            if key.startswith(("train/", "val/loss")):  # a rank turns at a rounding error
                assert other[key] == pytest.approx(line[key], rel=1e-4, abs=1e-6), key


@pytest.mark.slow
def test_a_sharded_encoder_is_resumed_to_the_bit_and_by_ddp(fork, config):
    shared = "trainer.strategy=fsdp"
    stop = [{"where": "batch", "nth": 3, "by": "SIGTERM"}]
    train(fork, config, "whole", shared)
    assert train(fork, config, "resumed", shared, kills=stop) == [143, 143]
    runs = config.parent / "runs"
    shutil.copytree(runs / "resumed", runs / "other")
    train(fork, config, "resumed", shared)
    assert lines(config, "resumed") == lines(config, "whole")
    actual, expected = weights(config, "resumed"), weights(config, "whole")
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    train(fork, config, "other")
    begun, gone_on = json.loads((runs / "other" / "run.json").read_text())["segments"]
    assert begun["step"] == 0 < gone_on["step"]
    for name, value in weights(config, "other").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_what_cannot_be_sharded_is_refused(fork, config, capsys):
    uneven = ("trainer.strategy=fsdp", "trainer.devices=3", "trainer.batch_size=16")
    assert main(["train", str(config), *uneven]) == 2
    output = capsys.readouterr().err
    assert "3 ranks must have as many rows each; set trainer.batch_size=15 or" in output
    assert "trainer.batch_size=18" in output
    teacher = ("teacher.kind=ema", "objective.distillation.weight=1", "trainer.strategy=fsdp")
    codes, output = fork("train", str(config), "name=ema", *teacher, ranks=2)
    assert codes == [2, 2]
    assert "trainer.strategy=fsdp: shards the encoder alone" in output
