"""The run's log: metrics.jsonl has every value once, and the mirrors have the same."""

import csv
import math
from importlib.util import find_spec

import numpy as np
import pytest
from lightning.pytorch.utilities import rank_zero_only
from run_logs import LINES, log_everything, logged
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mic.config.diff import config_diff, run_title
from mic.config.schema import Config, LoggingConfig
from mic.errors import InputError
from mic.tracking.loggers import RunLogger, build_logger, require_mirror_packages


def test_every_mirror_holds_the_same_numbers_at_the_same_steps(tmp_path):
    config = Config(logging=LoggingConfig(tensorboard=True, csv=True))
    log_everything(build_logger(config, tmp_path), tmp_path)
    expected = {(name, step): value for step, line in LINES for name, value in line.items()}

    assert logged(tmp_path) == [{"step": step, "epoch": 0, **line} for step, line in LINES]

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"]) - {"epoch"}
    values = {(name, event.step): event.value for name in names for event in events.Scalars(name)}
    assert values == pytest.approx(expected, rel=1e-6)  # TensorBoard keeps fp32

    with (tmp_path / "csv" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    values = {
        (name, int(row["step"])): float(value)
        for row in rows
        for name, value in row.items()
        if value and name not in ("step", "epoch")
    }
    assert values == expected


def test_tensorboard_shows_pictures_and_the_finite_part_of_a_histogram(tmp_path):
    logger = build_logger(Config(logging=LoggingConfig(tensorboard=True)), tmp_path)
    assert logger.has_pictures
    log_everything(logger, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    (image,) = events.Images("correlation/map/d4")
    assert (image.step, image.encoded_image_string[:4]) == (2, b"\x89PNG")
    (histogram,) = events.Histograms("geometry/variance")
    assert (histogram.step, histogram.histogram_value.num) == (2, 3)
    assert histogram.histogram_value.sum == pytest.approx(3.0)


def test_nobody_draws_for_a_log_of_numbers(tmp_path):
    assert not build_logger(Config(), tmp_path).has_pictures
    assert not build_logger(Config(logging=LoggingConfig(csv=True)), tmp_path).has_pictures


def test_lightning_tells_the_index_of_a_step_and_a_line_the_steps_taken(tmp_path):
    logger = RunLogger(tmp_path)
    for step in (-1, 0, 9):
        logger.log_metrics({"train/loss": 1.0, "epoch": 2}, step)
    logger.log_metrics({"train/loss": 1.0}, None)
    assert [(line["step"], line["epoch"]) for line in logged(tmp_path)] == [
        (0, 2),
        (1, 2),
        (10, 2),
        (0, 0),
    ]


def test_what_is_no_number_is_null(tmp_path):
    RunLogger(tmp_path).write({"train/loss": math.nan, "val/loss": math.inf}, steps=1)
    assert logged(tmp_path) == [{"step": 1, "epoch": 0, "train/loss": None, "val/loss": None}]


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    config = Config(logging=LoggingConfig(wandb="offline", tensorboard=True, csv=True))
    logger = build_logger(config, tmp_path)
    assert not logger.has_pictures
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.write({"train/loss": 1.0}, steps=1)
    logger.log_image("map", tmp_path / "absent.png", 1)
    logger.log_histogram("variance", [1.0], 1)
    logger.alert("heading", "text")
    logger.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_cure_before_anything_runs(monkeypatch):
    monkeypatch.setattr(
        "mic.tracking.loggers.find_spec",
        lambda name: None if name == "tensorboard" else find_spec(name),
    )
    require_mirror_packages(Config())
    with pytest.raises(InputError, match=r"pip install 'mic-embeddings\[tensorboard\]'"):
        require_mirror_packages(Config(logging=LoggingConfig(tensorboard=True)))


def test_a_config_says_what_it_changes():
    config = Config(name="mine", seed=3)
    config.objective.gamma = 0.5
    config.objective.cv.weight = 0.0
    assert config_diff(config) == {
        "seed": 3,
        "objective.gamma": 0.5,
        "objective.cv.weight": 0.0,
    }
    assert config_diff(config, config) == {}
    assert run_title(config) == "mine seed=3 gamma=0.5 cv.weight=0.0"
    config.dims = list(np.arange(1, 100).tolist())
    assert len(run_title(config)) == 120
