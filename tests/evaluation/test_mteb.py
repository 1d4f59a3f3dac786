"""mteb's tasks at every width: mteb's own figures, from one encoding of every text."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sentences import answer, sentence

from mic.cli.main import main
from mic.encoder.embedding_store import BoundedStore
from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError
from mic.evaluation.evaluate import Options
from mic.evaluation.models import find_models
from mic.evaluation.mteb.local import local_tasks
from mic.evaluation.mteb.model import AtWidth, Subject
from mic.evaluation.mteb.prompts import Prompts, read_prompts
from mic.evaluation.mteb.run import evaluate_model_by_mteb
from mic.evaluation.mteb.score import score_task
from mic.evaluation.mteb.suite import find_tasks
from mic.evaluation.tasks.suite import read_suite
from mic.tracking.reader import OWN, read_results

pytestmark = pytest.mark.slow  # the import of mteb alone takes up to half a minute

DIMS = [8, 16]
PROMPTS = {"query": "that the ", "document": "a dog and ", "STS": "the cat ", "sst2": "a fox "}
LABELLED = [{"text": sentence(n), "label": "abc"[n % 10 // 4]} for n in range(90)]
SCORED = [{"a": sentence(n), "b": answer(n + n % 5), "s": 5 - n % 5} for n in range(40)]
DOCUMENTS = [{"_id": str(n), "title": "the cat" * (n % 2), "text": answer(n)} for n in range(60)]
QUERIES = [{"_id": str(n), "text": sentence(n)} for n in range(30)]
QRELS = [
    {"query_id": str(n), "doc_id": str(n + m), "score": 2 - m} for n in range(30) for m in (0, 1)
]
MATCHES = [{"a": sentence(n), "b": answer(n + n % 2), "l": 1 - n % 2} for n in range(80, 120)]
SUITE = """
sts: {alike: {path: sts.jsonl, columns: [a, b, s]}}
retrieval: {finding: {corpus: corpus.jsonl, queries: queries.jsonl, qrels: qrels.jsonl}}
classification:
  kinds:
    train: {path: train.jsonl, columns: [text, label]}
    test: {path: test.jsonl, columns: [text, label]}
pair_classification: {match: {test: {path: pairs.jsonl, columns: [a, b, l]}}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    held = {
        "sts": SCORED,
        "train": LABELLED[:60],
        "test": LABELLED[50:],
        "corpus": DOCUMENTS,
        "queries": QUERIES,
        "qrels": QRELS,
        "pairs": MATCHES,
    }
    for name, rows in held.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """The tiny model with prompts, as `mic export` writes it."""
    folder = tmp_path_factory.mktemp("exported")
    Encoder.from_pretrained(model_folder, max_length=32).save(folder / "model")
    settings = {"prompts": PROMPTS, "default_prompt_name": None}
    (folder / "model/config_sentence_transformers.json").write_text(json.dumps(settings))
    assert main(["export", str(folder / "model"), "--to", str(folder / "tiny")]) == 0
    return folder / "tiny"


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def evaluated(data, exported, tmp_path_factory):
    """What `mic evaluate` leaves of the tiny model."""
    to = tmp_path_factory.mktemp("evaluated") / "to"
    assert main(command(data, to, exported)) == 0
    return to


def command(data, to, *models, dims="8,16"):
    suite = ["--suite", f"mteb:{data / 'suite.yaml'}", "--data", str(data)]
    return ["evaluate", *map(str, models), *suite, "--dims", dims, "--to", str(to)]


def found_in(folder: Path) -> dict[str, Any]:
    return read_results(folder / "results.json")[1][OWN]


def by_hand() -> list[Any]:
    """The suite's tasks by mteb's classes, from the rows above."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import (
        AbsTaskClassification,
        AbsTaskPairClassification,
        AbsTaskRetrieval,
        AbsTaskSTS,
    )
    from mteb.abstasks.task_metadata import TaskMetadata

    def metadata_of(name, kind, score):
        place = {"path": name, "revision": "1"}
        others = {"description": "", "category": "t2t", "eval_langs": ["eng-Latn"]}
        return TaskMetadata(name=name, dataset=place, type=kind, main_score=score, **others)

    class Alike(AbsTaskSTS):
        metadata = metadata_of("alike", "STS", "cosine_spearman")
        column_names = ("a", "b")

    class Finding(AbsTaskRetrieval):
        metadata = metadata_of("finding", "Retrieval", "ndcg_at_10")

    class Kinds(AbsTaskClassification):
        metadata = metadata_of("kinds", "Classification", "accuracy")

    class Match(AbsTaskPairClassification):
        metadata = metadata_of("match", "PairClassification", "max_ap")
        input1_column_name, input2_column_name, label_column_name = "a", "b", "l"

    tasks = [Alike(), Finding(), Kinds(), Match()]
    relevant: dict[str, dict[str, int]] = {}
    for row in QRELS:
        if row["score"]:
            relevant.setdefault(row["query_id"], {})[row["doc_id"]] = row["score"]
    rows = {
        "queries": Dataset.from_list([{"id": row["_id"], **row} for row in QUERIES]),
        "corpus": Dataset.from_list([{"id": row["_id"], **row} for row in DOCUMENTS]),
        "relevant_docs": relevant,
        "top_ranked": None,
    }
    splits = {"train": LABELLED[:60], "test": LABELLED[50:]}
    numbers = {
        split: Dataset.from_list(
            [{**row, "label": "abc".index(row["label"])} for row in split_rows]
        )
        for split, split_rows in splits.items()
    }
    tasks[0].dataset = {"test": Dataset.from_list([{**row, "score": row["s"]} for row in SCORED])}
    tasks[1].dataset = {"default": {"test": rows}}
    tasks[2].dataset = DatasetDict(numbers)
    tasks[3].dataset = {"test": Dataset.from_list(MATCHES)}
    for task in tasks:
        task.data_loaded = True
    return tasks


def test_scores_are_those_of_mteb_run_by_hand_on_the_exported_model(evaluated, exported, tmp_path):
    import mteb
    from sentence_transformers import SentenceTransformer

    ours = found_in(evaluated / "tiny")
    for dim in DIMS:
        model = SentenceTransformer(str(exported), device="cpu", truncate_dim=dim)
        theirs = mteb.evaluate(
            model,
            by_hand(),
            cache=mteb.ResultCache(tmp_path / str(dim)),
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"normalize_embeddings": True, "show_progress_bar": False},
        )
        for result in theirs.task_results:
            (scores_of,) = ours[result.task_name].values()
            assert list(scores_of) == DIMS
            assert scores_of[dim] / 100 == pytest.approx(float(result.get_score()), abs=1e-6)
    assert {name: list(result) for name, result in ours.items()} == {
        "alike": ["cosine_spearman"],
        "finding": ["ndcg_at_10"],
        "kinds": ["accuracy"],
        "match": ["max_ap"],
    }
    assert all(by_width[8] != by_width[16] for by_width in ours["alike"].values())


def test_every_text_is_encoded_once_for_all_widths_with_its_prompt(
    data, exported, encoded, tmp_path, monkeypatch
):
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    few = ["--tasks", "alike,finding,match"]
    assert main([*command(data, tmp_path / "to", exported), *few]) == 0
    texts = [text for call in encoded for text in call]
    alike = [PROMPTS["STS"] + row[side] for row in SCORED for side in "ab"]
    queries = [PROMPTS["query"] + row["text"] for row in QUERIES]
    documents = [PROMPTS["document"] + f"{row['title']} {row['text']}".strip() for row in DOCUMENTS]
    plain = [row[side] for row in MATCHES for side in "ab"]
    assert len(texts) == len(set(texts))
    assert set(texts) == {*alike, *queries, *documents, *plain}
    # results elsewhere, and of another width, are made of the same embeddings
    assert main([*command(data, tmp_path / "other", exported, dims="4,8"), *few]) == 0
    assert sum(map(len, encoded)) == len(texts)
    both = found_in(tmp_path / "to/tiny"), found_in(tmp_path / "other/tiny")
    for task, metric in (("alike", "cosine_spearman"), ("finding", "ndcg_at_10")):
        first, second = (row[task][metric] for row in both)
        assert (list(first), list(second)) == ([8, 16], [4, 8])
        assert first[8] == second[8]


def test_what_is_done_is_read_and_what_is_not_is_run(data, exported, tmp_path, monkeypatch):
    import mteb

    ran, evaluate, to = [], mteb.evaluate, tmp_path / "to"
    arguments = [*command(data, to, exported), "--tasks", "alike,finding,match"]

    def counting(model, task, **options):
        if len(ran) == 3:
            ran.append("interrupted")
            raise KeyboardInterrupt
        ran.append((task.metadata.name, model.dim))
        return evaluate(model, task, **options)

    monkeypatch.setattr(mteb, "evaluate", counting)
    assert main(arguments) == 1
    assert [file.name for file in to.iterdir()] == ["mteb"]
    (half,) = to.glob("mteb/results/*/*/experiments/dim_16*/alike.json")
    half.write_text(half.read_text()[:100])  # as one that was killed while it wrote
    assert main(arguments) == 0
    assert ran == [
        ("alike", 8),
        ("alike", 16),
        ("finding", 8),
        "interrupted",
        ("alike", 16),
        ("finding", 16),
        ("match", 8),
        ("match", 16),
    ]
    before = (to / "tiny/results.json").read_bytes()
    assert main(arguments) == 0
    assert len(ran) == 8
    meta = json.loads(before)["meta"]
    assert (len(meta["weights"]), meta["texts_encoded"]) == (64, 0)  # another folder's did it
    assert (to / "tiny/results.json").read_bytes() == before
    table = (to / "table.md").read_text()
    assert table.startswith("Made by `mic evaluate")
    assert "| finding | ndcg_at_10 |" in table
    assert "| all tasks | mean |" in table
    assert (to / "quality.png").is_file()


def test_another_checkpoint_reads_neither_results_nor_embeddings_of_the_first(
    data, exported, evaluated, encoded, tmp_path, capsys
):
    to, other = tmp_path / "to", tmp_path / "later" / "tiny"
    shutil.copytree(evaluated, to)
    shutil.copytree(exported, other)
    (other / "model.safetensors").unlink()
    weights = load_file(exported / "model.safetensors")
    save_file({name: value + 0.02 for name, value in weights.items()}, other / "model.safetensors")
    assert main(command(data, to, other)) == 2
    assert "an evaluation with other weights" in capsys.readouterr().err
    shutil.rmtree(to / "tiny")
    assert main([*command(data, to, other), "--tasks", "alike,match"]) == 0
    assert encoded
    assert found_in(to / "tiny")["alike"] != found_in(evaluated / "tiny")["alike"]
    revisions = [value.name for value in (to / "mteb/results/mic__tiny").iterdir()]
    assert len(revisions) == 2
    assert main(["compare", str(to), str(evaluated), "--to", str(tmp_path / "compared")]) == 0
    table = (tmp_path / "compared/table.md").read_text()
    assert "No bootstrap" in table
    assert "Left out, as not all models have them: finding, kinds." in table


def test_data_that_changed_is_asked_anew_and_a_suite_of_mics_is_told_apart(
    data, exported, evaluated, tmp_path, capsys
):
    to, changed = tmp_path / "to", tmp_path / "data"
    shutil.copytree(evaluated, to)
    shutil.copytree(data, changed)
    rows = [{**row, "s": row["s"] % 3} for row in SCORED]
    (changed / "sts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*command(changed, to, exported), "--tasks", "kinds,alike"]) == 0
    before, after = found_in(evaluated / "tiny"), found_in(to / "tiny")
    assert after["alike"] != before["alike"]
    assert after == {"alike": after["alike"], "kinds": before["kinds"]}
    plain = ["--suite", str(data / "suite.yaml"), "--data", str(data), "--dims", "8,16"]
    asked = [str(exported), *plain, "--no-baselines", "--tasks", "alike"]
    assert main(["evaluate", *asked, "--to", str(to)]) == 2
    assert "an evaluation with other tasks" in capsys.readouterr().err
    assert main(["evaluate", *asked, "--to", str(tmp_path / "own")]) == 0
    assert list(found_in(tmp_path / "own/tiny")) == ["alike"]
    both = [str(tmp_path / "own"), str(evaluated)]
    assert main(["compare", *both, "--to", str(tmp_path / "compared")]) == 2
    assert "have the same weights" in capsys.readouterr().err


def subject_of(model_folder) -> Subject:
    encoder = Encoder.from_pretrained(model_folder, max_length=32)
    store = BoundedStore("tiny", encoder.width, lambda texts: encoder.embed(texts).numpy())
    return Subject("tiny", "0", encoder, Prompts({}), store)


def test_every_width_of_a_clustering_is_asked_about_the_same_samples(data, model_folder, tmp_path):
    import mteb

    def task():
        file = tmp_path / "groups.yaml"
        file.write_text("clustering: {groups: {path: train.jsonl, columns: [text, label]}}")
        (task_made,) = local_tasks(read_suite(str(file), data))
        task_made.max_documents_per_cluster = 64
        return task_made

    models = {dim: AtWidth(subject_of(model_folder), dim) for dim in DIMS}
    several = score_task(
        task(), models, mteb.ResultCache(tmp_path / "several"), 64, lambda *_: None
    )
    for dim in DIMS:
        alone = mteb.evaluate(
            models[dim], task(), cache=None, co2_tracker=False, show_progress_bar=False
        )
        score = float(alone.task_results[0].get_score())
        assert several[dim] / 100 == pytest.approx(score, abs=1e-6)  # mteb's files have 6 decimals


def test_data_is_read_once_for_all_widths_and_let_go_and_parts_are_joined(
    data, model_folder, tmp_path, monkeypatch
):
    import datasets
    import mteb
    from mteb.abstasks import AbsTaskSTS
    from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    loads: list[str] = []

    def fetched(name, rows):
        """A task whose data lies elsewhere, as that of mteb's own tasks on the Hub."""
        (tmp_path / name).mkdir()
        rows = [
            {"sentence1": first["a"], "sentence2": first["b"], "score": first["s"]}
            for first in rows
        ]
        (tmp_path / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
        place: Any = {"path": str(tmp_path / name), "revision": "1"}
        known = mteb.get_task("STS12").metadata
        load = AbsTaskSTS.load_data

        class Fetched(AbsTaskSTS):
            metadata = known.model_copy(update={"dataset": place, "name": name})

            def load_data(self, **options):
                loads.append(name)
                load(self, **options)

        return Fetched()

    first, second = fetched("one", SCORED), fetched("other", SCORED[:25])

    class Both(AbsTaskAggregate):
        metadata = AggregateTaskMetadata(
            name="both",
            description="",
            tasks=[first, second],
            main_score="cosine_spearman",
            type="STS",
            eval_splits=["test"],
            date=("2026-01-01", "2026-01-01"),
            domains=["Written"],
            task_subtypes=[],
            license="mit",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            category="t2t",
        )

    cache, models = mteb.ResultCache(tmp_path / "to"), {}
    for dim in DIMS:
        models[dim] = AtWidth(subject_of(model_folder), dim)
    finished: list[int] = []
    joined = score_task(Both(), models, cache, 64, lambda _, done: finished.append(done))
    assert (loads, sum(finished)) == (["one", "other"], 4)
    assert not first.data_loaded
    apart = [score_task(task, models, cache, 64, lambda *_: None) for task in (first, second)]
    assert loads == ["one", "other"]  # the results are there
    for dim in DIMS:
        assert joined[dim] == pytest.approx((apart[0][dim] + apart[1][dim]) / 2, abs=1e-4)
    assert apart[0] != apart[1]


def test_prompts_are_chosen_as_mteb_chooses_a_sentence_transformers(exported):
    import mteb
    from mteb.models import SentenceTransformerEncoderWrapper
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from mic.evaluation.mteb.prompts import prompt_of
    from mic.evaluation.mteb.run import quiet_mteb

    model = SentenceTransformer(str(exported), device="cpu")
    asked: list[str] = []
    model.encode = lambda inputs, prompt_name=None, prompt=None, **_: asked.append(
        model._resolve_prompt(prompt, prompt_name) or ""
    )
    settings = exported / "config_sentence_transformers.json"
    with quiet_mteb():
        for default in (None, "sst2"):
            written = json.loads(settings.read_text()) | {"default_prompt_name": default}
            settings.write_text(json.dumps(written))
            model.default_prompt_name = default
            wrapper, ours = SentenceTransformerEncoderWrapper(model), read_prompts(exported)
            for task in ("STS12", "SciFact", "Banking77Classification"):
                metadata = mteb.get_task(task).metadata
                for kind in (None, PromptType.query, PromptType.document):
                    inputs = [{"text": ["the cat"]}]
                    loader = type("Loader", (list,), {})(inputs)
                    loader.dataset = type("Data", (), {"features": {"text": None}})
                    wrapper.encode(
                        loader, task_metadata=metadata, hf_split="", hf_subset="", prompt_type=kind
                    )
                    assert prompt_of(ours, metadata, kind) == asked[-1]
    assert set(asked) == {"", *PROMPTS.values()}
    settings.write_text(json.dumps(written | {"default_prompt_name": None}))


def test_a_task_without_its_data_is_named_and_what_is_done_is_kept(data, exported, tmp_path):
    import mteb

    (model,) = find_models([str(exported)])
    tasks = find_tasks(f"mteb:{data / 'suite.yaml'}", data, ["alike"])
    options = Options(tmp_path / "to", DIMS)
    with pytest.raises(RunError, match=r"task STS12: its data, mteb/sts12-sts on the Hub.*--tasks"):
        evaluate_model_by_mteb(model, "two", [*tasks, mteb.get_task("STS12")], options)
    assert len(list((tmp_path / "to").glob("mteb/results/*/*/experiments/*/alike.json"))) == 2


@pytest.mark.parametrize(
    ("suite", "names", "message"),
    [
        ("MTEB(eng, v3)", [], r"no such benchmark; did you mean MTEB\(eng, v2\)"),
        ("mteb:BEYR", [], "no such benchmark; did you mean BEIR"),
        ("MTEB(eng, v2)", ["STS111"], "MTEB.*has no such task; did you mean STS1"),
        ("mteb", ["banking77classification"], "no such task; did you mean Banking77Class"),
        ("mteb", [], "--tasks STS12"),
        ("mteb", ["CIFAR10"], "not of text alone"),
    ],
)
def test_what_mteb_does_not_know_is_refused_with_what_was_meant(suite, names, message):
    with pytest.raises(InputError, match=message):
        find_tasks(suite, None, names)


def test_a_benchmark_is_found_whole_or_in_part():
    assert len(find_tasks("MTEB(eng, v2)", None, [])) == 41
    tasks = find_tasks("MTEB(eng, v2)", None, ["STS17", "STS12"])
    assert [task.metadata.name for task in tasks] == ["STS12", "STS17"]
    assert tasks[1].hf_subsets == ["en-en"]  # as the benchmark has it
