"""A run that was killed and resumed ends with the bits of one that never was."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from forked import Forked
from sentences import answer, sentence

from mic.config.loading import load
from mic.train.module import load_encoder, training_tokenize
from mic.train.run import read_data

TIMES = ("speed/", "memory/")
KINDS = {
    "plain": (),
    "ema": ("teacher.kind=ema", "teacher.decay=0.9", "objective.distillation.weight=1"),
    "chunks": ("trainer.chunk_size=7",),
    "streams": ("data.train.pairs.streaming=true",),
    "head": ("encoder.frozen=true", "encoder.projection=32", "objective.align_layers=[output]"),
    "still": ("encoder.name={still}",),  # without dropout
}


class Outcome(NamedTuple):
    """What two runs must have in common: weights, log without times, rows of every batch."""

    weights: str
    log: list[dict[str, Any]]
    batches: list[str]


class Runs:
    """Runs of a tiny BERT with dropout: epochs of 6 steps, validations of 2 batches at steps 4, 8,
    12 (where an epoch ends) and 14, the last one, checkpoints at 5, 10 and 14."""

    def __init__(self, fork: Forked, config: Path, still: Path) -> None:
        self.fork = fork
        self.config = config
        self.still = still
        self.folder = config.parent / "runs"
        self.known: dict[tuple[str, int], Outcome] = {}
        self.count = 0

    def train(
        self, name: str, kind: str, plan: str = "", ranks: int = 1, without: Sequence[str] = ()
    ) -> tuple[list[int], str]:
        """Begin a run or go on with it, with kills on the way: the ranks' exit codes, and words."""
        overrides = [text.format(still=self.still) for text in KINDS[kind]]
        kills = [kill(text) for text in plan.split(" + ") if text]
        arguments = ("train", str(self.config), f"name={name}", *overrides)
        return self.fork(*arguments, ranks=ranks, kills=kills, without=without)

    def whole(self, kind: str, ranks: int = 1) -> Outcome:
        """How a run ends that nobody kills."""
        if (kind, ranks) not in self.known:
            name = f"whole-{kind}-{ranks}"
            codes, output = self.train(name, kind, ranks=ranks)
            assert codes == [0] * ranks, output
            self.known[kind, ranks] = self.outcome(name)
        return self.known[kind, ranks]

    def new_name(self) -> str:
        self.count += 1
        return f"killed-{self.count}"

    def outcome(self, name: str) -> Outcome:
        run = self.folder / name
        return Outcome(
            hashlib.sha256((run / "encoder" / "model.safetensors").read_bytes()).hexdigest(),
            [untimed(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
            (run / "batches.jsonl").read_text().splitlines(),
        )

    def compare(self, name: str, whole: Outcome) -> None:
        actual = self.outcome(name)
        assert actual.batches == whole.batches
        assert [line["step"] for line in actual.log] == [line["step"] for line in whole.log]
        for line, expected in zip(actual.log, whole.log, strict=True):
            assert line == expected
        assert actual.weights == whole.weights

    def saved(self, name: str) -> int | None:
        """The step of a run's newest checkpoint."""
        file = self.folder / name / "checkpoints" / "latest.json"
        return json.loads(file.read_text())["step"] if file.exists() else None


def kill(text: str) -> dict[str, Any]:
    """A place, how many times one comes there before, a signal, and a rank unless it is all."""
    where, nth, by, *rank = text.split()
    return {"where": where, "nth": int(nth), "by": by} | ({"rank": int(rank[0])} if rank else {})


def untimed(line: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(line).items() if not name.startswith(TIMES)}


@pytest.fixture(scope="module")
def runs(
    fork: Forked,
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    still_folder: Path,
    pairs_file: Path,
    sts_file: Path,
) -> Runs:
    folder = tmp_path_factory.mktemp("resume")
    held = folder / "held.jsonl"
    rows = ({"anchor": sentence(n), "positive": answer(n)} for n in range(900, 960))
    held.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
runs: {folder / "runs"}
dims: [4, 16]
encoder: {{name: {model_folder}, max_length: 16}}
objective: {{align_layers: [1, 2]}}
data:
  train: {{pairs: {{path: {pairs_file}, columns: [anchor, positive]}}}}
  validation: {{held: {{path: {held}, columns: [anchor, positive]}}}}
evaluation:
  validation:
    sts: {{sts: {{path: {sts_file}, columns: [sentence1, sentence2, score]}}}}
  test:
    pairs: {{found: {{path: {pairs_file}, columns: [anchor, positive], limit: 50}}}}
  pca_texts: 100
trainer:
  max_steps: 14
  batch_size: 30
  learning_rate: 1.0e-3
  save_every: 5
  validate_every: 4
  log_every: 3
monitor: {{batches: true, balance_every: 4}}
"""
    )
    return Runs(fork, file, still_folder)


# the kills of each process, one after the other, and the step whose state it leaves
ONE_RANK = {
    "killed while the head alone learns": (
        "head",
        [("batch 9 SIGKILL", 5), ("validating 4 SIGKILL", 10)],
    ),
    "killed in steps": (  # also twice in an epoch, and before a step is done
        "plain",
        [
            ("batch 1 SIGKILL", None),
            ("batch 9 SIGKILL", 5),
            ("batch 1 SIGKILL", 5),
            ("batch 5 SIGKILL", 5),
            ("stepped 7 SIGKILL", 10),
        ],
    ),
    "killed in validations and evaluations": (
        "plain",
        [
            ("validating 4 SIGKILL", None),
            ("evaluating 4 SIGKILL", 5),
            ("snapshot 2 SIGKILL", 10),
            ("validating 4 SIGKILL", 10),
            ("logging 2 SIGKILL", 10),
            ("evaluating 3 SIGKILL", 14),
        ],
    ),
    "killed while a checkpoint is written": (
        "plain",
        [
            ("writing 3 SIGKILL", None),
            ("publishing 1 SIGKILL", None),
            ("renamed 1 SIGKILL", None),  # it is found by its name
            ("pointing 1 SIGKILL", None),
            ("renamed 2 SIGKILL", 14),
        ],
    ),
    "told to stop in steps": (
        "plain",
        [
            ("batch 3 SIGTERM + writing 2 SIGINT", 3),
            ("batch 1 SIGUSR1", 4),  # a validation is due
            ("batch 2 SIGINT + stepped 2 SIGINT", 6),  # an epoch ends
            ("batch 6 SIGTERM", 12),  # both
            ("batch 2 SIGUSR1", 14),  # the last step
        ],
    ),
    "told to stop in validations": (
        "plain",
        [
            ("validating 1 SIGINT", None),  # the one before training
            ("validating 3 SIGTERM", 4),
            ("validating 2 SIGUSR1", 4),
            ("evaluating 2 SIGINT", 8),
            ("snapshot 2 SIGTERM", 12),
            ("validating 1 SIGUSR1", 14),
            ("validating 2 SIGTERM", 14),
        ],
    ),
    "told to stop outside training": (
        "plain",
        [
            ("evaluating 1 SIGTERM", None),
            ("evaluating 6 SIGINT", 14),
            ("evaluating 1 SIGUSR1", 14),
        ],
    ),
    "with a teacher": (
        "ema",
        [("batch 7 SIGKILL", 5), ("validating 1 SIGTERM", 8), ("batch 3 SIGUSR1", 11)],
    ),
    "in chunks": ("chunks", [("batch 9 SIGTERM", 9), ("stepped 3 SIGKILL", 10)]),
    "of streams": ("streams", [("batch 7 SIGTERM", 7), ("batch 5 SIGKILL", 10)]),
}


# one case of each kind at every `make test`
QUICK = ("killed in steps", "told to stop in steps", "of streams", "killed")


def cases(table: dict[str, Any]) -> list[Any]:
    """The cases of a table, by their names; most of them are slow."""
    return [
        pytest.param(case, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, case in table.items()
    ]


@pytest.mark.parametrize("case", cases(ONE_RANK))
def test_one_process(runs, case):
    kind, processes = case
    name = runs.new_name()
    for plan, step in processes:
        codes, output = runs.train(name, kind, plan)
        assert codes == [-9 if "SIGKILL" in plan else 143], output
        assert runs.saved(name) == step, output
    codes, output = runs.train(name, kind)
    assert codes == [0], output
    runs.compare(name, runs.whole(kind))


# the same for two ranks, and their exit codes; a signal is heard some steps later
TWO_RANKS = {
    "killed": [
        ("batch 8 SIGKILL 1", [1, -9], 5),
        ("writing 2 SIGKILL 0", [-9, 1], 5),
        ("batch 6 SIGKILL", [-9, -9], 10),
    ],
    "killed in validations": [
        ("validating 5 SIGKILL 1", [1, -9], 5),
        ("evaluating 2 SIGKILL 0", [-9, 1], 10),
    ],
    "told to stop": [
        ("batch 2 SIGTERM", [143, 143], 2),
        ("batch 3 SIGINT 0", [143, 143], 6),
        ("validating 2 SIGUSR1 1", [143, 143], 8),
    ],
}


@pytest.mark.parametrize("processes", cases(TWO_RANKS))
def test_two_ranks(runs, processes):
    name = runs.new_name()
    for plan, expected, step in processes:
        codes, output = runs.train(name, "plain", plan, ranks=2)
        assert codes == expected, output
        assert runs.saved(name) == step, output
    codes, output = runs.train(name, "plain", ranks=2)
    assert codes == [0, 0], output
    runs.compare(name, runs.whole("plain", 2))


@pytest.mark.slow
def test_three_ranks_add_up_in_the_same_order_after_a_resume(runs):
    """DDP packs its buckets anew after a process's first step, unless it is told not to."""
    name = runs.new_name()
    codes, output = runs.train(name, "plain", "batch 8 SIGKILL 2", ranks=3)
    assert codes == [1, 1, -9], output
    codes, output = runs.train(name, "plain", ranks=3)
    assert codes == [0, 0, 0], output
    runs.compare(name, runs.whole("plain", ranks=3))


@pytest.mark.slow
def test_another_number_of_ranks_sees_the_same_batches(runs):
    name = runs.new_name()
    assert runs.train(name, "still", "batch 5 SIGTERM")[0] == [143]
    codes, output = runs.train(name, "still", "batch 1 SIGTERM 1", ranks=2)
    assert codes == [143, 143], output
    assert 5 < runs.saved(name) < 14
    codes, output = runs.train(name, "still")
    assert codes == [0], output
    segments = json.loads((runs.folder / name / "run.json").read_text())["segments"]
    assert [segment["ranks"] for segment in segments] == [1, 2, 1]
    actual, whole = runs.outcome(name), runs.whole("still")
    assert actual.batches == whole.batches
    found_loss, loss = (
        [line["train/loss"] for line in outcome.log if "train/loss" in line]
        for outcome in (actual, whole)
    )
    assert found_loss == pytest.approx(loss, rel=1e-6)  # sums in another order: 3e-7


def test_a_loader_begins_and_leaves_no_trace_in_the_random_state(runs):
    """With workers it begins once, but again in a run that goes on between two epochs."""
    config = load(runs.config)
    data = read_data(config, training_tokenize(config, load_encoder(config)))
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        iter(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_its_random_state_a_run_goes_on_otherwise(runs):
    """What is compared here can differ."""
    name = runs.new_name()
    runs.train(name, "plain", "batch 7 SIGTERM")
    codes, output = runs.train(name, "plain", without=["restore_random_state"])
    assert codes == [0], output
    actual, whole = runs.outcome(name), runs.whole("plain")
    assert actual.batches == whole.batches
    assert actual.weights != whole.weights
    assert actual.log != whole.log
