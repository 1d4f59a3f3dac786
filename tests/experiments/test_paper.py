"""The paper's comparison: its configs say what they claim, and its language model can be made."""

import importlib.util
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from mic.config.loading import Config, load
from mic.encoder.encoder import Encoder

PAPER = Path(__file__).parents[2] / "experiments" / "paper"
METHODS = sorted(file.stem for file in PAPER.glob("*.yaml") if file.stem not in ("base", "test"))
DEPTHS = {"bert_base": 12, "tinybert": 6, "bge_m3": 24}
TERMS = ("correlation", "variance", "cv", "uniformity")


def script(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = found  # where a dataclass looks for its annotations
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def pretrain() -> ModuleType:
    return script(PAPER / "language_model" / "pretrain.py")


@cache
def method_config(method: str) -> Config:
    return load(PAPER / f"{method}.yaml")


@pytest.mark.parametrize("backbone", DEPTHS)
def test_a_backbone_of_the_hub_has_every_method_and_nothing_of_it_changed(backbone: str) -> None:
    assert sorted(file.stem for file in (PAPER / "hub" / backbone).iterdir()) == METHODS
    for method in METHODS:
        here, there = method_config(method), load(PAPER / "hub" / backbone / f"{method}.yaml")
        layers = {
            "align_layers": there.objective.align_layers,
            "express_layers": there.objective.express_layers,
        }
        dims = here.objective.dims and there.dims  # simcse has none
        assert there.objective == replace(here.objective, dims=dims, **layers)
        assert there.encoder.pooling == ("mean" if method == "ese_light" else "cls")
        assert there.objective.express_layers == list(range(1, DEPTHS[backbone]))
        trained = there.trainer
        assert (trained.batch_size, trained.learning_rate, trained.precision) == (16, 2e-5, "fp16")
        assert there.dims == [16, 32, 64, 128, 256, 512, 768]


def test_an_ablation_differs_from_mic_by_what_it_is_named_after() -> None:
    whole = method_config("mic_paper").objective
    left = {
        "without_scr": {"correlation", "variance"},
        "without_sir": {"cv", "uniformity"},
        "without_floor": {"variance"},
    }
    for method, terms in left.items():
        found = method_config(method).objective
        assert {term for term in TERMS if getattr(found, term).weight == 0} == terms
        assert replace(found, **{term: getattr(whole, term) for term in terms}) == whole
    assert method_config("gamma_1").objective == replace(whole, gamma=1.0)
    assert method_config("tau_0").objective == replace(whole, threshold=0.0)
    assert method_config("last_layer").objective == replace(whole, align_layers=[4])


def test_the_script_runs_every_method() -> None:
    (line,) = (
        line for line in (PAPER / "run.sh").read_text().splitlines() if line[:8] == "methods="
    )
    assert sorted(line.partition("=")[2].strip('"').split()) == METHODS


def test_differences_are_paired_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"mic_paper": (50, 40, 60), "gamma_1": (51, 41, 64), "mrl": (48, 37, 58)}
    for method, scores in values.items():
        for seed, score in enumerate(scores):
            run = tmp_path / "paper-odd-test" / f"paper-odd-{method}-{seed}"
            run.mkdir(parents=True)
            results = {
                "sts": {"spearman": {"16": score}},
                "meta": {"headlines": {"sts": "spearman"}},
            }
            (run / "results.json").write_text(json.dumps(results))
    (tmp_path / "paper-odd-test" / "paper-odd-ese-0").mkdir()  # not every seed: left out
    differences = script(PAPER / "differences.py")
    monkeypatch.setattr(differences, "HERE", tmp_path)
    (tmp_path / "odd").mkdir()
    differences.main(tmp_path / "paper-odd-test")
    lines = (tmp_path / "odd" / "differences.md").read_text().splitlines()
    of_all = lines[
        lines.index("**all tasks: mic_paper minus**") : lines.index("**sts: mic_paper minus**")
    ]
    # of 2, 3, 2 the deviation is 0.577, the half interval 4.303 * 0.577 / sqrt(3)
    assert [line for line in of_all if " ± " in line] == [
        "| mrl | **+2.3 ± 1.4** |",
        "| gamma_1 | -2.0 ± 4.3 |",
        "| mic_paper | +2.0 ± 4.3 |",
        "| mrl | **+4.3 ± 3.8** |",
    ]
    assert lines[-1] == "4 of 8 are bold."


@pytest.fixture
def settings(pretrain: ModuleType, model_folder: Path, pairs_file: Path, tmp_path: Path) -> Any:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"""
to: {tmp_path / "tiny"}
record: {tmp_path / "record.json"}
start: {model_folder}
kept_layers: 1
layers: 2
texts: {{pairs: {{path: {pairs_file}, columns: [anchor, positive]}}}}
held_out: 50
batch_size: 16
max_steps: 40
learning_rate: 1.0e-2
save_every: 8
"""
    )
    return pretrain.read(file)


def test_a_language_model_begins_with_the_lower_blocks_alone(
    pretrain: ModuleType, settings: Any, model_folder: Path
) -> None:
    given = AutoModel.from_pretrained(model_folder).state_dict()
    found = pretrain.fresh(settings).bert.state_dict()
    same = {name for name, value in found.items() if torch.equal(value, given[name])}
    kept = {name for name in found if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert kept <= same
    fresh = {name for name in found.keys() - kept if name.endswith("dense.weight")}
    assert fresh
    assert not fresh & same


def test_a_stopped_pretraining_goes_on_to_the_same_weights(
    pretrain: ModuleType, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain.pretrain(settings)
    record = json.loads((tmp_path / "record.json").read_text())
    losses = record["held-out loss per masked token, nats"]
    assert losses["after"] < losses["before"]
    assert losses["after"] < losses["knowing only how often each token occurs"]

    stopped = replace(settings, to=str(tmp_path / "stopped"), record=str(tmp_path / "again.json"))
    schedule = pretrain.schedule

    def stop_at_20(step: int, *others: Any) -> float:
        if step == 20:
            raise KeyboardInterrupt
        found: float = schedule(step, *others)
        return found

    monkeypatch.setattr(pretrain, "schedule", stop_at_20)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(stopped)
    monkeypatch.setattr(pretrain, "schedule", schedule)
    assert not Path(stopped.to).exists()
    pretrain.pretrain(stopped)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("tiny", "stopped"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = json.loads((tmp_path / "again.json").read_text())
    assert {**again, "seconds": 0} == {**record, "seconds": 0}

    encoder = Encoder.from_pretrained(stopped.to, pooling="cls", max_length=16)
    assert encoder.encode(["the cat"], dim=8).shape == (1, 8)


def test_what_a_pretraining_cannot_use_is_named(
    pretrain: ModuleType,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = str(tmp_path / "tiny.yaml")
    Path(settings.to).mkdir()
    for arguments, told in (
        ([file], "is there already"),
        ([file, "layer=3"], "'layer'"),
        ([file, "to=x", "kept_layers=3"], "kept_layers=3"),
        ([file, "to=x", "held_out=100000"], "too few"),
        ([str(tmp_path / "none.yaml")], "no such file"),
    ):
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
        assert pretrain.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
