"""Shapes checked at run time, and a real BERT small enough to train in a second."""

import atexit
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network
# corpora of tests stay out of the user's cache, and those of an older mic out of the tests
os.environ["MIC_CACHE"] = tempfile.mkdtemp(prefix="mic-tests-")
atexit.register(shutil.rmtree, os.environ["MIC_CACHE"], ignore_errors=True)
# the workers of data loaders import once what they need, not each anew
multiprocessing.set_forkserver_preload(["mic.data.datamodule", "datasets"])

import typecheck

typecheck.install()

import pytest
from forked import Forked, forked
from sentences import answer, sentence
from tiny_model import write_tiny_bert

if TYPE_CHECKING:
    from mic.encoder.encoder import Encoder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 3 layers, 32 wide, with a tokenizer of whole words, as a folder."""
    folder = tmp_path_factory.mktemp("model") / "tiny-bert"
    write_tiny_bert(folder)
    return folder


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Runs of one rank or more, each a fork of a process that has imported all of it."""
    with forked(tmp_path_factory.mktemp("forked")) as found:
        yield found


@pytest.fixture(scope="session")
def trial_server(fork: Forked) -> dict[str, str]:
    """The environment in which `python trials.py train CONFIG` finds its server."""
    return {"TRIALS": str(fork.socket), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def still_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same BERT without dropout."""
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("model") / "still-bert"
    shutil.copytree(model_folder, folder)
    config = BertConfig.from_pretrained(model_folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(model_folder: Path) -> "Encoder":
    from mic.encoder.encoder import Encoder

    return Encoder.from_pretrained(model_folder, max_length=32)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of every call of Encoder.embed, as they are encoded."""
    from mic.encoder.encoder import Encoder

    calls: list[list[str]] = []
    embed = Encoder.embed

    def counting(self: Encoder, texts: list[str], **options: Any) -> Any:
        calls.append(list(texts))
        return embed(self, texts, **options)

    monkeypatch.setattr(Encoder, "embed", counting)
    return calls


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pairs with a hard negative each: anchor, positive, negative."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = (
        {"anchor": sentence(n), "positive": answer(n), "negative": answer(n + 500)}
        for n in range(200)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def sts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 scored sentence pairs: sentence1, sentence2, score."""
    file = tmp_path_factory.mktemp("data") / "sts.csv"
    rows = (f"{sentence(n)},{sentence(n + n % 5)},{5 - n % 5}" for n in range(60))
    file.write_text("sentence1,sentence2,score\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="session")
def tiny(model_folder: Path, pairs_file: Path, sts_file: Path) -> Callable[[Path], Path]:
    """Writes a config into a folder that trains the tiny model for four steps into runs/tiny."""

    def write(folder: Path) -> Path:
        file = folder / "tiny.yaml"
        file.write_text(
            f"""
name: tiny
runs: {folder / "runs"}
dims: [4, 8, 16]
encoder: {{name: {model_folder}, max_length: 16}}
objective: {{align_layers: [1, 2]}}
data:
  train: {{pairs: {{path: {pairs_file}, columns: [anchor, positive]}}}}
  validation_rows: 20
evaluation:
  validation:
    sts: {{sts: {{path: {sts_file}, columns: [sentence1, sentence2, score]}}}}
  test:
    pairs: {{found: {{path: {pairs_file}, columns: [anchor, positive], limit: 50}}}}
  pca_texts: 100
trainer: {{max_steps: 4, batch_size: 16, learning_rate: 1.0e-3, log_every: 1, validate_every: 2}}
"""
        )
        return file

    return write


@pytest.fixture
def tiny_config(tiny: Callable[[Path], Path], tmp_path: Path) -> Path:
    return tiny(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tiny: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of tiny_config, for all to read and nobody to change."""
    from mic.config.loading import load
    from mic.train.run import train

    config = tiny(tmp_path_factory.mktemp("trained"))
    train(load(config))
    return config.parent / "runs" / "tiny"


@pytest.fixture
def no_wandb_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """W&B without the key, the settings and the session of whoever runs the tests."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()
