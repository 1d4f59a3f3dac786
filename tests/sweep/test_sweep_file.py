"""Sweep files: what they mean, and what is refused before anything runs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mic.cli.main import main
from mic.config.loading import load
from mic.errors import InputError
from mic.sweep.sampling import check_planned_points, planned_points
from mic.sweep.search_space import parse_parameters
from mic.sweep.sweep_file import EarlyTermination, Metric, as_override, read_sweep

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs/sweep").glob("*.yaml"))
GAMMA = {"objective.gamma": {"values": [0, 0.1]}}


@pytest.fixture
def write(tmp_path):
    def write(**content: Any) -> Path:
        whole = {
            "method": "grid",
            "metric": {"name": "val/docstrings_validation/ndcg@10/d16", "goal": "maximize"},
            "parameters": GAMMA,
            "command": ["mic", "train", "configs/quickstart.yaml", "${args_no_hyphens}"],
            **content,
        }
        file = tmp_path / "x.yaml"
        given = {key: item for key, item in whole.items() if item is not None}
        file.write_text(yaml.safe_dump(given, sort_keys=False))
        return file

    return write


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_sweep_is_read_and_its_settings_are_configs(file):
    sweep = read_sweep(file)
    points = planned_points(sweep)
    if points is None:
        points = [{axis.key: axis.ends()[0] for axis in sweep.parameters}]
    for point in points:
        assert sweep.config_of(point, sweep.seeds[-1]).seed == sweep.seeds[-1]


def test_a_grid_is_every_combination_and_seeds_are_an_axis_of_their_own(write):
    axes = {
        "objective": {"parameters": {"gamma": {"values": [0, 1]}}},
        "objective.align_layers": {"values": [[2], [2, 3]]},
        "trainer.gradient_clip": {"distribution": "q_uniform", "min": 0.5, "max": 1.6, "q": 0.5},
        "objective.symmetric": {"value": True},
        "seed": {"values": [3, 4]},
    }
    sweep = read_sweep(write(parameters=axes))
    assert sweep.seeds == (3, 4)
    assert [tuple(point.values()) for point in planned_points(sweep)] == [
        (gamma, layers, clip, True)
        for gamma in (0, 1)
        for layers in ([2], [2, 3])
        for clip in (0.5, 1.0, 1.5)
    ]
    config = sweep.config_of(planned_points(sweep)[4], 4)
    assert (config.objective.align_layers, config.trainer.gradient_clip) == ([2, 3], 1.0)
    assert (config.objective.symmetric, config.seed) == (True, 4)
    seeded = read_sweep(write(parameters=GAMMA, seeds=[3, 4]))
    assert seeded.seeds == (3, 4)


def test_ranges_are_drawn_within_their_ends_and_fewer_are_the_beginning_of_more(write):
    axes = {
        "objective.gamma": {"distribution": "log_uniform_values", "min": "1e-3", "max": 10},
        "objective.threshold": {"min": 0.0, "max": 0.5},
        "trainer.max_steps": {"min": 5, "max": 9},
        "objective.t": {"distribution": "log_uniform", "min": -1, "max": 1},
    }
    sweep = read_sweep(write(method="random", parameters=axes, run_cap=32))
    for method in ("random", "qmc"):
        few = planned_points(replace(sweep, method=method, max_settings=8))
        many = planned_points(replace(sweep, method=method))
        assert few == many[:8]
        gammas = [math.log10(point["objective.gamma"]) for point in many]
        assert min(gammas) >= -3
        assert max(gammas) <= 1
        assert all(0 <= point["objective.threshold"] <= 0.5 for point in many)
        assert {point["trainer.max_steps"] for point in many} == {5, 6, 7, 8, 9}
        assert all(math.exp(-1) <= point["objective.t"] <= math.e for point in many)
        bins = [sum(low <= gamma < low + 1 for gamma in gammas) for low in (-3, -2, -1, 0)]
        assert max(bins) - min(bins) <= 2 or method == "random"  # even, as no random draw is


def test_run_cap_counts_runs(write):
    axes = {**GAMMA, "objective.threshold": {"min": 0.0, "max": 0.5}}
    sweep = read_sweep(write(method="bayes", parameters=axes, seeds=[0, 1, 2], run_cap=10))
    assert sweep.max_settings == 3
    assert planned_points(sweep) is None


def test_several_metrics_and_early_ends(write):
    names = ["val/docstrings_validation/ndcg@10/d16", "val/pairs/ndcg@10/d384"]
    metrics = [{"name": name, "goal": "maximize"} for name in names]
    sweep = read_sweep(write(method="custom", metric=None, metrics=metrics, run_cap=9))
    assert sweep.metrics == tuple(Metric(name, "maximize") for name in names)
    early = {"type": "hyperband", "s": 2, "eta": 3, "max_iter": 27}
    assert read_sweep(write(early_terminate=early)).early_termination == EarlyTermination(
        "hyperband", 3, 3
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parameters": {"objective.gama": {"values": [0]}}}, "did you mean 'objective.gamma'?"),
        ({"parameters": {"objective.gamma": {"values": ["much"]}}}, "parameters.objective.gamma:"),
        ({"parameters": {"objective.gamma": {"min": 1, "max": 0}}}, "min 1 is not below max 0"),
        ({"parameters": {"objective.gamma": 3}}, "write {value: 3} or {values: [...]}"),
        ({"parameters": {"objective.gamma": {"values": []}}}, "expected a list"),
        ({"parameters": {"objective.gamma": {"min": "low", "max": 1}}}, "min 'low'"),
        (
            {"parameters": {"objective.gamma": {"distribution": "normal", "min": 0, "max": 1}}},
            "distribution 'normal': Optuna does not draw from it",
        ),
        ({"parameters": {"objective.threshold": {"min": 0.5, "max": 1.5}}}, "must be below 1"),
        ({"parameters": {"objective.gamma": {"min": 0.0, "max": 1.0}}}, "a grid needs `values`"),
        ({"parameters": {"seed": {"values": [0, 1]}}}, "nothing but a seed"),
        ({"parameters": {}}, "parameters: none"),
        ({"methd": "grid"}, "unknown key 'methd'; did you mean 'method'?"),
        ({"method": "gird"}, "method 'gird': choose grid or random"),
        ({"method": "random"}, "run_cap: not set, and random never ends"),
        ({"method": "random", "run_cap": 1, "seeds": [0, 1]}, "run_cap 1: a whole number, 2"),
        ({"seeds": [0, 0]}, "seeds [0, 0]: expected different numbers"),
        ({"metric": None}, "metric: write {name:"),
        ({"metric": {"name": "val/docstring/ndcg@10/d16"}}, "no validation task 'docstring'"),
        ({"metric": {"name": "docstrings_test/ndcg@10"}}, "a test task is nothing to choose by"),
        ({"command": None}, "command None: write it as [mic, train"),
        ({"command": ["mic", "train", "${args}"]}, "command ['mic', 'train', '${args}']: write it"),
        (
            {"command": ["mic", "train", "configs/quikstart.yaml", "${args_no_hyphens}"]},
            "config configs/quikstart.yaml: no such file",
        ),
        ({"early_terminate": {"type": "never"}}, "write {type: hyperband, min_iter: 2}"),
        ({"early_terminate": {"type": "median", "min_iter": 0}}, "min_iter must be"),
        ({"name": "a/b"}, "name 'a/b': one folder name"),
    ],
)
def test_what_is_wrong_is_refused_by_name(write, content, message):
    with pytest.raises(InputError) as caught:
        check_planned_points(read_sweep(write(**content)))
    assert message in str(caught.value)


def test_a_sweep_file_is_no_config(write):
    file = write()
    with pytest.raises(InputError, match=f"a sweep file; run it with `mic sweep {file}`"):
        load(file)


def test_a_value_that_needs_anothers_is_taken(write):
    """A teacher without a term that listens is refused alone."""
    axes = {
        "teacher.kind": {"values": ["self", "frozen"]},
        "objective.distillation.weight": {"values": [0.5, 1]},
    }
    check_planned_points(read_sweep(write(parameters=axes)))


@pytest.mark.parametrize(
    "value", [1e-5, 3, True, [2, "output"], "mean", "a: b's", "1e5", "true", "None", {"weight": 2}]
)
def test_values_survive_the_way_through_an_override(value):
    key = {dict: "objective.cv", list: "objective.align_layers", str: "logging.project"}.get(
        type(value), "objective.symmetric" if value is True else "trainer.weight_decay"
    )
    config = load("configs/base.yaml", f"{key}={as_override(value)}")
    section, name = key.split(".")
    loaded = getattr(getattr(config, section), name)
    assert (loaded.weight if isinstance(value, dict) else loaded) == (
        value["weight"] if isinstance(value, dict) else value
    )


def test_lists_and_dicts_come_back_from_optuna_as_they_were():
    values = [[16, 64], {"weight": 1}, None, "x", 0.5]
    axis = parse_parameters({"key": {"values": values}}, "x.yaml")["key"]
    assert [axis.original_value(axis.stored(value)) for value in values] == values


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"value": 0.5}, "always 0.5"),
        ({"value": True, "distribution": "constant"}, "always true"),
        ({"values": [0, 0.05, 0.1]}, "one of 0, 0.05, 0.1"),
        ({"values": ["mean", None, [2, 3]]}, "one of mean, null, [2, 3]"),
        ({"min": 5, "max": 9}, "whole number from 5 to 9"),
        ({"distribution": "int_uniform", "min": 5, "max": 9}, "whole number from 5 to 9"),
        ({"min": 0.0, "max": 0.5}, "uniform from 0 to 0.5"),
        ({"distribution": "uniform", "min": 1, "max": 2}, "uniform from 1 to 2"),
        (
            {"distribution": "q_uniform", "min": 0.5, "max": 1.6, "q": 0.5},
            "uniform from 0.5 to 1.5 in steps of 0.5",
        ),
        (
            {"distribution": "log_uniform_values", "min": "1e-3", "max": 1},
            "log-uniform from 0.001 to 1",
        ),
        ({"distribution": "log_uniform", "min": 0, "max": 1}, "log-uniform from 1 to 2.71828"),
    ],
)
def test_every_distribution_is_described_in_words(content, text):
    (axis,) = parse_parameters({"key": content}, "x.yaml").values()
    assert axis.describe() == text


def test_the_dry_run_describes_what_settings_are_drawn_from(write, capsys):
    axes = {
        "objective.gamma": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1},
        "objective.threshold": {"values": [0, 0.05, 0.1]},
        "trainer.max_steps": {"min": 5, "max": 9},
    }
    file = write(method="bayes", parameters=axes, run_cap=6, seeds=[0, 1])
    assert main(["sweep", str(file), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 settings, each drawn from the results before it:",
        "  gamma: log-uniform from 0.001 to 1",
        "  threshold: one of 0, 0.05, 0.1",
        "  max_steps: whole number from 5 to 9",
        "with seeds [0, 1]: 6 runs",
    ]
