"""Checkpoints on disk are whole or passed over, and loaded without trust."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mic.cli.main import main
from mic.config.loading import load
from mic.errors import RunError
from mic.train.module import MICModule
from mic.train.resume import exact_resume
from mic.train.resume.checkpoint_files import WholeFile, newest, publish
from mic.train.resume.random_state import (
    capture_random_state,
    restore_random_state,
    seed_rank,
)
from mic.train.run import train

CPU = torch.device("cpu")


def save(folder: Path, step: int, keep: int = 2) -> Path:
    """A checkpoint of a step, and what is left of those before it."""
    folder.mkdir(exist_ok=True)
    partial, io = folder / ".saving.partial", WholeFile()
    io.save_checkpoint({"step": torch.tensor(step)}, partial)
    return publish(partial, io, step, keep).path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """The checkpoints of steps 5 and 10."""
    return [save(tmp_path / "checkpoints", step) for step in (5, 10)]


# Files


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    saved = [save(tmp_path / "checkpoints", step, keep) for step in (5, 10, 15, 120)]
    assert {file.name for file in saved[0].parent.iterdir()} == {
        "latest.json",
        *(file.name for file in saved[-keep:]),
    }
    checkpoint = newest(saved[0].parent)
    assert (checkpoint.path, checkpoint.step) == (saved[-1], 120)
    latest = json.loads((saved[0].parent / "latest.json").read_text())
    assert latest == {"path": checkpoint.path.name, "sha256": checkpoint.sha256, "step": 120}


def damages() -> dict[str, Any]:
    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    return {
        "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
        "one bit flipped": flip,
        "emptied": lambda file: file.write_bytes(b""),
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages())
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(two, capsys, damage):
    before, last = two
    damage(last)
    assert newest(last.parent).step == 5
    output = capsys.readouterr().err
    assert output.startswith(f"mic: {last}: damaged: its SHA-256 begins with ")
    assert f"; set aside as damaged-{last.name}, going on from the one before\n" in output
    assert {file.name for file in last.parent.iterdir()} == {
        "latest.json",
        before.name,
        f"damaged-{last.name}",
    }
    assert newest(last.parent).step == 5
    assert capsys.readouterr().err == ""
    again = save(last.parent, 10)  # as a run that goes on
    assert again == last
    assert newest(last.parent).path == last


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"path": "gone.ckpt"}', "\0" * 90])
def test_the_names_say_enough_without_latest_json(two, capsys, text):
    latest = two[0].with_name("latest.json")
    latest.unlink() if text is None else latest.write_text(text)
    assert newest(latest.parent).path == two[1]
    assert capsys.readouterr().err == ""


def test_when_all_are_damaged_there_is_none(two, capsys):
    for file in two:
        file.write_bytes(b"")
    assert newest(two[0].parent) is None
    assert capsys.readouterr().err.count("set aside") == 2


def test_what_was_left_half_written_is_no_checkpoint(two):
    two[0].with_name(".saving.partial").write_bytes(b"half")
    two[0].with_name("step-00000015-0123456789abcdef.ckpt.tmp").write_bytes(b"")
    assert newest(two[0].parent).path == two[1]
    assert newest(two[0].parent / "nowhere") is None


def test_one_that_cannot_be_written_names_step_and_cure(tmp_path):
    io, folder = WholeFile(), tmp_path / "run" / "checkpoints"
    io.save_checkpoint({}, folder / ".saving.partial")
    with pytest.raises(RunError) as caught:
        publish(folder / ".saving.partial", io, 5, keep=2)
    assert str(caught.value) == (
        f"{folder}: the checkpoint of step 5 could not be written: No such file or directory; "
        f"there is none before it. Make room, then: mic resume {tmp_path / 'run'}"
    )


def test_of_one_step_the_later_counts(tmp_path):
    """A run that goes on after damage may come to a step once more, with other bytes."""
    folder = tmp_path / "checkpoints"
    save(folder, 10)
    partial, io = folder / ".saving.partial", WholeFile()
    io.save_checkpoint({"step": torch.tensor(10), "validated": True}, partial)
    path = publish(partial, io, 10, keep=2).path
    assert newest(folder).path == path
    (folder / "latest.json").unlink()
    assert newest(folder).path == path


# A run


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, pairs_file: Path, sts_file: Path
) -> Path:
    """The config of a run of six steps that has finished, with the checkpoints of 4 and 6."""
    file = tmp_path_factory.mktemp("run") / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
runs: {file.parent / "runs"}
dims: [4, 16]
encoder: {{name: {model_folder}, max_length: 16}}
objective: {{align_layers: [1, 2]}}
data:
  train: {{pairs: {{path: {pairs_file}, columns: [anchor, positive]}}}}
  validation_rows: 20
evaluation:
  validation:
    sts: {{sts: {{path: {sts_file}, columns: [sentence1, sentence2, score]}}}}
  pca_texts: 100
trainer: {{max_steps: 6, batch_size: 30, learning_rate: 1.0e-3, save_every: 2, validate_every: 5}}
"""
    )
    train(load(file))
    return file


def weights(run: Path) -> bytes:
    return (run / "encoder" / "model.safetensors").read_bytes()


def unfinished(config: Path, name: str) -> Path:
    """A copy of the run as if it had been killed just before its end."""
    run = shutil.copytree(config.parent / "runs" / "tiny", config.parent / "runs" / name)
    shutil.rmtree(run / "encoder")
    (run / "results.json").unlink()
    return run


def test_a_run_loses_one_interval_to_a_damaged_checkpoint(finished, capsys):
    run = unfinished(finished, "damaged")
    file = newest(run / "checkpoints").path
    damages()["one bit flipped"](file)
    assert main(["resume", str(run)]) == 0
    output = capsys.readouterr().err
    assert "goes on after step 4" in output
    assert f"set aside as damaged-{file.name}" in output
    assert weights(run) == weights(finished.parent / "runs" / "tiny")


def test_a_checkpoint_is_loaded_without_trust_and_is_a_module(finished):
    run = finished.parent / "runs" / "tiny"
    file = newest(run / "checkpoints").path
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["global_step"] == 6
    module = MICModule.load_from_checkpoint(file, map_location="cpu", weights_only=True)
    assert module.config == load(finished)
    trained = load_file(run / "encoder" / "model.safetensors")
    weights = module.encoder.backbone.state_dict()
    assert trained.keys() <= weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in trained.items())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux":
        pytest.skip("mounts a tmpfs, as Linux has it")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"only root mounts a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_no_checkpoint(finished, small_disk, capsys, monkeypatch):
    filler = small_disk / "filler"

    def fill(*arguments: Any) -> Any:
        """Leave room for a few lines of the log after the first checkpoint."""
        published = publish(*arguments)
        if not filler.exists():
            room = shutil.disk_usage(small_disk).free - 100_000
            filler.write_bytes(b"." * room)
        return published

    monkeypatch.setattr(exact_resume, "publish", fill)
    assert main(["train", str(finished), f"runs={small_disk}"]) == 1
    run = small_disk / "tiny"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"mic: error: {run}/checkpoints: the checkpoint of step 4 could not be written: No space "
        f"left on device; that of step 2 is whole. Make room, then: mic resume {run}"
    )
    assert sorted(file.name[:13] for file in (run / "checkpoints").iterdir()) == [
        "latest.json",
        "step-00000002",
    ]
    filler.write_bytes(b"")
    assert main(["resume", str(run)]) == 0
    assert "goes on after step 2" in capsys.readouterr().err
    assert weights(run) == weights(finished.parent / "runs" / "tiny")


# The random state


def draw() -> list[Any]:
    return [
        torch.rand(3).tolist(),
        torch.randn(1).item(),
        np.random.rand(3).tolist(),
        np.random.randn(),  # of a pair, whose other half is kept
        [random.random(), random.gauss(0, 1), random.getrandbits(40)],
    ]


def test_the_random_state_comes_back_also_from_a_file(tmp_path):
    seed_rank(3, 0)
    draw()
    file = tmp_path / "state.pt"
    torch.save(capture_random_state(CPU), file)
    drawn = draw()
    assert drawn != draw()
    restore_random_state(torch.load(file, weights_only=True), CPU)
    assert draw() == drawn


def test_ranks_draw_different_numbers():
    drawn = []
    for rank, batch in ((0, 0), (1, 0), (1, 7)):
        seed_rank(3, rank, batch)
        drawn.append(draw())
    for rank, other in ((0, 1), (0, 2), (1, 2)):
        assert all(a != b for a, b in zip(drawn[rank], drawn[other], strict=True))
