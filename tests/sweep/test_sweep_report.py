"""The report of a sweep: its tables, choices and page are what the runs' files say."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from html_tables import Reader, rows_of, student
from scipy import stats

from mic.cli.main import main
from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.config.schema_data import Source
from mic.errors import InputError
from mic.report.run_report import PAGE
from mic.sweep.report import plots
from mic.sweep.report.curves import training_panel
from mic.sweep.report.notes import sweep_warnings
from mic.sweep.report.plots import (
    contour_panel,
    importance_panel,
    pareto_panel,
    slices_panel,
    study_of,
)
from mic.sweep.report.read import read_trial_file
from mic.sweep.report.sweep_report import PANELS, report_sweep, view_of
from mic.sweep.report.view import SweepView, metric_value
from mic.sweep.report.widths import widths_panel

DIMS = (4, 8, 16)
SEEDS = (0, 1, 2)
FAMILY = "val/captions/ndcg@10"
NARROW = f"{FAMILY}/d4"
GRID: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": NARROW, "goal": "maximize"},
    "parameters": {
        "objective.gamma": {"values": [0, 0.1, 1]},
        "objective.threshold": {"values": [0.05, 0.1]},
    },
    "seeds": list(SEEDS),
    "command": ["mic", "train", "base.yaml", "${args_no_hyphens}"],
}
Point = Mapping[str, Any]


@cache
def base() -> str:
    """The config that all trials change."""
    config = Config(name="base", dims=list(DIMS[:-1]))
    config.evaluation.validation.pairs = {"captions": Source("captions.tsv", ["a", "b"])}
    config.evaluation.test.sts = {"stsb": Source("stsb.csv", ["a", "b", "score"])}
    config.logging.tags = ["mine"]
    return to_yaml(config)


def config_text(chosen: Mapping[str, Any]) -> str:
    """What `to_yaml(load("base.yaml", *overrides))` gives, in a tenth of the time."""
    config: dict[str, Any] = yaml.load(base(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for key, value in chosen.items():
        *sections, name = key.split(".")
        inner = config
        for section in sections:
            inner = inner[section]
        inner[name] = inner[name] | value if isinstance(value, dict) else value
    for place in ("objective", "evaluation"):
        config[place]["dims"] = config["dims"]
    return yaml.safe_dump(config, sort_keys=False)


def begin(folder: Path, content: Mapping[str, Any]) -> Path:
    """A sweep's folder before its first trial."""
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(base())
    (folder / "sweep.yaml").write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return folder


def add(
    folder: Path,
    number: int | None,
    point: Point,
    seed: int,
    values: Mapping[str, float],
    state: str = "finished",
    name: str = "",
    **about: Any,
) -> Path:
    """A trial's folder as `mic sweep` leaves it; one of W&B's agents without a number."""
    run = folder / (name or f"t{number:03d}-seed{seed}")
    places = {"name": run.name, "runs": str(folder), "seed": seed, "logging.group": "sweep"}
    run.mkdir()
    (run / "config.yaml").write_text(config_text({**point, **places}))
    lines = [
        {"step": step, "epoch": 0, **{key: share * value for key, value in values.items()}}
        for step, share in ((0, 0.5), (10, 0.8), (20, 1.0))
    ]
    written_lines = lines if state == "finished" else lines[:2]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written_lines))
    if state == "finished":

        def scores(share: float) -> dict[str, Any]:
            top = {str(dim): share * values.get(f"{FAMILY}/d{dim}", 0.0) for dim in DIMS}
            return {"captions": {"ndcg@10": top}, "stsb": {"spearman": top, "pearson": top}}

        meta = {
            "baselines": {"raw truncation": scores(0.7), "PCA": scores(0.9)},
            "rows": {"train": 180, "validation": 20},
            "seconds": 120.0,
        }
        (run / "results.json").write_text(json.dumps({**scores(0.6), "meta": meta}))
    if number is not None:
        record = {"setting": number, "seed": seed, "state": state, "attempts": 1, **about}
        (run / "trial.json").write_text(json.dumps({"worker": "host:7", **record}))
    return run


def points(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A grid's settings."""
    axes = content["parameters"]
    return [
        dict(zip(axes, values, strict=True))
        for values in product(*(a["values"] for a in axes.values()))
    ]


def score(point: Point, dim: int, seed: int) -> float:
    """What a run scores: gamma matters most, and the best of it depends on the width."""
    gamma, tau = point.get("objective.gamma", 0.1), point.get("objective.threshold", 0.1)
    chance = np.random.default_rng([seed, dim, int(1000 * gamma), int(1000 * tau)]).normal()
    good = 10 * gamma * (1 if dim < 16 else -1)
    return float(50 + dim + good + 20 * tau + 0.5 * chance)


def scored(point: Point, seed: int) -> dict[str, float]:
    return {f"{FAMILY}/d{dim}": score(point, dim, seed) for dim in DIMS}


def means(dim: int, of: Sequence[Point]) -> list[float]:
    """Every setting's mean over the seeds."""
    return [float(np.mean([score(point, dim, seed) for seed in SEEDS])) for point in of]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid of six settings with three seeds each, reported from the command line."""
    folder = begin(tmp_path_factory.mktemp("sweep") / "runs" / "grid", GRID)
    for number, point in enumerate(points(GRID)):
        for seed in SEEDS:
            add(folder, number, point, seed, scored(point, seed), seconds=60.0 * (seed + 1))
    assert main(["report", "--sweep", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def view(grid: Path) -> SweepView:
    return view_of(grid)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open() as stream:
        return list(csv.DictReader(stream))


def panel_of(text: str, title: str) -> str:
    """A section of the page."""
    return text.partition(f"<h2>{title}")[2].partition("</section>")[0]


def test_these_runs_have_the_configs_that_trials_have(grid, view):
    places = (f"runs={grid}", "logging.group=sweep")
    expected = view.sweep.config_of(points(GRID)[5], 2, "name=t005-seed2", *places)
    assert load(grid / "t005-seed2" / "config.yaml") == expected


# Tables


def test_the_csv_has_every_setting_with_the_means_and_intervals_of_scipy(grid):
    by_setting = {row["setting"]: row for row in rows(grid)}
    assert set(by_setting) == {f"t{number:03d}" for number in range(6)}
    for number, point in enumerate(points(GRID)):
        row = by_setting[f"t{number:03d}"]
        assert {key: float(row[key]) for key in point} == point
        assert (row["state"], row["n"], row["minutes"]) == ("finished", "3", "2.0")
        for dim in DIMS:
            middle, half = student([score(point, dim, seed) for seed in SEEDS])
            assert float(row[f"{FAMILY}/d{dim}"]) == pytest.approx(middle)
            assert float(row[f"{FAMILY}/d{dim} half"]) == pytest.approx(half)


def test_rows_are_sorted_by_the_first_metric_and_markdown_and_page_say_the_same(grid):
    values = [float(row[NARROW]) for row in rows(grid)]
    assert values == sorted(values, reverse=True)
    lines = (grid / "table.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    shown = Reader((grid / PAGE).read_text()).tables[f"Settings, the highest {NARROW} first"]
    assert [cells[0], *cells[2:]] == [[cell.strip() for cell in row] for row in shown]
    assert [row[0] for row in shown[1:]] == [row["setting"] for row in rows(grid)]
    assert f"mic report --sweep {grid}" in "\n".join(lines)


def test_less_is_better_where_the_goal_says_so(tmp_path):
    content = {**GRID, "metric": {"name": "val/loss", "goal": "minimize"}, "seeds": [0]}
    folder = begin(tmp_path / "less", content)
    for number, point in enumerate(points(content)):
        add(folder, number, point, 0, {"val/loss": abs(number - 3.2)})
    view = view_of(folder)
    assert [value.setting.number for value in view.ranked(view.metric)] == [3, 4, 2, 5, 1, 0]
    assert view.best is not None
    assert view.best.number == 3
    assert widths_panel(view).missing.startswith("val/loss has no widths")
    assert pareto_panel(view).missing


def test_every_width_names_its_best_setting_beside_the_baselines(grid):
    shown = rows_of(Reader((grid / PAGE).read_text()).tables[f"{FAMILY}: best of 6 settings"])
    assert list(shown) == [str(dim) for dim in DIMS]
    for dim in DIMS:
        order = sorted(range(6), key=lambda number: -means(dim, points(GRID))[number])
        first, second = (
            [score(points(GRID)[number], dim, s) for s in SEEDS] for number in order[:2]
        )
        name, value, n, other, _, apart, raw, pca, gamma, tau = shown[str(dim)]
        assert (name, n, other) == (f"t{order[0]:03d}", "3", f"t{order[1]:03d}")
        middle, half = student(first)
        assert [float(part) for part in value.split(" ± ")] == pytest.approx(
            [middle, half], abs=0.051
        )
        beyond = abs(middle - np.mean(second)) > half + student(second)[1]
        assert apart == ("yes" if beyond else "no")
        assert {"objective.gamma": float(gamma), "objective.threshold": float(tau)} == points(GRID)[
            order[0]
        ]
        best = max(
            range(6), key=lambda number: means(4, points(GRID))[number]
        )  # whose runs have PCAs
        for share, cell in ((0.7, raw), (0.9, pca)):
            mean = share * np.mean([score(points(GRID)[best], dim, s) for s in SEEDS])
            assert float(cell.split(" ± ")[0]) == pytest.approx(mean, abs=0.051)


# What is best


def test_no_setting_of_the_front_is_beaten_and_every_other_one_is(tmp_path):
    goals = {4: "maximize", 8: "minimize", 16: "maximize"}
    metrics = [{"name": f"{FAMILY}/d{dim}", "goal": goal} for dim, goal in goals.items()]
    content = {key: value for key, value in GRID.items() if key != "metric"}
    folder = begin(tmp_path / "front", {**content, "metrics": metrics, "seeds": [0]})
    values = np.random.default_rng(0).integers(0, 3, (6, 3)).astype(float)  # with ties
    for number, row in enumerate(values):
        logged = {f"{FAMILY}/d{dim}": value for dim, value in zip(goals, row, strict=True)}
        add(folder, number, points(GRID)[number], 0, logged)
    good = values * [1, -1, 1]
    beaten = [any((other >= row).all() and (other > row).any() for other in good) for row in good]
    assert 0 < sum(beaten) < 6
    panel = pareto_panel(view_of(folder))
    front = {f"t{number:03d}" for number in range(6) if not beaten[number]}
    assert {row[0] for row in panel.tables[0].rows} == front
    assert set(panel.pictures) == {"pareto", "pareto1", "pareto2"}  # every pair


def test_the_front_of_one_metric_is_its_narrowest_against_its_full_width(grid):
    shown = Reader((grid / PAGE).read_text()).tables
    (title,) = [name for name in shown if name.startswith("The front")]
    both = list(zip(means(4, points(GRID)), means(16, points(GRID)), strict=True))
    on = [
        number
        for number, (a, b) in enumerate(both)
        if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in both)
    ]
    assert {row[0] for row in shown[title][1:]} == {f"t{number:03d}" for number in on}
    assert shown[title][0][:3] == ["setting", NARROW, f"{FAMILY}/d16"]


def test_the_best_config_is_its_first_run_under_its_own_name(grid):
    best = max(range(6), key=lambda number: means(4, points(GRID))[number])
    best_config, run = load(grid / "best.yaml"), load(grid / f"t{best:03d}-seed0" / "config.yaml")
    base = load(grid / "base.yaml")
    assert (best_config.name, best_config.runs, best_config.seed) == ("grid-best", base.runs, 0)
    assert (best_config.logging.group, best_config.logging.tags) == (None, ["mine"])
    assert replace(best_config, name=run.name, runs=run.runs, logging=run.logging) == run
    first, second, *_ = (grid / "best.yaml").read_text().splitlines()
    middle, half = student([score(points(GRID)[best], 4, seed) for seed in SEEDS])
    assert first.startswith(f"# sweep grid, setting t{best:03d}, the best of 6: {NARROW} ")
    mean, shown_half = re.search(
        r"([0-9.]+) ± ([0-9.]+) \(95 % interval, 3 seeds\)", first
    ).groups()
    assert [float(mean), float(shown_half)] == pytest.approx([middle, half], abs=0.051)
    assert second == f"# chosen by `mic report --sweep {grid}`"


def test_test_scores_are_those_of_the_best_setting_alone(grid):
    text = (grid / PAGE).read_text()
    best = max(range(6), key=lambda number: means(4, points(GRID))[number])
    shown = rows_of(Reader(text).tables["stsb: spearman (%)"])
    assert list(shown) == ["raw truncation", "PCA", f"t{best:03d}"]
    for column, dim in enumerate(DIMS):
        middle, half = student([0.6 * score(points(GRID)[best], dim, seed) for seed in SEEDS])
        assert shown[f"t{best:03d}"][column] == f"{middle:.1f} ± {half:.1f}"
    assert text.count("stsb: spearman") == 1
    assert "No choice looked at these" in panel_of(text, "Test scores")


# Panels


def test_every_panel_has_its_picture_and_says_what_and_by_which_command(grid):
    text = (grid / PAGE).read_text()
    names = {"widths", "pareto", "importance", "slices", "contour", "training"}
    assert {file.stem for file in (grid / "figures").iterdir()} == names
    page = Reader(text)
    assert len(page.images) == len(names)
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert all(
        f"Made by <code>mic report --sweep {grid}</code>." in caption for caption in captions
    )
    seeds = [re.search(r"6 settings, mean(.*) over 3 seeds", caption)[1] for caption in captions]
    assert seeds == [
        " and 95 % t-interval",
        *[""] * 4,
        " and 95 % t-interval",
    ]  # Optuna's have none
    assert page.missing == ["No run failed."]
    assert text.count("<h2>") == len(PANELS)


def test_the_page_fetches_nothing(grid):
    text = (grid / PAGE).read_text()
    page = Reader(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\((?!['\"]?data:)", text)


def test_what_matters_is_found_to_matter(grid):
    shown = Reader((grid / PAGE).read_text()).tables["Importance"]
    assert [row[0] for row in shown[1:]] == ["gamma", "threshold"]
    shares = [float(row[1]) for row in shown[1:]]
    assert shares[0] > 0.9
    assert sum(shares) == pytest.approx(1, abs=0.011)


def test_a_trial_is_the_mean_of_a_setting_under_its_number(view):
    study = study_of(view, [view.metric], {key: key for key in points(GRID)[0]})
    for trial, mean, point in zip(study.trials, means(4, points(GRID)), points(GRID), strict=True):
        assert trial.value == pytest.approx(mean)
        assert [float(value) for value in trial.params.values()] == list(point.values())
    last = view._replace(settings=view.settings[4:])
    states = [trial.state.name for trial in study_of(last, [view.metric], {}).trials]
    assert states == ["FAIL"] * 4 + ["COMPLETE"] * 2


def test_slices_are_drawn_at_the_values_in_the_order_of_the_file(view):
    gamma, tau, _ = slices_panel(view).pictures["slices"].axes
    for axis, key in ((gamma, "objective.gamma"), (tau, "objective.threshold")):
        names = [str(value) for value in GRID["parameters"][key]["values"]]
        assert [label.get_text() for label in axis.get_xticklabels()] == names
        expected = [
            [names.index(str(point[key])), mean]
            for point, mean in zip(points(GRID), means(4, points(GRID)), strict=True)
        ]
        drawn = axis.collections[0].get_offsets().tolist()
        assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(expected)))


def test_lists_and_sections_are_slices_by_their_names(tmp_path):
    tried = [{"weight": 0}, {"weight": 0.5, "warmup_steps": 3}]
    parameters = {"objective.cv": {"values": tried}, "dims": {"values": [[4, 8], [8]]}}
    folder = begin(tmp_path / "names", {**GRID, "seeds": [0], "parameters": parameters})
    for number, point in enumerate(points({"parameters": parameters})):
        add(folder, number, point, 0, {NARROW: float(number)})
    cv, dims, _ = slices_panel(view_of(folder)).pictures["slices"].axes
    assert [label.get_text().replace("\n", " ") for label in cv.get_xticklabels()] == [
        "weight 0",
        "weight 0.5, warmup_steps 3",
    ]
    assert [label.get_text() for label in dims.get_xticklabels()] == ["[4,8]", "[8]"]


def test_the_contour_is_of_numbers_and_curves_end_at_the_value(view):
    panel = contour_panel(view)
    assert panel.title == "Contour of gamma against threshold"
    axis = panel.pictures["contour"].axes[0]
    offsets = axis.collections[-2].get_offsets().tolist()
    assert sorted(offsets) == [[gamma, tau] for gamma in range(3) for tau in range(2)]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.1", "1"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0.05", "0.1"]
    axis = training_panel(view).pictures["training"].axes[0]
    ends = sorted(float(line.get_ydata()[-1]) for line in axis.lines)
    assert ends == pytest.approx(sorted(means(4, points(GRID))))
    (named,) = [line for line in axis.lines if line.get_label().startswith("best")]
    assert named.get_ydata()[-1] == pytest.approx(max(means(4, points(GRID))))


def test_a_contour_has_the_mean_of_settings_that_share_both_values(tmp_path, monkeypatch):
    more = {**GRID["parameters"], "dims": {"values": [[4, 8], [8]]}}
    folder = begin(tmp_path / "shared", {**GRID, "seeds": [0], "parameters": more})
    for number, point in enumerate(points({"parameters": more})):
        add(folder, number, point, 0, {NARROW: float(number)})
    studies = []
    draw = plots.draw_contour
    monkeypatch.setattr(
        plots, "draw_contour", lambda study, *rest: studies.append(study) or draw(study, *rest)
    )
    contour_panel(view_of(folder))
    assert [trial.value for trial in studies[0].trials] == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]


def test_settings_anywhere_have_a_surface_of_the_two_numbers_that_matter_most(tmp_path):
    ranges = {
        "trainer.learning_rate": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-3},
        "trainer.weight_decay": {"min": 0.0, "max": 0.1},
        "objective.t": {"min": 1.0, "max": 3.0},
        "teacher.decay": {"values": [0.9, 0.99]},
    }
    content = {**GRID, "method": "random", "run_cap": 9, "seeds": [0], "parameters": ranges}
    folder = begin(tmp_path / "random", content)
    generator = np.random.default_rng(0)
    for number in range(9):
        rate, decay = 10 ** generator.uniform(-6, -3), generator.uniform(0, 0.1)
        point = {
            "trainer.learning_rate": float(rate),
            "trainer.weight_decay": float(decay),
            "objective.t": float(generator.uniform(1, 3)),
            "teacher.decay": 0.9,
        }
        add(folder, number, point, 0, {NARROW: float(np.log10(rate) + 30 * decay)})
    view = view_of(folder)
    axis, *_ = contour_panel(view).pictures["contour"].axes
    assert {axis.get_xlabel(), axis.get_ylabel()} == {"learning_rate", "weight_decay"}
    scales = {axis.get_xlabel(): axis.get_xscale(), axis.get_ylabel(): axis.get_yscale()}
    assert scales == {"learning_rate": "log", "weight_decay": "linear"}
    assert len(axis.collections[-2].get_offsets()) == 9
    rate = [axis for figure in slices_panel(view).pictures.values() for axis in figure.axes]
    assert {axis.get_xlabel(): axis.get_xscale() for axis in rate}["learning_rate"] == "log"
    assert any("there is no interval" in line for line in sweep_warnings(view))


# Sweeps that are not whole


def test_few_settings_or_settings_on_a_line_have_no_importance_and_no_surface(tmp_path):
    folder = begin(tmp_path / "few", {**GRID, "seeds": [0]})
    every = points(GRID)
    for number in (0, 1, 2):
        add(folder, number, every[number], 0, scored(every[number], 0))
    view = view_of(folder)
    assert "3 finished settings, and 4 are needed" in importance_panel(view).missing
    assert "3 finished settings" in contour_panel(view).missing
    wide = {
        "objective.gamma": {"values": [0, 0.1, 1, 2]},
        "objective.threshold": {"values": [0, 0.1, 0.2, 0.3]},
    }
    folder = begin(tmp_path / "line", {**GRID, "seeds": [0], "parameters": wide})
    for number, values in enumerate(zip(*(axis["values"] for axis in wide.values()), strict=True)):
        add(folder, number, dict(zip(wide, values, strict=True)), 0, {NARROW: 1.0})
    view = view_of(folder)
    assert "on a line" in contour_panel(view).missing
    assert "the same value" in importance_panel(view).missing


def test_an_unfinished_sweep_shows_what_there_is(tmp_path):
    folder = begin(tmp_path / "young", GRID)
    every = points(GRID)
    for seed in SEEDS[:2]:
        add(folder, 0, every[0], seed, scored(every[0], seed))
    add(folder, 1, every[1], 0, scored(every[1], 0), state="running")
    add(folder, 2, every[2], 0, scored(every[2], 0), state="pruned")
    failed = folder / "t003-seed0"
    failed.mkdir()
    about = {"setting": 3, "seed": 0, "state": "failed", "parameters": every[3], "attempts": 3}
    (failed / "trial.json").write_text(json.dumps({**about, "lines": ["Traceback", "out of <b>"]}))
    (folder / "logs").mkdir()
    add(folder, 4, every[4], 0, scored(every[4], 0), state="failed")
    (folder / "logs/t004-seed0.log").write_text("loss is not finite\n")
    (folder / "best.yaml").write_text("of an earlier report")
    text = report_sweep(folder).read_text()
    by_setting = {row["setting"]: row for row in rows(folder)}
    states = {name: (row["state"], row["n"]) for name, row in by_setting.items()}
    assert states == {
        "t000": ("unfinished", "2"),
        "t001": ("running", "0"),
        "t002": ("pruned", "0"),
        "t003": ("failed", "0"),
        "t004": ("failed", "0"),
    }
    assert float(by_setting["t003"]["objective.gamma"]) == every[3]["objective.gamma"]
    assert float(by_setting["t000"][NARROW]) == pytest.approx(
        np.mean([scored(every[0], seed)[NARROW] for seed in SEEDS[:2]])
    )
    assert by_setting["t001"][NARROW] == ""
    assert not (folder / "best.yaml").exists()
    for words in ("out of &lt;b&gt;", "loss is not finite", "0 of 6 settings are finished"):
        assert words in text
    assert "2 runs failed: t003-seed0, t004-seed0" in text
    assert "n differs: 1 setting (t000)" in text
    assert len(Reader(text).images) == 1  # the curves


def test_a_sweep_without_any_run_has_a_page(tmp_path):
    ranges = {"objective.gamma": {"distribution": "log_uniform_values", "min": 0.01, "max": 1}}
    ranges["objective.threshold"] = {"min": 0.0, "max": 0.5}
    content = {**GRID, "method": "bayes", "run_cap": 18, "parameters": ranges}
    folder = begin(tmp_path / "empty", content)
    text = report_sweep(folder).read_text()
    assert "0 of 6 settings are finished with all seeds. Runs: none." in text
    assert "Settings, the highest" in text
    assert rows(folder) == []
    assert not (folder / "best.yaml").exists()


def test_folders_of_wandb_agents_are_grouped_by_what_they_swept(tmp_path):
    parameters = {
        "dims": {"values": [[4, 8], [8]]},
        "objective.cv": {"values": [{"weight": 0}, {"weight": 0.5, "warmup_steps": 3}]},
        "seed": {"values": [3, 4]},
    }
    content = {key: value for key, value in GRID.items() if key != "seeds"}
    folder = begin(tmp_path / "agents", {**content, "parameters": parameters})
    names = iter("qwertyui")
    every = points({"parameters": {key: parameters[key] for key in ("dims", "objective.cv")}})
    for number, point in enumerate(every):
        for seed in (3, 4):
            value = {NARROW: 10.0 * number + seed}
            add(folder, None, point, seed, value, name=f"{next(names)}x7{seed}")
    view = view_of(folder)
    assert len(view.settings) == 4
    for setting in view.settings:
        assert setting.complete
        value = metric_value(setting, NARROW)
        assert value is not None
        assert value.mean == 10.0 * every.index(setting.point) + 3.5
    assert view.best is not None
    assert view.best.point == every[3]


def test_what_chance_may_have_done_is_said(tmp_path, view):
    assert not any("by chance" in line for line in sweep_warnings(view))
    assert any("chosen among 6 settings" in line for line in sweep_warnings(view))
    folder = begin(tmp_path / "chance", {**GRID, "seeds": [0, 1]})
    values = np.random.default_rng(0).normal(size=(3, 2))
    for number, ours in enumerate(values):
        for seed, value in enumerate(ours):
            add(folder, number, points(GRID)[number], seed, {NARROW: float(value)})
    p = stats.f_oneway(*values).pvalue
    assert any(f"p = {p:.2f}): the best may be" in line for line in sweep_warnings(view_of(folder)))


# What is refused


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_a_damaged_trial_is_named(tmp_path, content):
    (tmp_path / "trial.json").write_text(content)
    with pytest.raises(InputError, match=r"trial\.json: .*remove it"):
        read_trial_file(tmp_path / "trial.json")


def test_what_is_no_sweep_is_refused(tmp_path, capsys):
    def refusal(*arguments: object) -> str:
        assert main(["report", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "no such folder" in refusal("--sweep", tmp_path / "nowhere")
    assert "no sweep.yaml" in refusal("--sweep", tmp_path)
    folder = begin(tmp_path / "damaged", GRID)
    (add(folder, 0, points(GRID)[0], 0, {}) / "results.json").write_text("{")
    assert "results.json: not the results of a run" in refusal("--sweep", folder)
    assert not (folder / PAGE).exists()
    assert "takes no RUN runs/a" in refusal("runs/a", "--sweep", tmp_path)
    assert "takes no --to x" in refusal("--to", "x", "--sweep", tmp_path)
    assert "name a run directory, or --sweep DIR" in refusal()
