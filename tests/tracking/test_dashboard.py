"""The W&B workspace as it would be sent: its sections, and only names that mic logs."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from fake_wandb import KEY, serving
from tiny_model import WIDTH

from mic.cli.main import main
from mic.config.diff import flat_values
from mic.config.loading import keys, load
from mic.config.schema import Config
from mic.tracking.wandb.dashboard import TERMS, build_workspace, workspace_json
from mic.train.run import train

DIMS = [4, 8, 16, WIDTH]


@pytest.fixture(scope="module")
def workspace() -> dict:
    return json.loads(workspace_json(build_workspace("mic", "me", DIMS)))


def panels(workspace: dict) -> Iterator[tuple[str, dict]]:
    for section in workspace["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            yield section["name"], panel


def of_kind(workspace: dict, kind: str) -> list[dict]:
    return [panel["config"] for _, panel in panels(workspace) if panel["viewType"] == kind]


LINE = "Run History Line Plot"


def test_every_question_has_its_section(workspace):
    sections: dict[str, list[str]] = {}
    for section, panel in panels(workspace):
        sections.setdefault(section, []).append(panel["viewType"])
    assert list(sections) == [
        "Loss",
        "Collapse of every prefix",
        "Redundancy of prefix and residual",
        "Quality against width",
        "Balance and throughput",
        "Groups: mean and spread over seeds",
        "Sweep",
    ]
    assert set(sections["Sweep"]) == {
        "Parallel Coordinates Plot",
        "Parameter Importance",
        "Scatter Plot",
    }
    assert "Media Browser" in sections["Redundancy of prefix and residual"]
    assert "Bar Chart" in sections["Quality against width"]
    about = (workspace["entity"], workspace["project"])
    assert about == ("me", "mic")


def test_a_panel_of_collapse_has_a_line_a_width(workspace):
    shown = [
        panel["config"]["metrics"]
        for section, panel in panels(workspace)
        if section == "Collapse of every prefix"
    ]
    measures = ("effective_rank_share", "dead_share", "mean_cosine", "uniformity")
    for measure in measures:
        assert [f"geometry/{measure}/d{dim}" for dim in DIMS] in shown
    for config in of_kind(workspace, LINE):
        assert config["xAxis"] == "trainer/global_step"


def test_groups_are_shown_as_mean_and_spread(workspace):
    grouped = [config for config in of_kind(workspace, LINE) if config.get("aggregate")]
    names = {name for config in grouped for name in config["metrics"]}
    assert {"train/loss", "val/pairs/ndcg@10/d4", f"val/pairs/ndcg@10/d{WIDTH}"} <= names
    for config in grouped:
        how = [config[name] for name in ("groupBy", "groupAgg", "groupArea")]
        assert how == ["group", "mean", "stddev"]


def test_a_sweep_is_shown_by_keys_of_the_config(workspace):
    (config,) = of_kind(workspace, "Parallel Coordinates Plot")
    shown = [column["accessor"] for column in config["columns"]]
    known = {f"config:{key.replace('.', '.value.', 1)}" for key in flat_values(Config())}
    axes = {name for name in shown if name.startswith("config:")}
    assert axes <= known
    wanted = ["gamma", "threshold", "correlation.weight", "cv.weight", "uniformity.weight"]
    assert {f"config:objective.value.{name}" for name in wanted} <= axes
    assert "objective.gamma" in [name for name, _, _ in keys(Config)]
    targets = {config["targetKey"] for config in of_kind(workspace, "Parameter Importance")}
    assert {f"summary:{name}" for name in targets} < set(shown)


def test_every_name_is_one_that_a_run_logs(workspace, tiny_config, tmp_path):
    overrides = ["monitor.balance_every=2", "logging.tensorboard=true"]
    train(load(tiny_config, *overrides))
    folder = tmp_path / "runs" / "tiny"
    logged = {
        name
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        for name in json.loads(line)
    }
    others = {term for term in TERMS if f"train/{term}" not in logged}  # of weight 0 here
    assert others == set(TERMS) - {"contrastive", "correlation", "variance", "cv", "uniformity"}
    for term in others:
        logged |= {f"train/{term}", f"train/{term}/weighted", f"balance/{term}"}
    logged |= {f"figures/{file.stem}" for file in (folder / "figures").iterdir()}
    logged |= {f"correlation/map/d{dim}" for dim in DIMS[:-1]}  # monitor.map_dim says which

    shown = {name for config in of_kind(workspace, LINE) for name in config["metrics"]}
    shown |= {name for config in of_kind(workspace, "Bar Chart") for name in config["metrics"]}
    shown |= {key for config in of_kind(workspace, "Media Browser") for key in config["mediaKeys"]}
    shown |= {config["targetKey"] for config in of_kind(workspace, "Parameter Importance")}
    for config in of_kind(workspace, "Parallel Coordinates Plot"):
        names = [column["accessor"] for column in config["columns"]]
        shown |= {name.removeprefix("summary:") for name in names if name.startswith("summary:")}
    assert shown - logged == set()
    patterns = [
        config["metricRegex"] for config in of_kind(workspace, LINE) if "metricRegex" in config
    ]
    assert len(patterns) == len(DIMS)
    for pattern, dim in zip(patterns, DIMS, strict=True):
        matches = {name for name in logged if re.match(pattern, name)}
        assert {f"val/sts/spearman/d{dim}", f"val/pairs/ndcg@10/d{dim}"} <= matches
        assert all(name.endswith(f"/d{dim}") for name in matches)


@pytest.mark.usefixtures("no_wandb_account")
def test_it_is_printed_without_an_account_and_saved_with_one(monkeypatch, capsys, workspace):
    assert main(["dashboard", "mic", "--entity", "me", "--dims", "4,8,16,32", "--print"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [name for name, _ in panels(printed)] == [name for name, _ in panels(workspace)]

    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert main(["dashboard", "mic"]) == 2
    assert "no key for wandb.example; `wandb login`" in capsys.readouterr().err


@pytest.mark.usefixtures("no_wandb_account")
def test_it_is_saved_into_the_project_and_its_address_shown(monkeypatch, capsys):
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert main(["dashboard", "mic", "--dims", "4,8"]) == 0
        shown = capsys.readouterr().out.strip()
        (view,) = fake.views
    assert (view["entityName"], view["projectName"]) == ("me", "mic")
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert len(sections) == 7
    assert shown.startswith(f"{fake.address}/me/mic?nw=")


def test_the_package_is_an_extra_that_is_named_with_its_cure(monkeypatch, capsys):
    monkeypatch.setattr(
        "mic.tracking.wandb.dashboard.find_spec",
        lambda name: None if name == "wandb_workspaces" else find_spec(name),
    )
    assert main(["dashboard", "mic", "--print"]) == 2
    assert "pip install 'mic-embeddings[dashboard]'" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["16", "16,8", "0,8", "8,x"])
def test_widths_that_do_not_increase_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        main(["dashboard", "mic", "--print", "--dims", wrong])
    assert "argument --dims" in capsys.readouterr().err
