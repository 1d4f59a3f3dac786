"""The elastic experiment's table by kind of task: means of its tasks, over seeds."""

import importlib.util
from pathlib import Path

import pytest

from mic.evaluation import results
from mic.evaluation.results import Evaluation

KINDS = Path(__file__).parents[2] / "experiments" / "elastic" / "kinds.py"


def test_a_kind_is_the_mean_of_its_tasks_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("kinds", KINDS)
    assert spec is not None
    assert spec.loader is not None
    kinds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kinds)
    monkeypatch.setattr(kinds, "HERE", tmp_path)
    tasks = [task for some in kinds.KINDS.values() for task in some]
    headlines = dict.fromkeys(tasks, "score")

    def scores(first: float) -> results.Results:
        return {task: {"score": {16: first + at, 32: 90.0}} for at, task in enumerate(tasks)}

    for seed, first in enumerate((50.0, 52.0, 57.0)):
        name = f"tuned-{seed}"
        meta = {"weights": name, "group": "tuned", "base": "model", "dims": [16, 32]}
        asked = {"tasks": dict.fromkeys(tasks, "asked"), "headlines": headlines, "texts": 9}
        baselines = {"raw truncation": scores(40.0)}
        one = Evaluation(name, scores(first), baselines, {}, meta | asked)
        results.write_evaluation(tmp_path / "to" / name, one)
    kinds.main([tmp_path / "to"])
    table = (tmp_path / "kinds.md").read_text()
    # 50, 52, 57: 53 +- 4.303 * 3.606 / sqrt(3); the tasks' places in the list are added to it
    for kind, raw, tuned in (
        ("STS: mean of 5 tasks (%)", 42.0, "55.0 ± 9.0"),
        ("retrieval: mean of 4 tasks (%)", 46.5, "59.5 ± 9.0"),
        ("classification: mean of 3 tasks (%)", 50.0, "63.0 ± 9.0"),
    ):
        part = table[table.index(f"**{kind}**") :]
        assert f"| raw truncation | {raw} | 90.0 |\n| tuned | {tuned} | 90.0 |" in part
    assert (tmp_path / "kinds.png").stat().st_size > 10_000
