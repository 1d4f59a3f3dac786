"""experiments/geometry: correlations of geometry with quality, whose interval draws methods."""

import csv
import importlib
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from mic.evaluation.baselines import ROTATION
from mic.evaluation.results import Evaluation, write_evaluation
from mic.evaluation.scoring import PCA, RAW
from mic.metrics.bootstrap import Items
from mic.tracking.reader import OWN

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "geometry"))
clusters, correlate = (importlib.import_module(name) for name in ("clusters", "correlate"))

HEADLINES = {"stsb": "spearman", "sick": "spearman", "emotion": "accuracy", "scifact": "ndcg@10"}
DIMS = [16, 32, 64, 128]
BASELINES = (RAW, PCA, ROTATION)
NOISE = np.random.default_rng(5)
NAMES = [f"{method}-{seed}" for method in ("mic", "mrl", "ese", "simcse", "sir") for seed in (0, 1)]
# how each model does; seeds of a method are near each other
LEVELS = {name: 2.0 * (n // 2) + 0.3 * (n % 2) for n, name in enumerate(NAMES)}
LEVELS |= {name: -1.0 - n for n, name in enumerate(BASELINES)}


def results(level):
    """STS is the better the higher the level, classification the worse, retrieval the same."""
    signs = {"spearman": 1.0, "accuracy": -0.5, "ndcg@10": 0.0}
    return {
        task: {metric: {dim: 50 + dim / 8 + signs[metric] * level for dim in DIMS}}
        for task, metric in HEADLINES.items()
    }


def geometry(rank, excess):
    return {
        "effective_rank": {str(dim): dim * (0.5 + rank / 100) for dim in DIMS},
        "correlation_excess": {str(dim): 0.1 - excess / 1000 for dim in DIMS[:-1]},
    }


def write(folder, name, baselines=BASELINES, **meta):
    """One model's evaluation, as `mic evaluate` would leave it of runs from one encoder."""
    known = {OWN: geometry(LEVELS[name], LEVELS[name])}
    known |= {one: geometry(LEVELS[one], LEVELS[one]) for one in BASELINES}
    about = {
        "weights": name,
        "dims": DIMS,
        "tasks": dict.fromkeys(HEADLINES, "a hash"),
        "group": name[:-2],
        "base": "the encoder before",
        "headlines": HEADLINES,
        "width": DIMS[-1],
        "seed": int(name[-1]),
        "geometry": known,
        **meta,
    }
    items = {"stsb": Items("spearman", torch.arange(3.0), {16: torch.arange(3.0)})}
    beside = {one: results(LEVELS[one]) for one in baselines}
    evaluation = Evaluation(name, results(LEVELS[name]), beside, items, about)
    write_evaluation(folder / name, evaluation)


@pytest.fixture
def evaluated(tmp_path):
    """A setting of ten runs of five methods, whose rank follows their level, as the excess does."""
    for name in NAMES:
        write(tmp_path / "small", name)
    return tmp_path / "small"


@pytest.fixture
def undrawn_figures(monkeypatch):
    """Figures are written empty: drawing them takes most of the time."""
    monkeypatch.setattr("mic.report.figures.save", lambda figure, file: file.touch())


def read_cells(out, title):
    """A table of the report, by width and quality."""
    after = (out / "correlation.md").read_text().split(f"**{title}**")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in after.splitlines()]
    return {tuple(row[:2]): row[2:] for row in rows[2:]}


def test_what_determines_quality_is_found_with_its_sign_for_every_kind_of_task(evaluated, tmp_path):
    out = tmp_path / "out"
    correlate.main([str(evaluated), "--out", str(out)])
    cells = read_cells(out, "small, all methods")
    kinds = ["all tasks", "STS", "classification", "retrieval"]
    assert list(cells) == list(product(["16", "32", "64"], kinds))  # none at the full width
    up, down = "+1.00 [+1.00, +1.00] *", "-1.00 [-1.00, -1.00] *"
    for width in ("16", "32", "64"):
        assert cells[width, "STS"] == [up, up, down, down]
        assert cells[width, "classification"] == [down, down, up, up]
        assert cells[width, "retrieval"] == ["", "", "", ""]  # which does not vary
    assert (out / "scatter.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(one.name for one in out.iterdir()) == [
        "correlation.md",
        "points.csv",
        "scatter.png",
        "scatter_64.png",
    ]


@pytest.mark.usefixtures("undrawn_figures")
def test_points_are_every_seed_and_the_baselines_once(evaluated, tmp_path):
    correlate.main([str(evaluated), "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    at_16 = [row for row in rows if row["width"] == "16"]
    assert [row["model"] for row in at_16] == [*BASELINES, *sorted(NAMES)]
    assert {row["method"] for row in at_16} == {*BASELINES, *(name[:-2] for name in NAMES)}
    mic = next(row for row in at_16 if row["model"] == "mrl-1")
    assert (mic["setting"], mic["method"], mic["seed"]) == ("small", "mrl", "1")
    level = LEVELS["mrl-1"]
    assert float(mic["effective rank / d"]) == pytest.approx(0.5 + level / 100)
    assert float(mic["correlation excess"]) == pytest.approx(0.1 - level / 1000)
    assert float(mic["quality: STS"]) == pytest.approx(52 + level)
    # two tasks of STS, one of classification, one of retrieval, all alike
    assert float(mic["quality: all tasks"]) == pytest.approx(52 + (2 * level - level / 2) / 4)


@pytest.mark.usefixtures("undrawn_figures")
def test_a_model_that_was_evaluated_as_it_is_and_the_raw_truncation_are_one_point(
    evaluated, tmp_path
):
    of = json.loads((evaluated / "mic-0" / "results.json").read_text())["meta"]
    known = {**of["geometry"], OWN: of["geometry"][RAW]}
    LEVELS["untouched-0"] = LEVELS[RAW]
    write(evaluated, "untouched-0", seed=None, base="itself", geometry=known)
    correlate.main([str(evaluated), "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    untrained = [row["method"] for row in rows if row["width"] == "16" and not row["seed"]]
    assert untrained == [PCA, ROTATION, "untouched-0"]
    assert (
        "small, trained runs alone**: 10 models of 5 methods"
        in (tmp_path / "correlation.md").read_text()
    )


@pytest.mark.usefixtures("undrawn_figures")
def test_two_settings_are_two_rows_and_never_pooled(evaluated, tmp_path):
    for name in NAMES:
        own = geometry(-LEVELS[name], 0)  # the other way round; an excess that does not vary
        LEVELS[f"large-{name}"] = LEVELS[name]
        known = dict.fromkeys((OWN, *BASELINES), own)
        write(tmp_path / "large", f"large-{name}", geometry=known)
    out = tmp_path / "out"
    correlate.main([str(evaluated), str(tmp_path / "large"), "--out", str(out)])
    for name, rho in (("small", "+1.00"), ("large", "-1.00")):
        cells = read_cells(out, f"{name}, trained runs alone")
        assert cells["16", "STS"][0].startswith(f"{rho} [")
    rows = csv.DictReader((out / "points.csv").read_text().splitlines())
    methods = {(row["setting"], row["method"]) for row in rows if row["seed"]}
    called = {name[:-2] for name in NAMES}  # in both, whatever words all runs begin with
    assert methods == set(product(("small", "large"), called))
    file = (out / "correlation.md").read_text()
    counted = [line for line in file.splitlines() if line.startswith("| trained runs alone | STS")]
    assert counted == [
        "| trained runs alone | STS | effective rank / d | + | 3 | 3 | 0 | 6 |",
        "| trained runs alone | STS | correlation excess | - | 0 | 3 | 0 | 3 |",
    ]


@pytest.mark.usefixtures("undrawn_figures")
def test_three_trained_methods_beside_baselines_are_too_few_alone(tmp_path):
    for name in NAMES[:6]:
        write(tmp_path / "small", name)
    correlate.main([str(tmp_path / "small"), "--out", str(tmp_path)])
    report = (tmp_path / "correlation.md").read_text()
    assert "| 16 | STS | +1.00 [+1.00, +1.00] * |" in report  # six with the baselines
    alone = report.split("**small, trained runs alone**: ")[1]
    assert alone.startswith("6 models of 3 methods;")
    assert "Nothing to correlate: it takes 4 methods" in alone
    assert "| trained runs alone | STS | effective rank / d | + | 0 | 0 | 0 | 0 |" in report


def points(methods, seeds, within=0.1, generator=NOISE):
    """x and y of methods that lie anywhere, and seeds near their method."""
    middle = generator.standard_normal((2, methods, 1))
    x, y = (middle + within * generator.standard_normal((2, methods, seeds))).reshape(2, -1)
    return x, y, np.repeat(np.arange(methods), seeds).tolist()


def test_values_and_interval_are_scipys_of_methods_drawn_one_by_one():
    x, y, methods = points(6, 3)
    x[4] = x[5]  # ranks are shared
    found = clusters.correlation(x, y, methods, resamples=300)
    assert found.rho.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.r.value == pytest.approx(pearsonr(x, y).statistic)
    rho, r = [], []
    for chosen in np.random.default_rng(clusters.SEED).integers(0, 6, (300, 6)):
        rows = np.concatenate([np.flatnonzero(np.array(methods) == one) for one in chosen])
        rho.append(spearmanr(x[rows], y[rows]).statistic)
        r.append(pearsonr(x[rows], y[rows]).statistic)
    assert found.rho[1:3] == pytest.approx(np.quantile(rho, [0.025, 0.975]))
    assert found.r[1:3] == pytest.approx(np.quantile(r, [0.025, 0.975]))


def test_seeds_that_are_copies_add_nothing_where_a_naive_bootstrap_grows_sure():
    x, y, methods = points(8, 1)
    once = clusters.correlation(x, y, methods)
    copied = clusters.correlation(x.repeat(5), y.repeat(5), np.repeat(methods, 5).tolist())
    naive = clusters.correlation(x.repeat(5), y.repeat(5), range(40))
    assert (copied.points, copied.methods) == (40, 8)
    assert copied.rho == pytest.approx(once.rho)
    assert copied.r == pytest.approx(once.r)
    assert naive.rho.value == pytest.approx(once.rho.value)
    assert naive.rho.high - naive.rho.low < 0.7 * (once.rho.high - once.rho.low)


def test_the_interval_holds_0_as_often_as_it_should_where_nothing_is_to_be_found():
    generator = np.random.default_rng(0)
    wrong = [
        clusters.correlation(*points(10, 3, generator=generator), resamples=400).rho.sign != 0
        for _ in range(200)
    ]
    assert sum(wrong) / len(wrong) < 0.12  # 0.05 were exact; of runs drawn singly it is 0.3
    x, y, _ = zip(*(points(10, 3, generator=generator) for _ in range(100)), strict=True)
    singly = [
        clusters.correlation(*one, range(30), resamples=400).rho.sign != 0
        for one in zip(x, y, strict=True)
    ]
    assert sum(singly) / len(singly) > 0.2


def test_resamples_without_variance_are_left_out_and_counted():
    x, y, methods = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], [0, 1, 2, 3]
    found = clusters.correlation(x, y, methods)
    assert found.rho.undefined == pytest.approx(4 / 4**4, abs=0.004)  # one method four times
    assert clusters.correlation(x, [7.0] * 4, methods) is None
    assert clusters.correlation([*x[:3], float("nan")], y, methods) is None  # three methods left


def without(folder, *keys):
    """Evaluations without a part of what they say; only one of them, where all of it is gone."""
    for name in NAMES if len(keys) > 1 else ["mic-1"]:
        file = folder / name / "results.json"
        content = json.loads(file.read_text())
        inner = content["meta"]
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        file.write_text(json.dumps(content))
    return folder


def few(folder):
    for name in ("mic-0", "mrl-0", "ese-1"):
        write(folder.parent / "few", name, baselines=())
    return folder.parent / "few"


def damaged(folder):
    (folder / "mic-0" / "items.safetensors").write_bytes(b"none")
    return folder


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda folder: folder / "nowhere", "holds no evaluation; name one that"),
        (lambda folder: folder / "mic-0", "is one model's evaluation; name the folder that it"),
        (lambda folder: without(folder, "geometry"), "mic-1: says nothing of geometry"),
        (lambda folder: without(folder, "geometry", PCA), "PCA: says nothing of its geometry at"),
        (few, "few: 3 methods (ese-1, mic-0, mrl-0); a correlation needs 4"),
        (damaged, "items.safetensors: not readable"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_cure_and_nothing_is_written(
    broken, told, evaluated, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as error:
        correlate.main([str(broken(evaluated)), "--out", str(out)])
    assert told in error.value.code
    assert not out.exists()
