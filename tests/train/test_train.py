"""A run from end to end on a tiny real BERT: what it writes, and that it can be believed."""

import io
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentences import answer, sentence
from tiny_model import WIDTH

from mic.cli.main import main
from mic.config.loading import load
from mic.encoder.encoder import Encoder
from mic.errors import Preempted
from mic.evaluation.scoring import embed_tasks, score_tasks
from mic.evaluation.tasks.tasks import build_tasks
from mic.train.callbacks import Progress
from mic.train.run import train

DIMS = ["4", "8", "16", str(WIDTH)]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def values(run: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in lines(run) if name in line}


def test_a_run_leaves_a_complete_directory(tiny_run):
    assert sorted(path.name for path in tiny_run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "encoder",
        "figures",
        "geometry",
        "metrics.jsonl",
        "results.json",
        "run.json",
        "untrained",
    ]
    figures = {path.name: path.read_bytes()[:8] for path in (tiny_run / "figures").iterdir()}
    assert set(figures) == {"quality.png", "variance.png", "cross_correlation.png"}
    assert set(figures.values()) == {b"\x89PNG\r\n\x1a\n"}
    assert load(tiny_run / "config.yaml").name == "tiny"


def test_results_hold_every_metric_at_every_width_and_the_baselines(tiny_run):
    results = json.loads((tiny_run / "results.json").read_text())
    meta = results.pop("meta")
    assert {task: set(metrics) for task, metrics in results.items()} == {
        "sts": {"spearman"},
        "found": {"recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100"},
    }
    for methods in (results, *meta["baselines"].values()):
        assert all(list(m) == DIMS for metrics in methods.values() for m in metrics.values())
    assert set(meta["baselines"]) == {"raw truncation", "PCA"}
    assert (meta["seed"], meta["steps"], meta["skipped_rows"]) == (0, 4, 0)
    assert meta["rows"] == {"train": 180, "validation": 20}
    assert meta["pairs_per_second"] > 0
    assert set(meta["data"]) == {"train/pairs", "sts", "found"}
    assert {"torch", "lightning", "transformers", "python"} <= set(meta["versions"])


def test_the_saved_encoder_scores_what_the_results_say(tiny_run, tiny_config):
    config = load(tiny_config)
    tasks = [*build_tasks(config.evaluation.validation), *build_tasks(config.evaluation.test)]
    stated = json.loads((tiny_run / "results.json").read_text())
    for name, expected in (
        (tiny_run, stated),
        (config.encoder.name, stated["meta"]["baselines"]["raw truncation"]),
    ):
        embeddings = embed_tasks(Encoder.from_pretrained(name), tasks, 7, "again")
        again = score_tasks(tasks, embeddings, [int(dim) for dim in DIMS])
        for task, scores in again.items():
            for metric, per_width in scores.items():
                assert list(per_width.values()) == pytest.approx(
                    list(expected[task][metric].values()), abs=1e-3
                )


def test_metrics_count_the_steps_taken_and_carry_every_promised_name(tiny_run):
    assert list(values(tiny_run, "train/loss")) == [1, 2, 3, 4]
    assert list(values(tiny_run, "val/loss")) == [2, 4]
    assert list(values(tiny_run, "val/sts/spearman/d4")) == [0, 2, 4]
    names = set().union(*lines(tiny_run))
    for term in ("contrastive", "correlation", "variance", "cv", "uniformity"):
        assert {f"train/{term}", f"train/{term}/weighted", f"train/{term}/d4"} <= names
    assert f"train/correlation/d{WIDTH}" not in names  # no residual at full width
    weighted = [values(tiny_run, name) for name in names if name.endswith("/weighted")]
    for step, loss in values(tiny_run, "train/loss").items():
        assert sum(term[step] for term in weighted) == pytest.approx(loss, rel=1e-5)


def test_the_learning_rate_warms_up_and_decays_along_a_cosine(tiny_run):
    # 4 steps, the first tenth of them (one step, rounded up) warming up from 0
    rates = list(values(tiny_run, "train/learning_rate").values())
    cosine = [0.5e-3 * (1 + np.cos(np.pi * done / 3)) for done in range(3)]
    assert rates == pytest.approx([0.0, *cosine])


def test_the_seed_alone_says_how_a_run_goes(tiny_run, tiny_config, tmp_path):
    torch.manual_seed(321)  # of no effect
    again = train(load(tiny_config, "name=again"))
    train(load(tiny_config, "name=other", "seed=4"))
    runs = (tiny_run, tmp_path / "runs" / "again", tmp_path / "runs" / "other")
    timed = ("speed/", "memory/")
    logged = [
        [
            {name: value for name, value in line.items() if not name.startswith(timed)}
            for line in lines(run)
        ]
        for run in runs
    ]
    assert logged[0] == logged[1] != logged[2]
    weights = [(run / "encoder/model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    first = json.loads((tiny_run / "results.json").read_text())
    assert (first["found"], first["sts"]) == (again["found"], again["sts"])


def test_the_start_says_how_many_texts_are_cut(tiny_config, capsys):
    train(load(tiny_config, "encoder.max_length=6", "trainer.max_steps=1"))
    tokens = [len(f"{text}".split()) + 2 for n in range(200) for text in (sentence(n), answer(n))]
    share = sum(count > 6 for count in tokens) / len(tokens)
    said = re.search(r"([0-9.]+)% of the training texts are longer than 6", capsys.readouterr().err)
    assert float(said[1]) / 100 == pytest.approx(share, abs=0.05)  # 180 of the 200 rows


def test_training_teaches_every_prefix(tiny_config):
    # the answers name another animal, so that shared words cannot tell the right one
    columns = "columns=[anchor,negative]"
    results = train(
        load(
            tiny_config,
            f"data.train.pairs.{columns}",
            f"evaluation.test.pairs.found.{columns}",
            "evaluation.test.pairs.found.limit=200",
            "trainer.max_steps=80",
            "trainer.validate_every=80",
        )
    )
    raw = results["meta"]["baselines"]["raw truncation"]["found"]["recall@1"]
    for dim, value in results["found"]["recall@1"].items():
        assert value > raw[dim] + 20, f"d={dim}: {raw[dim]:.1f} before, {value:.1f} after"


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.train.pairs.columns=[anchor]", "encoder.projection=24", "encoder.pooling=cls"],
        [
            "data.train.pairs.columns=[anchor,positive,negative]",
            *("objective.variance_floor=per_dim", "objective.regularize_views=first"),
        ],
        ["objective.dims=[]", "encoder.gradient_checkpointing=true"],
        ["objective.gamma=0", "encoder.freeze_embeddings=true", "encoder.freeze_layers=2"],
        ["objective.align_layers=[0,3,output]", "objective.isotropy=eigen", "data.num_workers=1"],
        [
            *("objective.correlation.warmup_steps=3", "objective.normalize_dim_weights=false"),
            *("trainer.precision=bf16", "trainer.schedule=linear", "trainer.gradient_clip=0"),
        ],
    ],
    ids=" ".join,
)
def test_every_switch_trains(tiny_config, overrides):
    results = train(load(tiny_config, "trainer.max_steps=2", *overrides))
    assert all(np.isfinite(list(results["found"]["ndcg@10"].values())))


def test_held_out_pairs_are_the_task_when_none_is_named(tiny_config):
    results = train(load(tiny_config, "evaluation.validation={sts: {}}", "trainer.max_steps=2"))
    assert "sts" in results  # a merge cannot take a task away
    empty = tiny_config.with_name("empty.yaml")
    content = tiny_config.read_text()
    start, stop = content.index("evaluation:"), content.index("trainer:")
    empty.write_text(content[:start] + content[stop:])
    results = train(load(empty, "name=heldout", "trainer.max_steps=2"))
    assert set(results) == {"heldout", "meta"}


def test_encode_writes_the_vectors_of_the_trained_prefix(tiny_run, monkeypatch, capsys, tmp_path):
    sentences = ["the cat sees a house", "a dog"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(sentences) + "\n"))
    assert main(["encode", str(tiny_run), "--dim", "8"]) == 0
    printed = np.array([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    expected = Encoder.from_pretrained(tiny_run).encode(sentences, dim=8)
    np.testing.assert_allclose(printed, expected, atol=1e-6)

    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(sentences) + "\n"))
    assert main(["encode", str(tiny_run), "--dim", "8", "--output", str(tmp_path / "v.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)


def test_a_stopped_run_says_so_and_leaves_no_result(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Progress, "on_train_batch_end", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(Preempted, match=r"stopped as you asked after step 1; .* mic resume"):
        train(load(tiny_config))
    assert not (tmp_path / "runs/tiny/results.json").exists()


def test_skipped_rows_are_counted_in_the_log_the_results_and_the_output(
    tiny_config, pairs_file, tmp_path, capsys
):
    holed = tmp_path / "holed.jsonl"
    holed.write_text(pairs_file.read_text() + '{"anchor": "", "positive": "a cat"}\n' * 3)
    skip = ["data.on_bad_row=skip", "trainer.max_steps=2"]
    results = train(load(tiny_config, f"data.train.pairs.path={holed}", *skip))
    assert results["meta"]["skipped_rows"] == 3
    assert values(tmp_path / "runs/tiny", "data/skipped_rows") == {0: 3}
    assert "3 rows were skipped: unusable 3." in capsys.readouterr().out


def test_the_table_names_method_width_and_value(tiny_run, tmp_path, capsys):
    results = train(load(tiny_run / "config.yaml", f"runs={tmp_path}"))
    printed = capsys.readouterr().out
    for value in results["found"]["ndcg@10"].values():
        assert f"{value:.1f}" in printed
    for word in ("raw truncation", "PCA", "mic", "found: ndcg@10", "mic encode", *DIMS):
        assert word in printed


# Teachers and chunks


LEARN = ("objective.distillation.weight=1", "trainer.validate_every=1")


def test_a_cached_teacher_is_asked_once_and_teaches_like_the_frozen_one(
    tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    runs = {}
    for name, kind in (("frozen", "frozen"), ("first", "cached"), ("again", "cached")):
        asked = count_embedded(monkeypatch)
        train(load(tiny_config, *LEARN, f"name={name}", f"teacher.kind={kind}"))
        monkeypatch.undo()
        monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
        losses = [
            line["train/distillation"]
            for line in lines(tmp_path / "runs" / name)
            if "train/loss" in line
        ]
        runs[name] = (sum(asked), losses)
    texts = {text for n in range(200) for text in (sentence(n), answer(n))}
    assert runs["first"][0] - runs["frozen"][0] == len(texts)
    assert runs["again"][0] == runs["frozen"][0]
    assert runs["again"][1] == runs["first"][1]
    assert runs["first"][1] == pytest.approx(runs["frozen"][1], rel=1e-2)  # fp16 on disk
    assert len(runs["first"][1]) == 4


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of texts that encoders embed from now on; they are embedded all the same."""
    asked: list[int] = []
    embed = Encoder.embed

    def counted(self: Encoder, texts: Sequence[str], **options: object) -> torch.Tensor:
        asked.append(len(texts))
        return embed(self, texts, **options)

    monkeypatch.setattr(Encoder, "embed", counted)
    return asked


@pytest.mark.parametrize("kind", ["self", "ema", "frozen"])
def test_every_teacher_trains_and_logs_what_it_taught(tiny_config, tmp_path, kind):
    train(load(tiny_config, *LEARN, f"teacher.kind={kind}", "trainer.chunk_size=6"))
    logged = [line for line in lines(tmp_path / "runs" / "tiny") if "train/loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    for line in logged:
        parts = [value for name, value in line.items() if name.endswith("/weighted")]
        assert line["train/loss"] == pytest.approx(sum(parts), rel=1e-5)
        assert {f"train/distillation/d{dim}" for dim in (4, 8, 16, 32)} <= line.keys()
        assert 14 <= line["train/negatives"] <= 15  # beside 16 rows, of which few share a text
