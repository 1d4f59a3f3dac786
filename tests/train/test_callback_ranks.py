"""Two and three ranks with different data log what one process logs."""

import json
from pathlib import Path

import pytest
from forked import Forked

from mic.tracking.snapshots import read_snapshots


def run(fork: Forked, config: Path, folder: Path, world: int) -> None:
    folder.mkdir()
    codes, output = fork(str(config), str(folder), ranks=world, module="callback_ranks")
    assert codes == [0] * world, output


def logged(folder: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if name.split("/")[0] in ("geometry", "correlation", "balance", "val")
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory, model_folder, pairs_file, sts_file) -> Path:
    """Repeated texts among the pairs, a teacher, batches that three ranks cannot share evenly."""
    folder = tmp_path_factory.mktemp("callbacks")
    file = folder / "config.yaml"
    file.write_text(
        f"""
dims: [4, 8, 16]
encoder: {{name: {model_folder}, max_length: 16}}
teacher: {{kind: frozen}}
objective: {{align_layers: [1, 2], distillation: {{weight: 1}}}}
data:
  train: {{pairs: {{path: {pairs_file}, columns: [anchor, positive]}}}}
  validation: {{pairs: {{path: {pairs_file}, columns: [anchor, positive], limit: 41}}}}
evaluation:
  validation:
    sts: {{sts: {{path: {sts_file}, columns: [sentence1, sentence2, score]}}}}
monitor: {{pair_rows: 20}}
trainer: {{batch_size: 16, learning_rate: 1.0e-3}}
"""
    )
    return file


@pytest.fixture(scope="module")
def alone(fork, config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks") / "1"
    run(fork, config, folder, 1)
    return folder


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_log_what_one_process_logs(fork, config, alone, tmp_path, world):
    run(fork, config, tmp_path / "run", world)
    expected, actual = logged(alone), logged(tmp_path / "run")
    assert actual.keys() == expected.keys()
    for prefix in ("geometry/teacher_cka/", "geometry/uniformity/", "val/pairs/map@100/"):
        assert {f"{prefix}d{dim}" for dim in (4, 8, 16, 32)} <= {name for _, name in expected}
    assert {step for step, name in expected if name.startswith("geometry/")} == {0, 2, 4}
    assert {step for step, name in expected if name.startswith("balance/")} == {0, 2}
    for key, value in expected.items():
        if value is None:  # a layer norm leaves a direction without variance: no condition number
            assert (key[1], actual[key]) == ("geometry/condition_number/d32", None)
            continue
        # Lightning keeps val/loss in fp32, and tasks are embedded in fp32
        exact = not key[1].startswith("val/") or key[1].startswith("val/pairs/")
        assert actual[key] == pytest.approx(value, rel=1e-9 if exact else 1e-4, abs=1e-9), key
    for snapshot, other in zip(
        read_snapshots(alone), read_snapshots(tmp_path / "run"), strict=True
    ):
        assert (snapshot.step, snapshot.rows) == (other.step, other.rows)
        assert snapshot.variance.numpy() == pytest.approx(other.variance.numpy(), rel=1e-5)
    every = [json.loads((tmp_path / f"run/values-{r}.json").read_text()) for r in range(world)]
    assert all(values == every[0] for values in every)
    every = [json.loads((tmp_path / f"run/seen-{r}.json").read_text()) for r in range(world)]
    assert all(values.keys() == every[0].keys() for values in every)
