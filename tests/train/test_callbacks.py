"""What the callbacks say of a run, against what is computed from the texts themselves."""

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sentences import answer, sentence
from tiny_model import WIDTH

from mic.config.loading import load
from mic.config.schema import AlarmConfig
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.tasks.tasks import retrieval_from_pairs
from mic.metrics.geometry import alignment, covariance, effective_rank, mean_cosine, uniformity
from mic.nested import prefix, unit
from mic.tracking.snapshots import read_snapshots
from mic.train import trainer as fit_module
from mic.train.callbacks import (
    CollapseAlarm,
    FirstValidation,
    SpectralIsotropy,
    TermBalance,
    Throughput,
)
from mic.train.callbacks.collapse_alarm import collapse_reason, thresholds
from mic.train.callbacks.geometry import nearest_width
from mic.train.callbacks.gradient_balance import gradient_norms
from mic.train.module import MICModule
from mic.train.run import read_data, train

DIMS = (4, 8, 16, WIDTH)
# a validation set of its own, which anyone can embed
NAMED = "data.validation.held={path: '%s', columns: [anchor, positive], limit: 60}"


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def values(run: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in lines(run) if name in line}


def names(run: Path, above: str) -> set[str]:
    return {name for line in lines(run) for name in line if name.startswith(above)}


@pytest.fixture(scope="module")
def run(tiny, pairs_file, tmp_path_factory) -> Path:
    config = tiny(tmp_path_factory.mktemp("watched"))
    train(load(config, NAMED % pairs_file, "monitor.balance_every=2"))
    return config.parent / "runs" / "tiny"


def test_the_geometry_is_that_of_all_validation_texts(run, model_folder):
    pairs = [(sentence(n), answer(n)) for n in range(60)]
    for step, name in ((0, model_folder), (4, run)):
        encoder = Encoder.from_pretrained(name, max_length=16)
        queries, keys = (encoder.embed(texts) for texts in zip(*pairs, strict=True))
        rows = torch.cat([queries, keys])
        spread = covariance(unit(rows.double()))
        for dim in DIMS:
            expected = {
                "effective_rank": effective_rank(spread[:dim, :dim]),
                "mean_cosine": mean_cosine(prefix(rows, dim)),
                "uniformity": uniformity(prefix(rows, dim)),
                "alignment": alignment(prefix(queries, dim), prefix(keys, dim)),
            }
            for measure, value in expected.items():
                actual = values(run, f"geometry/{measure}/d{dim}")[step]
                assert actual == pytest.approx(float(value), rel=1e-3, abs=1e-4), (measure, dim)
    assert values(run, "geometry/rows") == {0: 120, 2: 120, 4: 120}
    assert values(run, "correlation/floor")[4] == pytest.approx(119**-0.5)
    assert names(run, "correlation/rms/") == {f"correlation/rms/d{dim}" for dim in DIMS[:-1]}


def test_retrieval_among_the_validation_rows_is_the_task_on_their_texts(run):
    pairs = [(sentence(n), answer(n)) for n in range(60)]
    task = retrieval_from_pairs("pairs", pairs)
    embeddings = Encoder.from_pretrained(run, max_length=16).embed(task.texts)
    for metric, expected in task.score(embeddings, DIMS).items():
        for dim, value in expected.items():
            actual = values(run, f"val/pairs/{metric}/d{dim}")[4]
            assert actual == pytest.approx(value, abs=0.5), (metric, dim)  # near ties


def test_texts_that_are_encoded_already_are_not_encoded_again(
    run, tiny_config, pairs_file, tmp_path, monkeypatch
):
    recalled = []

    def watch(owner: type, name: str, known: bool) -> None:
        function = getattr(owner, name)

        def watched(*args: object) -> object:
            recalled.append(known)
            return function(*args)

        monkeypatch.setattr(owner, name, watched)

    watch(FirstValidation, "recall", True)
    watch(MICModule, "validation_step", False)
    task = "evaluation.validation.pairs.held={path: '%s', columns: [anchor, positive], limit: 60}"
    train(load(tiny_config, "name=known", NAMED % pairs_file, task % pairs_file))
    known = tmp_path / "runs" / "known"
    # four batches before training, from what the task's texts gave; then two real validations
    assert recalled == [True] * 4 + [False] * 8
    for name in names(run, "geometry/") | names(run, "correlation/") | names(run, "val/pairs/"):
        expected = values(run, name)[0]
        if expected is not None and "condition" not in name:
            assert values(known, name)[0] == pytest.approx(expected, rel=1e-3, abs=1e-5), name


def test_snapshots_keep_spectra_variances_and_the_map(run):
    first, middle, last = read_snapshots(run)
    assert [snapshot.step for snapshot in (first, middle, last)] == [0, 2, 4]
    assert {dim: len(spectrum) for dim, spectrum in last.spectra.items()} == dict(
        zip(DIMS, DIMS, strict=True)
    )
    assert float(last.spectra[8].sum()) == pytest.approx(float(last.variance[:8].sum()), rel=1e-4)
    assert last.map_dim == 16
    assert last.correlation.shape == (16, WIDTH - 16)
    rms = float(last.correlation.double().square().mean().sqrt())
    assert values(run, "correlation/rms/d16")[4] == pytest.approx(rms, rel=1e-4)


def test_sentences_that_stand_twice_are_no_retrieval(tiny_config, pairs_file, tmp_path):
    train(
        load(
            tiny_config,
            f"data.train.pairs.path={pairs_file}",
            "data.train.pairs.columns=[anchor]",
            "trainer.max_steps=2",
        )
    )
    run = tmp_path / "runs" / "tiny"
    assert names(run, "geometry/effective_rank/")
    assert not names(run, "val/pairs/")


def test_watching_changes_nothing(tiny_config, tmp_path):
    watched = load(tiny_config, "name=watched", "monitor.balance_every=1")
    blind = load(tiny_config, "name=blind", "monitor.balance_every=0", "monitor.geometry=false")
    train(watched)
    train(blind)
    runs = tmp_path / "runs"
    weights = [
        (runs / name / "encoder/model.safetensors").read_bytes() for name in ("watched", "blind")
    ]
    assert weights[0] == weights[1]
    assert not names(runs / "blind", "geometry/")
    assert not names(runs / "blind", "balance/")
    assert not (runs / "blind/geometry").exists()


def test_shares_of_the_gradient_sum_to_one(run):
    shares = names(run, "balance/") - {name for name in names(run, "balance/") if "/norm" in name}
    assert shares == {
        f"balance/{term}" for term in ("contrastive", "correlation", "variance", "cv", "uniformity")
    }
    assert set(values(run, "balance/contrastive")) == {0, 2}
    for step in (0, 2):
        assert sum(values(run, name)[step] for name in shares) == pytest.approx(1)


class Norms(Callback):
    """The norms of the first batch, and of one term's gradient by retain_grad and backward."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx:
            return
        pl_module.eval()  # no dropout: two passes are one
        self.found = gradient_norms(pl_module, batch)
        self.expected = {}
        for term in self.found:
            encoded = [pl_module.encoder(tokens, [1, 2]) for tokens in batch.columns]
            for view in encoded:
                view.hidden[1].retain_grad()
            loss = pl_module.finish(pl_module.summarise_views(batch, encoded), None)
            loss.weighted[term].backward()
            squares = [view.hidden[1].grad.square().sum() for view in encoded]
            self.expected[term] = float(torch.stack(squares).sum().sqrt())
        pl_module.zero_grad()
        pl_module.train()


def test_norms_are_those_of_each_term_alone(tiny_config, tmp_path, monkeypatch):
    norms = Norms()
    monkeypatch.setattr(fit_module, "watchers", lambda *_: [norms])
    train(load(tiny_config, "trainer.max_steps=1"))
    assert len(norms.found) == 5
    assert norms.found == pytest.approx(norms.expected, rel=1e-4)


def test_speed_counts_pairs_tokens_and_all_of_the_time(tiny_config, tmp_path):
    config = load(tiny_config, "trainer.log_every=2")
    train(config)
    run = tmp_path / "runs" / "tiny"
    parts = names(run, "speed/") - {"speed/pairs_per_second", "speed/tokens_per_second"}
    assert parts == {
        f"speed/{part}" for part in ("data", "encoder", "objective", "backward", "optimizer")
    }
    for step in (2, 4):
        assert sum(values(run, name)[step] for name in parts) == pytest.approx(1)
        ratio = (
            values(run, "speed/tokens_per_second")[step]
            / values(run, "speed/pairs_per_second")[step]
        )
        # the cat sees a house: 5 words and 2 marks; a house and the cat that sees: 7 and 2
        assert ratio == pytest.approx(7 + 9)
    module = MICModule(config)
    assert len(read_data(config, module.encoder.tokenize).train) == 180
    assert values(run, "memory/mib")[4] > 100


def test_time_that_is_paused_is_in_no_figure():
    throughput = Throughput(1)
    clock = iter(range(100))
    throughput.now = lambda: next(clock)  # a second passes at every look
    throughput._started = throughput._marked = throughput.now()
    throughput.mark("data")
    with throughput.paused():
        for _ in range(10):
            throughput.now()
    throughput.mark("encoder")
    assert throughput._spent["data"] == 1
    assert throughput._spent["encoder"] <= 2


COLLAPSING = (  # every text is pushed towards every other
    "objective.contrastive.weight=0.0001",
    "objective.uniformity.weight=-5",
    "objective.gamma=1",
    "objective.align_layers=[output]",
    "trainer.learning_rate=1e-2",
    "trainer.max_steps=40",
    "trainer.validate_every=2",
    "trainer.log_every=20",
)


def test_a_run_that_collapses_stops_with_its_reason_and_state(tiny_config, tmp_path, capsys):
    config = load(tiny_config, *COLLAPSING, "monitor.alarm={checks: 2, stop: true}")
    with pytest.raises(RunError, match=r"the first \d+ dimensions .* have collapsed") as error:
        train(config)
    run = tmp_path / "runs" / "tiny"
    saved = list((run / "checkpoints").iterdir())
    assert len(saved) == 1
    assert str(saved[0]) in str(error.value)
    assert "at 2 validations in a row" in str(error.value)
    assert "mic: collapse: step" in capsys.readouterr().err
    state = torch.load(saved[0], weights_only=True)
    module = MICModule.load_from_checkpoint(saved[0])
    assert state["global_step"] < 40
    # it stopped at the very check at which the thresholds had been crossed for the second time
    alarm = config.monitor.alarm
    before, stopped = figures(run, 0), state["global_step"]
    crossed = {
        dim: [
            step
            for step in sorted(values(run, f"geometry/mean_cosine/d{dim}"))
            if step and collapse_reason(figures(run, step), dim, thresholds(before, dim, alarm))
        ]
        for dim in DIMS
    }
    named = int(str(error.value).split("the first ")[1].split()[0])
    assert crossed[named] == [stopped - 2, stopped]
    assert all(len(steps) <= 2 for steps in crossed.values())
    assert module.encoder.width == WIDTH


def figures(run: Path, step: int) -> dict[str, float]:
    return {name: values(run, name)[step] for name in names(run, "geometry/")}


@pytest.mark.slow
def test_ten_healthy_seeds_trip_no_alarm(fork, tiny_config):
    alarm = ("monitor.alarm={checks: 1, stop: true}", "monitor.balance_every=0")
    steps = ("trainer.max_steps=6", "trainer.validate_every=1")
    for seed in range(10):
        seeded = (f"seed={seed}", f"name=seed{seed}")
        codes, output = fork("train", str(tiny_config), *seeded, *alarm, *steps)
        assert codes == [0], output
        assert "collapse" not in output


HEALTHY = {"effective_rank_share": 0.8, "dead_share": 0.0, "mean_cosine": 0.1}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"effective_rank_share": 0.01}, "effective_rank_share 0.010"),
        ({"dead_share": 0.9}, "dead_share 0.900"),
        ({"mean_cosine": 0.99}, "mean_cosine 0.990"),
        ({"mean_cosine": math.nan}, "not a number"),
        ({}, None),
    ],
)
def test_each_threshold_is_looked_at(wrong, word):
    figures = {f"geometry/{name}/d8": value for name, value in (HEALTHY | wrong).items()}
    reason = collapse_reason(figures, 8, AlarmConfig())
    assert (reason is None) if word is None else (word in reason)


def tell(alarm: CollapseAlarm, narrow: float) -> str | None:
    """What the alarm says when the width of 8 has this mean cosine, and that of 16 is well."""
    alarm.spectral.values = {
        f"geometry/{name}/d{dim}": value for name, value in HEALTHY.items() for dim in (8, 16)
    }
    alarm.spectral.values["geometry/mean_cosine/d8"] = narrow
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(logger=False, enable_checkpointing=False, **quiet)
    alarm.on_validation_epoch_end(trainer, LightningModule())
    return alarm.reason


def test_checks_count_in_a_row_and_one_nan_is_enough(tmp_path):
    def new():
        return CollapseAlarm(SpectralIsotropy((8, 16)), AlarmConfig(checks=3), tmp_path)

    alarm = new()
    assert [tell(alarm, cosine) for cosine in (0.99, 0.99, 0.5, 0.99, 0.99)] == [None] * 5
    resumed = new()
    resumed.load_state_dict(alarm.state_dict())  # two in a row already
    assert "the first 8 dimensions" in tell(resumed, 0.99)
    assert "not a number" in tell(new(), math.nan)
    late = new()  # a NaN after a check that was bad already
    assert [tell(late, 0.99), "not a number" in tell(late, math.nan)] == [None, True]


def test_what_was_poor_before_training_is_an_alarm_only_once_it_is_worse():
    poor = {"effective_rank_share": 0.02, "dead_share": 0.6, "mean_cosine": 0.98}
    before = {f"geometry/{name}/d8": value for name, value in poor.items()}
    limits = thresholds(before, 8, AlarmConfig())
    assert collapse_reason(before, 8, AlarmConfig()) is not None
    assert collapse_reason(before, 8, limits) is None
    for name, worse in (("effective_rank_share", 0.01), ("dead_share", 0.7), ("mean_cosine", 1.0)):
        assert name in collapse_reason(before | {f"geometry/{name}/d8": worse}, 8, limits)
    assert thresholds({}, 8, AlarmConfig()) == AlarmConfig()


def test_the_map_is_that_of_the_nearest_width_below_the_full():
    assert nearest_width([16, 128, 256, 768], 128) == 128
    assert nearest_width([16, 64, 384], 128) == 64
    assert nearest_width([384], 128) is None


def test_balance_is_measured_every_so_many_steps(tiny_config, tmp_path):
    assert TermBalance(3, Throughput(1)).every == 3
    train(load(tiny_config, "monitor.balance_every=3", "trainer.chunk_size=8"))
    assert set(values(tmp_path / "runs" / "tiny", "balance/contrastive")) == {0, 3}
