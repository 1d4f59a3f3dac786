"""One's own Lightning Trainer needs nothing called before fit, and learns what `train` learns."""

import json
from collections.abc import Callable
from pathlib import Path

import own_trainer
import pytest
from forked import Forked
from lightning.pytorch import Trainer
from tiny_model import WIDTH

from mic.config.loading import load
from mic.data.datamodule import PairDataModule
from mic.errors import InputError, RunError
from mic.train.module import MICModule
from mic.train.run import train

DISTIL = "objective.distillation.weight=1"
HEAD = ("encoder.frozen=true", f"encoder.projection={WIDTH}", "objective.align_layers=[output]")
WAYS = {
    "none": (),
    **{kind: (f"teacher.kind={kind}", DISTIL) for kind in ("self", "ema", "frozen", "cached")},
    "head": HEAD,
    "head from PCA, cached": (
        *HEAD,
        "encoder.projection_start=pca",
        "teacher.kind=cached",
        DISTIL,
    ),
}
LOOKED_UP = ("cached", "head from PCA, cached")
TEXTS = 400  # of the 200 pairs


@pytest.fixture
def still(still_folder: Path, tmp_path: Path) -> Callable:
    """The overrides of a way, without dropout, which each rank draws anew, and with its cache."""

    def overrides(way: str, cache: str) -> tuple[str, ...]:
        steps = ("trainer.max_steps=3", "trainer.warmup=0", "monitor.geometry=false")
        folder = f"teacher.folder={tmp_path / cache}"
        return (f"encoder.name={still_folder}", folder, *steps, *WAYS[way])

    return overrides


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_what_a_run_learns(still, tiny_config, tmp_path, way):
    train(load(tiny_config, *still(way, "run's")))
    lines = map(json.loads, (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines())
    expected = [line["train/loss"] for line in lines if "train/loss" in line]
    watch, _ = own_trainer.fit(str(tiny_config), *still(way, "own"))
    assert watch.losses == pytest.approx(expected, rel=1e-5)
    looked_up = way in LOOKED_UP or way == "head"
    assert watch.embedded == {"before": TEXTS if looked_up else 0, "training": 0}


@pytest.mark.parametrize("way", LOOKED_UP)
def test_two_ranks_learn_the_same_and_one_of_them_embeds(fork: Forked, still, tiny_config, way):
    folder = tiny_config.parent
    arguments = (str(tiny_config), str(folder), *still(way, "ranks'"))
    codes, output = fork(*arguments, ranks=2, module="own_trainer")
    assert codes == [0, 0], output
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(2))
    alone, _ = own_trainer.fit(str(tiny_config), *still(way, "alone"))
    assert first["losses"] == second["losses"] == pytest.approx(alone.losses, rel=1e-4)
    assert first["embedded"] == {"before": TEXTS, "training": 0}
    assert second["embedded"] == {"before": 0, "training": 0}


def test_other_data_is_embedded_as_well_and_the_head_goes_on(still, tiny_config, pairs_file):
    config = load(tiny_config, *still("head from PCA, cached", "twice"))
    module = MICModule(config)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    starts = []
    for columns in (["anchor", "positive"], ["anchor", "negative"]):
        config.data.train["pairs"].columns = columns
        data = PairDataModule(config.data, module.encoder.tokenize, batch_size=16)
        trainer = Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **options)
        starts.append(module.encoder.projection.weight.detach().clone())
        trainer.fit(module, data)
    assert len(module.frozen.table) > TEXTS
    trained = module.encoder.projection.weight
    assert (trained - starts[1]).abs().max() < 0.1 < (starts[1] - starts[0]).abs().max()


def test_without_a_data_module_the_cure_is_named(still, tiny_config):
    config = load(tiny_config, *still("cached", "none"))
    module = MICModule(config)
    data = PairDataModule(config.data, module.encoder.tokenize, batch_size=16)
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(RunError, match=r"a PairDataModule, or call fill_teacher\(texts\) before"):
        trainer.fit(module, data.train_dataloader())
    head = MICModule(load(tiny_config, *still("head from PCA, cached", "none")))
    with pytest.raises(
        InputError, match=r"projection_start=pca: .* a PairDataModule, or set it to"
    ):
        trainer.fit(head, data.train_dataloader())
