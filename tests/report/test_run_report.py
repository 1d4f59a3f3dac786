"""The report: what the page says is what the files say, and it needs nothing but itself."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from html import unescape
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import browser, visit
from html_tables import Reader, rows_of, student
from matplotlib.image import imread

from mic.cli.main import main
from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.errors import InputError
from mic.metrics.geometry import covariance, cross_correlation, prefix_measures, rms, spectrum
from mic.report import figures, html
from mic.report.panel import Panel, View
from mic.report.panels.quality import quality_panel
from mic.report.panels.training import terms_panel
from mic.report.run_report import PAGE, PANELS, report
from mic.report.tables import Table
from mic.tracking.reader import read_metrics, read_run
from mic.tracking.seed_groups import group_by_seed, interval
from mic.tracking.snapshots import Snapshot, write_snapshot

DIMS = (4, 8, 16)
ROWS = 50
STEPS = (0, 10, 20)
PICTURES = {
    *("quality", "spectra", "collapse", "variance", "correlation", "redundancy", "terms"),
    *("terms_weighted", "balance", "balance_small", "validation", "throughput", "time"),
}


def write_run(folder: Path, seed: int = 0, gamma: float = 0.1, finished: bool = True) -> Path:
    """A run's folder as training writes it, with figures drawn by chance."""
    folder.mkdir(parents=True)
    config = Config(name=folder.name, runs=str(folder.parent), seed=seed, dims=list(DIMS[:-1]))
    config.objective.gamma = gamma
    config.trainer.max_steps = STEPS[-1]
    (folder / "config.yaml").write_text(to_yaml(config))
    generator = torch.Generator().manual_seed(seed + int(1000 * gamma))

    def draw() -> float:
        return float(torch.rand((), generator=generator))

    lines: list[dict[str, Any]] = []
    for step in STEPS:
        rows = torch.randn(ROWS, DIMS[-1], generator=generator) + 0.1 * step
        spread = covariance(rows)
        geometry = {
            f"geometry/{name}/d{dim}": value
            for dim in DIMS
            for name, value in prefix_measures(spread[:dim, :dim], spread[:dim, :dim], ROWS).items()
        }
        more = {
            f"geometry/{name}/d{dim}": draw()
            for dim in DIMS
            for name in ("mean_cosine", "uniformity", "alignment")
        }
        redundancy = {f"correlation/rms/d{dim}": draw() for dim in DIMS[:-1]}
        floor = {"geometry/rows": ROWS, "correlation/floor": (ROWS - 1) ** -0.5}
        lines.append({"step": step, "epoch": 0, **geometry, **more, **redundancy, **floor})
        scores = {f"val/sts/spearman/d{dim}": 100 * draw() for dim in DIMS}
        lines.append({"step": step, "epoch": 0, **scores})
        write_snapshot(
            folder,
            Snapshot(
                step,
                ROWS,
                {dim: spectrum(spread[:dim, :dim]) for dim in DIMS},
                spread.diagonal(),
                8,
                cross_correlation(spread, 8),
            ),
        )
    for step in range(1, STEPS[-1] + 1):
        weighted = {"contrastive": draw(), "uniformity": -draw()}
        lines.append(
            {
                "step": step,
                "epoch": 0,
                "train/loss": sum(weighted.values()),
                **{f"train/{name}": 2 * value for name, value in weighted.items()},
                **{f"train/{name}/weighted": value for name, value in weighted.items()},
                "balance/contrastive": 0.75,
                "balance/uniformity": 0.25,
                "speed/pairs_per_second": 100 + draw(),
                "speed/tokens_per_second": 1000 + draw(),
                **dict.fromkeys(("speed/data", "speed/encoder", "speed/objective"), 0.2),
                **dict.fromkeys(("speed/backward", "speed/optimizer"), 0.2),
                "memory/mib": 512.0,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        methods = [
            {"sts": {"spearman": {str(dim): 100 * draw() for dim in DIMS}}} for _ in range(3)
        ]
        meta = {
            "baselines": {"raw truncation": methods[0], "PCA": methods[1]},
            **{"seed": seed, "steps": STEPS[-1], "pairs_per_second": 100.0, "seconds": 60.0},
            **{"rows": {"train": 180, "validation": 25}, "data": {"train/pairs": "ab12"}},
            **{"versions": {"torch": "2.13"}, "git_commit": "0123456789abcdef"},
        }
        (folder / "results.json").write_text(json.dumps({**methods[2], "meta": meta}))
    return folder


def bare(run: Path) -> Path:
    """Leave nothing of a run but its results, which are one picture."""
    for file in (run / "geometry").iterdir():
        file.unlink()
    (run / "metrics.jsonl").unlink()
    return run


@pytest.fixture(scope="module")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report."""
    run = write_run(tmp_path_factory.mktemp("one") / "mine")
    report([run])
    return run


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three seeds of two configs."""
    folder = tmp_path_factory.mktemp("seeds")
    return {
        f"objective.gamma={gamma:g}": [
            write_run(folder / f"{name}-{seed}", seed, gamma) for seed in range(3)
        ]
        for name, gamma in (("mrl", 0.0), ("mic", 0.1))
    }


@pytest.fixture(scope="module")
def compared(seeds: Mapping[str, Sequence[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison."""
    to = tmp_path_factory.mktemp("compared")
    report([run for runs in seeds.values() for run in runs], to)
    return to


# What the page says


def test_the_numbers_of_a_real_run_are_those_of_its_files(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    page = Reader(report([run]).read_text())
    results = json.loads((run / "results.json").read_text())
    meta = results.pop("meta")
    for task, metrics in results.items():
        for metric, values in metrics.items():
            table = rows_of(page.tables[f"{task}: {metric} (%)"])
            for method, scores in {**meta["baselines"], "tiny": None}.items():
                expected = values if scores is None else scores[task][metric]
                assert table[method] == [f"{value:.1f}" for value in expected.values()]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {name: value for line in lines for name, value in line.items()}
    collapse = rows_of(page.tables["last values"])  # the redundancy's, which comes last
    for name, values in collapse.items():
        assert values == [f"{last[f'correlation/{name}/d{dim}']:.4g}" for dim in (4, 8, 16)]
    terms = rows_of(page.tables["last logged step"])
    for name in ("contrastive", "correlation", "variance", "cv", "uniformity"):
        raw, weighted = last[f"train/{name}"], last[f"train/{name}/weighted"]
        assert terms[name] == [f"{raw:.4g}", f"{weighted:.4g}"]
    runs = rows_of(page.tables["Runs"])
    assert runs["tiny"][:3] == ["0", "finished", "4"]
    assert runs["tiny"][5] == "180"
    assert "trainer.max_steps" in rows_of(page.tables["Config diff"])
    assert not page.missing


def test_every_panel_is_there_with_its_caption_and_as_a_picture(reported_run):
    text = (reported_run / PAGE).read_text()
    page = Reader(text)
    files = {file.stem: file.read_bytes() for file in (reported_run / "figures/report").iterdir()}
    assert set(files) == PICTURES
    assert len(page.images) == len(PICTURES)
    assert all(png[:8] == b"\x89PNG\r\n\x1a\n" for png in (*files.values(), *page.images))
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert len(captions) == len(PANELS) - 1  # the config has tables alone
    assert all(
        f"Made by <code>mic report {reported_run}</code>." in caption for caption in captions
    )
    assert sum(f"N = {ROWS} embeddings" in caption for caption in captions) == 5
    assert text.count("180 rows of training") == 5


def test_lines_are_drawn_through_the_logged_values(reported_run):
    run = read_run(reported_run)
    view = View(group_by_seed([run]), "")
    quality, loss = quality_panel(view), terms_panel(view)
    (axis,) = quality.pictures["quality"].axes
    for line, method in zip(axis.lines, run.methods.values(), strict=True):
        assert list(line.get_xdata()) == list(DIMS)
        assert list(line.get_ydata()) == list(method["sts"]["spearman"].values())
    total = loss.pictures["terms"].axes[0].lines[0]
    assert dict(zip(*total.get_data(), strict=True)) == run.metrics["train/loss"]


def test_mean_and_interval_over_seeds_are_those_of_scipy(seeds, compared):
    tables = Reader((compared / PAGE).read_text()).tables
    shown = rows_of(tables["sts: spearman (%)"])
    for label, runs in seeds.items():
        results = [json.loads((run / "results.json").read_text()) for run in runs]
        for column, dim in enumerate(DIMS):
            values = [scores["sts"]["spearman"][str(dim)] for scores in results]
            middle, half = student(values)
            assert shown[label][column] == f"{middle:.1f} ± {half:.1f}"
    cosine = rows_of(tables["objective.gamma=0.1: last values"])
    assert set(cosine) >= {"rms"}
    series = [read_run(run).metrics["correlation/rms/d4"] for run in seeds["objective.gamma=0.1"]]
    middle, half = student([values[STEPS[-1]] for values in series])
    stated = [float(part) for part in cosine["rms"][0].split(" ± ")]
    assert stated == pytest.approx([middle, half], abs=0.051 * half)  # two digits of the half


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 1.0, 4.0, 1.5, 9.0]])
def test_the_interval_is_students(values):
    middle, half = student(values)
    over_seeds = interval(values)
    assert (over_seeds.mean, over_seeds.half, over_seeds.runs) == pytest.approx(
        (middle, half, len(values))
    )


def test_one_run_has_no_interval():
    assert interval([7.5]) == (7.5, 0.0, 1)


def test_the_bands_are_as_wide_as_the_interval(seeds):
    runs = seeds["objective.gamma=0.1"]
    picture = quality_panel(View(group_by_seed(map(read_run, runs)), "")).pictures["quality"]
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    corners = picture.axes[0].collections[-1].get_paths()[0].vertices
    for dim in DIMS:
        middle, half = student([scores["sts"]["spearman"][str(dim)] for scores in results])
        heights = corners[corners[:, 0] == dim, 1]
        assert heights.min() == pytest.approx(middle - half)
        assert heights.max() == pytest.approx(middle + half)


# Which runs are one group


def test_runs_that_differ_by_their_seed_are_one_group(seeds):
    runs = [read_run(run) for group in seeds.values() for run in group]
    groups = group_by_seed([*runs[::2], *runs[1::2]])
    assert {group.label for group in groups} == set(seeds)
    for group in groups:
        assert [run.folder for run in group.runs] == seeds[group.label]
    assert [group.label for group in group_by_seed(runs[:3])] == ["mrl"]
    assert [group.label for group in group_by_seed(runs[:1])] == ["mrl-0"]


def test_groups_that_differ_in_much_have_their_runs_names(tmp_path):
    runs = [write_run(tmp_path / f"{name}-{seed}", seed) for name in "ab" for seed in (1, 2)]
    for run in runs[2:]:
        config = load(run / "config.yaml")
        config.trainer.learning_rate, config.trainer.warmup, config.objective.t = 1e-3, 0.2, 3.0
        (run / "config.yaml").write_text(to_yaml(config))
    assert [group.label for group in group_by_seed(map(read_run, runs))] == ["a", "b"]


def test_the_same_seed_twice_is_said_and_the_same_folder_twice_is_one(tmp_path):
    runs = [bare(write_run(tmp_path / name, seed=5)) for name in ("a", "b")]
    text = report(runs, tmp_path / "to").read_text()
    assert "two runs have the same seed" in text
    assert "two runs" not in report([runs[0], runs[0] / "."]).read_text()


# Runs that are not whole


def test_a_run_that_still_trains_gives_what_there_is(tmp_path):
    run = write_run(tmp_path / "young", finished=False)
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 21, "train/lo')
    page = Reader(report([run]).read_text())
    assert page.missing == ["No results.json yet: it is written when a run ends."]
    assert "step 20 of 20" in page.tables["Runs"][1][2]
    files = {file.stem for file in (run / "figures/report").iterdir()}
    assert files == PICTURES - {"quality"}


def test_what_was_not_measured_is_left_out_with_the_reason(tmp_path):
    run = bare(write_run(tmp_path / "bare", finished=False))
    page = Reader(report([run]).read_text())
    assert len(page.missing) == len(PANELS) - 1
    assert sum("monitor.geometry" in line for line in page.missing) == 4
    assert not page.images


def test_a_picture_of_an_earlier_report_does_not_outlive_it(tmp_path):
    run = bare(write_run(tmp_path / "again"))
    report([run])
    picture = run / "figures/report/quality.png"
    assert picture.exists()
    (run / "results.json").unlink()
    report([run])
    assert not picture.exists()


def test_null_is_not_a_number_and_of_a_step_logged_twice_the_last_counts(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 2, "epoch": 0, "a": 1.5, "b": null}\n{"step": 1, "epoch": 0, "a": 3}\n'
        '{"step": 2, "epoch": 0, "a": 2.5}\n{"step": 2, "epoch": 0, "c": 1}\n{"step": 3, "a'
    )
    metrics = read_metrics(file)
    assert metrics["a"] == {1: 3.0, 2: 2.5}
    assert list(metrics["a"]) == [1, 2]
    assert metrics["b"] == pytest.approx({2: nan}, nan_ok=True)
    assert metrics["c"] == {2: 1.0}
    assert set(metrics) == {"a", "b", "c"}


def test_nulls_leave_a_gap_and_no_panel_breaks(tmp_path):
    run = write_run(tmp_path / "diverged", finished=False)
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(
        re.sub(r"(\": )-?[0-9.]+(e-?\d+)?(?=, \"[gcvtbsm])", r"\1null", text)
    )
    assert Reader(report([run]).read_text()).images


@pytest.mark.parametrize("line", ["{", "[]", '{"a": 1}', '{"step": "x"}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 1, "a": 1}}\n{line}\n{{"step": 2, "a": 1}}\n')
    with pytest.raises(InputError, match="line 2"):
        read_metrics(file)


@pytest.mark.parametrize("content", ["{", "[]", '{"meta": 1}', '{"meta": {"baselines": 3}}'])
def test_damaged_results_are_named(reported_run, tmp_path, content):
    run = write_run(tmp_path / "damaged")
    (run / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        report([run])


def test_the_command_says_where_the_page_is_and_what_is_wrong(
    reported_run, seeds, tmp_path, capsys
):
    run, place = bare(write_run(tmp_path / "bare")), tmp_path / "new" / "place"
    assert main(["report", str(run), "--to", str(place)]) == 0
    assert capsys.readouterr().out.strip() == str(place / PAGE)
    assert {file.name for file in place.iterdir()} == {PAGE, "quality.png"}
    pair = [str(run) for run in seeds["objective.gamma=0.1"][:2]]
    assert main(["report", *pair]) == 2
    assert "--to FOLDER" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "no run of mic" in capsys.readouterr().err
    assert main(["report", str(reported_run), "--to", str(reported_run / "config.yaml")]) == 2


# The page alone


def test_nothing_is_fetched_from_anywhere(reported_run, compared):
    for folder in (reported_run, compared):
        text = (folder / PAGE).read_text()
        page = Reader(text)
        assert all(address.startswith(("data:", "#")) for address in page.addresses)
        assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
        assert "@import" not in text
        assert not re.search(r"url\((?!['\"]?data:)", text)


def test_what_files_smuggle_in_is_text(tmp_path):
    evil = "<img src=//evil.example/x>\"'&"
    run = write_run(tmp_path / "<b>bold</b>"[:3].replace("<", "lt"))
    config = load(run / "config.yaml")
    config.encoder.name = evil
    (run / "config.yaml").write_text(to_yaml(config))
    for name in ("metrics.jsonl", "results.json"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("sts", json.dumps(evil)[1:-1].replace("/", "!")))
    page = Reader(report([run]).read_text())
    assert "evil.example" in (run / PAGE).read_text()
    assert not [address for address in page.addresses if "evil" in address]
    assert page.tags.isdisjoint({"b", "script"})


def test_autoescape_alone_turns_markup_into_text(monkeypatch):
    evil = "<script>alert(1)</script>"
    table = Table(evil, [evil], [[evil]])
    panels = [Panel(evil, {}, evil, [table], {evil: [table]}, evil, {evil: evil})]
    arguments = (evil, [evil], table, panels, {}, {evil: evil})
    page = html.render_page(*arguments)
    assert "script" not in Reader(page).tags
    assert page.count("&lt;script&gt;") == page.count("alert(1)") > 15
    assert "safe" not in Path(html.__file__).with_name(html.TEMPLATE).read_text()
    monkeypatch.setattr(html, "TEMPLATES", html.TEMPLATES.overlay(autoescape=False))
    assert html.render_page(*arguments) == unescape(page)


needs_chromium = pytest.mark.skipif(browser() is None, reason="no Chromium on the PATH")
SHOWN = """({
    sizes: [...document.images].map(image => image.naturalWidth),
    titles: [...document.querySelectorAll("section h2")].map(title => title.textContent),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})"""


@needs_chromium
def test_a_real_browser_shows_it_without_request_or_complaint(reported_run, compared, tmp_path):
    for folder, width in ((reported_run, 1000), (compared, 390)):
        seen = visit((folder / PAGE).as_uri(), SHOWN, tmp_path / str(width), width)
        away = [url for url in seen.requests if not url.startswith("data:")]
        assert away == [(folder / PAGE).as_uri()]
        assert seen.complaints == []
        assert len(seen.value["titles"]) == len(PANELS)
        pictures = list(folder.rglob("*.png"))
        assert len(seen.value["sizes"]) == len(pictures) >= len(PICTURES) - 2
        assert min(seen.value["sizes"]) > 0
        assert seen.value["wide"] <= 0  # nothing sticks out, on a phone either


@needs_chromium
def test_the_browser_test_would_see_a_request_and_an_error(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="http://localhost:1/x.png"><script>console.error("oh")</script>')
    seen = visit(page.as_uri(), "document.images[0].naturalWidth", tmp_path / "profile")
    assert "http://localhost:1/x.png" in seen.requests
    assert any("oh" in line for line in seen.complaints)
    assert seen.value == 0


# Figures


def test_blocks_of_a_map_keep_its_rms_and_the_caption_says_so():
    x = torch.randn(128, 4 * figures.CELLS, dtype=torch.double)
    small = figures.block_rms(x)
    assert small.shape == (128, figures.CELLS)
    assert rms(small) == pytest.approx(rms(x))
    expected = x.reshape(128, figures.CELLS, 4).square().mean(2).sqrt()
    torch.testing.assert_close(small, expected)
    assert "blocks of 1 x 4 coordinates" in figures.block_note({"": x})
    assert figures.block_note({"": x[:, : figures.CELLS]}) == ""


def test_pictures_are_drawn_as_matplotlib_saves_them(tmp_path):
    def figure():
        states = {
            name: torch.rand(8, 24, generator=torch.Generator().manual_seed(3)) for name in "ab"
        }
        return figures.correlation_map(states, [4, 8, 16, 32], 50, "a caption " * 40)

    figure().savefig(tmp_path / "expected.png", dpi=figures.DPI)
    figures.save(figure(), tmp_path / "saved.png")
    expected, saved = (imread(tmp_path / f"{name}.png") for name in ("expected", "saved"))
    assert np.array_equal(expected, saved)


def test_maps_share_one_colour_scale_and_mark_every_nested_end():
    before, after = (scale * torch.rand(8, 24) for scale in (0.1, 1.0))
    drawn = figures.correlation_map({"before": before, "after": after}, [2, 4, 8, 16, 32], 101)
    first, second, bar = drawn.axes
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert bar.get_ylabel() == "|correlation|"
    for axis, x in ((first, before), (second, after)):
        assert axis.get_title().endswith(f"rms {rms(x):.3f} (independent: {1 / sqrt(100):.3f})")
        marks = {line.get_ydata()[0] for line in axis.lines if line.get_xdata()[0] == 0}
        assert {2, 4} <= marks
        assert [16, 16] in [list(line.get_xdata()) for line in axis.lines]


def test_shares_of_variance_are_drawn_as_they_are():
    variances = torch.tensor([1.0, 2.0, 3.0, 2.0])
    drawn = figures.variance({"now": variances}, [2, 4])
    (axis,) = drawn.axes
    assert list(axis.patches[0].get_data().values) == pytest.approx([0.5, 1.0, 1.5, 1.0])
    spread = float(variances.std(correction=0) / variances.mean())
    assert axis.get_title() == f"now: coefficient of variation {spread:.2f}"
