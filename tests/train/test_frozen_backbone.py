"""A head on a frozen backbone's embeddings learns what it would learn behind the backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import LAYERS, WIDTH
from transformers.models.bert.modeling_bert import BertEmbeddings

from mic.config.loading import load
from mic.data.batch import Batch
from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError
from mic.nested import unit
from mic.train.module import MICModule
from mic.train.run import train

HEAD = (f"encoder.projection={WIDTH}", "objective.align_layers=[output]")
FROZEN = (*HEAD, "encoder.frozen=true")
LAYERWISE = (*HEAD, "encoder.freeze_embeddings=true", f"encoder.freeze_layers={LAYERS}")
TAUGHT = ("teacher.kind=cached", "objective.distillation.weight=1")


@pytest.fixture
def run(tiny_config, still_folder, tmp_path, monkeypatch):
    """Trains the tiny BERT, without dropout, with a cache of its own; a run's folder."""
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))

    def train_tiny(name: str, *overrides: str) -> Path:
        train(load(tiny_config, f"encoder.name={still_folder}", f"name={name}", *overrides))
        return tmp_path / "runs" / name

    return train_tiny


def logged(folder: Path, name: str) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("more", [(), TAUGHT, ("trainer.chunk_size=5",)], ids=str)
def test_it_learns_what_it_would_learn_behind_the_backbone(run, more):
    behind, alone = run("behind", *LAYERWISE, *more), run("alone", *FROZEN, *more)
    for name in ("train/loss", "val/loss", "val/sts/spearman/d4"):
        assert logged(alone, name) == pytest.approx(logged(behind, name), rel=5e-3)  # fp16 on disk
    heads = [Encoder.from_pretrained(folder / "encoder").projection for folder in (behind, alone)]
    moved = (heads[0].weight - torch.eye(WIDTH)).norm()
    assert moved > 0.01
    assert (heads[1].weight - heads[0].weight).norm() < 0.05 * moved


def test_the_backbone_sees_every_text_once_and_no_step(run, encoded, tmp_path, monkeypatch):
    def seen_in_training(embeddings: BertEmbeddings, *_: object, **__: object) -> None:
        steps.append(embeddings.training)

    steps: list[bool] = []
    called = counting(BertEmbeddings.__call__, seen_in_training)
    monkeypatch.setattr(BertEmbeddings, "__call__", called)
    folder = f"teacher.folder={tmp_path / 'kept'}"
    run("first", *FROZEN, folder)
    assert (tmp_path / "kept" / "vectors.f16").stat().st_size == 2 * WIDTH * 400
    first = sum(map(len, encoded))
    encoded.clear()
    run("again", *FROZEN, folder, "seed=1", "monitor.balance_every=2")
    assert steps
    assert not any(steps)
    assert first - sum(map(len, encoded)) == 400  # 200 pairs, in the second run looked up


def counting(function, note):
    def counted(*args, **kwargs):
        note(*args, **kwargs)
        return function(*args, **kwargs)

    return counted


def test_the_backbone_stays_as_it_was_to_the_bit(run, still_folder):
    trained = Encoder.from_pretrained(run("first", *FROZEN) / "encoder").backbone.state_dict()
    before = Encoder.from_pretrained(still_folder).backbone.state_dict()
    assert trained.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in trained.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("encoder.frozen=true",), f"there is none; set encoder.projection={WIDTH}"),
        ((*FROZEN, "objective.align_layers=[1,output]"), r"layers \[1\]; set objective.align"),
        ((*FROZEN, *TAUGHT, "teacher.kind=ema"), "in the place of teacher.kind=ema set cached"),
        ((*FROZEN, *TAUGHT, "teacher.name=other"), "teacher.name=other: with encoder.frozen=true"),
        (
            (*FROZEN, *TAUGHT, "teacher.max_length=7"),
            "max_length=7: .* set teacher.max_length=null",
        ),
        ((*FROZEN, *TAUGHT, "teacher.pooling=cls"), "pooling=cls: .* set teacher.pooling=auto"),
        (
            (*HEAD, "encoder.projection_start=pca"),
            "of a frozen backbone; set encoder.frozen=true, ",
        ),
    ],
)
def test_what_cannot_learn_or_teach_is_refused(tiny_config, overrides, message):
    with pytest.raises(InputError, match=message):
        MICModule(load(tiny_config, *overrides))


def test_a_head_that_begins_as_principal_components_is_their_rotation(run, still_folder, encoded):
    folder = run("turned", *FROZEN, "encoder.projection_start=pca", "trainer.learning_rate=1e-30")
    head = Encoder.from_pretrained(folder / "encoder").projection.weight.detach()
    assert torch.allclose(head @ head.T, torch.eye(WIDTH), atol=1e-5)
    trained_on = {text for batch in encoded for text in batch}  # and those of a task
    rows = unit(Encoder.from_pretrained(still_folder).embed(sorted(trained_on)))
    spread = torch.from_numpy(np.cov((rows @ head.T).T.numpy()))
    assert (spread.diagonal().diff() < 1e-3 * spread[0, 0]).all()  # the largest first
    assert (spread - spread.diag().diag()).abs().max() < 0.05 * spread[0, 0]
    scores = json.loads((folder / "results.json").read_text())
    before = scores["meta"]["baselines"]["raw truncation"]["sts"]["spearman"]
    assert scores["sts"]["spearman"][str(WIDTH)] == pytest.approx(before[str(WIDTH)], abs=0.2)
    assert scores["sts"]["spearman"]["4"] != pytest.approx(before["4"])


def test_a_trained_head_is_not_turned_away_from_what_it_learnt(run, tiny_config):
    folder = run("first", *FROZEN, "trainer.learning_rate=1e-3")
    again = (f"encoder.name={folder}", *FROZEN, "encoder.projection_start=pca")
    with pytest.raises(InputError, match="has a trained head, which would be lost; set it to iden"):
        MICModule(load(tiny_config, *again))


def test_the_model_behind_a_trained_head_learns_on_from_there(run, still_folder):
    first = run("first", *FROZEN, *TAUGHT, "trainer.learning_rate=1e-2")
    still = ("encoder.freeze_embeddings=true", "encoder.freeze_layers=1")
    on = (f"encoder.name={first}", *HEAD, *still, *TAUGHT, f"teacher.name={still_folder}")
    second = run("second", *on)
    ended, began = (json.loads((folder / "results.json").read_text()) for folder in (first, second))
    start = began["meta"]["baselines"]["raw truncation"]["sts"]["spearman"]
    assert start == pytest.approx(ended["sts"]["spearman"], abs=0.5)  # fp16 on disk
    before, after = (
        Encoder.from_pretrained(folder / "encoder").state_dict() for folder in (first, second)
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.2.linear.weight" in moved
    layers = {name.split("layer.")[1][0] for name in moved if "layer." in name}
    assert layers == {str(layer) for layer in range(1, LAYERS)}
    assert not any("embeddings" in name for name in moved)


def test_texts_that_were_not_given_are_missed_with_the_cure(tiny_config):
    module = MICModule(load(tiny_config, *FROZEN))
    tokens = module.encoder.tokenize(["the cat sees a house"])
    with pytest.raises(RunError, match=r"give trainer.fit a PairDataModule, or call fill"):
        module(Batch([tokens, tokens]))
