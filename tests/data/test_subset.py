"""What parts of corpora claim: which rows they hold, who is whose partner, what shares a key."""

import pickle
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from corpora import KINDS, WrittenCorpus, corpora, rows_of, unlike, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoTokenizer

from mic.data.corpus import tokenize_corpus
from mic.data.indexed import RowIndex
from mic.data.order.permutation import derive_key
from mic.data.splits import hold_out
from mic.data.subset import most_conflicts, row_keys
from mic.encoder.tokenizer import Tokenize

untimed = settings(deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def labelled(folder: Path) -> WrittenCorpus:
    """Labels 0, 1, 2 of 10 texts each without three of them, and one of a text alone."""
    rows = [*unlike(30, groups=3), {"a": "alone", "g": "lone"}]
    return write_corpus(folder, rows, "labelled", held={0, 3, 7})


@untimed
@given(st.data())
def test_a_part_holds_all_rows_but_those_held_out(folder: Path, data: st.DataObject) -> None:
    held = data.draw(st.sets(st.integers(0, 11)))
    written = write_corpus(folder, unlike(12), held=held)
    assert len(written.subset) == len(written.used)
    assert written.subset.rows(np.arange(len(written.used))).tolist() == written.used
    places = data.draw(
        st.lists(st.sampled_from(range(len(written.used))) if written.used else st.nothing())
    )
    rows = written.subset.rows(np.array(places, np.int64))
    assert rows.tolist() == [written.used[place] for place in places]


@untimed
@given(st.data())
def test_a_part_of_listed_rows_holds_those(folder: Path, data: st.DataObject) -> None:
    only = sorted(data.draw(st.sets(st.integers(0, 11), min_size=1)))
    part = write_corpus(folder, unlike(12), held=only).subset
    assert len(part) == len(only)
    places = data.draw(st.lists(st.integers(0, len(only) - 1)))
    assert part.rows(np.array(places, np.int64)).tolist() == [only[place] for place in places]


def test_what_is_held_out_is_not_kept_and_every_corpus_keeps_a_row(folder: Path) -> None:
    written = [write_corpus(folder, unlike(n), "single", str(n)).corpus for n in (60, 1, 39, 2)]
    whole = [(corpus.name, row) for corpus in written for row in range(len(corpus))]
    sizes = set()
    for seed in range(100):
        training, out = hold_out(written, 10, seed)
        rows = [
            [(part.corpus.name, row) for part in parts for row in part.rows(np.arange(len(part)))]
            for parts in (training, out)
        ]
        assert sorted(rows[0] + rows[1]) == sorted(whole)
        assert [part.corpus for part in training] == written
        assert all(len(part) for part in training + out)
        sizes.add(len(rows[1]))
    assert sizes == {9, 10}  # of 102 rows a tenth at most, and not the one row of the second


@settings(untimed, max_examples=50)
@given(st.data())
def test_rows_share_a_key_where_they_share_a_text_or_a_group(
    folder: Path, data: st.DataObject
) -> None:
    """Texts are equal through all corpora, groups within one; asking leaves them as they are."""
    written = data.draw(corpora(folder))
    for _ in range(2):
        rows = [(corpus, row) for corpus in written for row in range(len(corpus.rows))]
        keys = [set(row_keys(corpus.corpus, np.array([row]))[0].tolist()) for corpus, row in rows]
        for (owner, row), hashes in zip(rows, keys, strict=True):
            for (two, other), theirs in zip(rows, keys, strict=True):
                assert len(hashes & theirs) == len(owner.marks(row) & two.marks(other))


def test_a_partner_is_another_kept_row_of_the_label(labelled: WrittenCorpus) -> None:
    part, places = labelled.subset, np.arange(28)
    rows = part.rows(places)
    for epoch in range(50):
        partners = part.rows(part.partners(places, derive_key(epoch)))
        for row, other in zip(rows.tolist(), partners.tolist(), strict=True):
            assert other in labelled.used
            assert labelled.group(other) == labelled.group(row)
            assert (other == row) == (labelled.group(row) == "lone")


def test_every_other_row_of_the_label_is_a_partner_equally_often(labelled: WrittenCorpus) -> None:
    """And rows of one label choose independently of each other."""
    groups = [labelled.group(row) for row in labelled.used]
    others = [
        [other for other, group in enumerate(groups) if group == label and other != place]
        for place, label in enumerate(groups)
    ]
    partners = np.array(
        [labelled.subset.partners(np.arange(28), derive_key(n)) for n in range(1000)]
    )
    for place in range(27):
        counts = Counter(partners[:, place].tolist())
        assert set(counts) == set(others[place])
        assert chisquare([*counts.values()]).pvalue > 1e-4
    first, two = others[0][0], others[0][1]
    together = Counter(map(tuple, partners[:, [first, two]].tolist()))
    pairs = [together[pair] for pair in product(others[first], others[two])]
    assert sum(pairs) == 1000
    assert chisquare(pairs).pvalue > 1e-4


def test_a_row_s_partner_depends_on_itself_and_the_key_alone(labelled: WrittenCorpus) -> None:
    whole = labelled.subset.partners(np.arange(28), 5)
    assert labelled.subset.partners(np.array([20, 3, 3]), 5).tolist() == whole[[20, 3, 3]].tolist()


@pytest.mark.parametrize(
    ("rows", "kind", "times", "most"),
    [
        ([("a", "b"), ("c", "d")], "pair", 1, 0),
        ([("a", "b"), ("c", "d")], "pair", 3, 4),  # two more of its own, by two keys
        ([("a", "b"), ("a", "d"), ("b", "a")], "pair", 1, 3),
        ([("a", "a"), ("a", "a"), ("c", "d")], "pair", 1, 1),
        ([("a",), ("b",), ("a",), ("a",)], "single", 1, 2),
    ],
)
def test_conflicts_are_counted_key_by_key(
    folder: Path, rows: list[tuple[str, ...]], kind: str, times: int, most: int
) -> None:
    written = [dict(zip("ab", row, strict=False)) for row in rows]
    assert most_conflicts([write_corpus(folder, written, kind).subset], [times]) == most


def test_a_labelled_text_meets_all_that_its_partner_does(folder: Path) -> None:
    """Ten rows with the one text and ten with the other, beside the pair of both."""
    texts = write_corpus(folder, [{"a": text, "g": "1"} for text in ("x", "y")], "labelled").subset
    others = write_corpus(
        folder, [{"a": "xy"[n % 2], "b": f"b{n}"} for n in range(20)], "pair"
    ).subset
    assert most_conflicts([texts, others], [1, 1]) >= 21


def test_a_text_may_be_the_partner_of_its_whole_label(folder: Path) -> None:
    """The pair of both labels' first texts meets all twenty rows if all others draw those."""
    texts = write_corpus(folder, unlike(20, groups=2), "labelled").subset
    pair = write_corpus(folder, [{"a": unlike(1)[0]["a"], "b": unlike(2)[1]["a"]}], "pair").subset
    assert most_conflicts([texts, pair], [1, 1]) >= 20


def test_rows_that_are_held_out_meet_nobody(folder: Path) -> None:
    rows = [{"a": "same", "b": str(row)} for row in range(9)]
    assert most_conflicts([write_corpus(folder, rows, held={0, 5, 8}).subset], [1]) == 5


def test_conflicts_are_counted_through_all_blocks_of_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few more at most: keys may share a counter by chance."""
    monkeypatch.setattr("mic.data.subset.BLOCK", 64)
    rows = unlike(200)
    assert most_conflicts([write_corpus(folder, rows).subset], [1]) <= 4
    for row in range(0, 200, 5):
        rows[row]["a"] = "same"
    assert 39 <= most_conflicts([write_corpus(folder, rows).subset], [1]) <= 43


@settings(untimed, max_examples=50)
@given(st.data())
def test_rows_by_number_are_those_of_the_files(folder: Path, data: st.DataObject) -> None:
    written = data.draw(corpora(folder))
    labelled = [corpus.corpus.meta.kind == "labelled" for corpus in written]
    plain = [
        (owner, row) for owner, corpus in enumerate(written) for row in range(len(corpus.rows))
    ]
    firsts = [plain.index((owner, 0)) for owner in range(len(written))]
    asked = data.draw(st.lists(st.sampled_from(range(len(plain))), max_size=20))
    partners = [
        firsts[owner] + data.draw(st.integers(0, len(written[owner].rows) - 1))
        if labelled[owner]
        else -1
        for owner, _ in (plain[number] for number in asked)
    ]
    numbered = RowIndex([corpus.corpus for corpus in written])
    rows = numbered.rows(asked, partners)
    expected = rows_of(written, asked, partners)
    assert [row.texts for row in rows] == [other.texts for other in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row.tokens is None
        for other, two in zip(rows, expected, strict=True):
            group = written[wanted.owner].group(wanted.row)
            alike = wanted.owner == two.owner and group == written[two.owner].group(two.row)
            assert (row.group is None) == (group is None)
            assert group is None or (row.group == other.group) == alike
    assert pickle.loads(pickle.dumps(numbered)).rows(asked, partners) == rows


def test_tokens_by_number_are_those_of_the_texts(folder: Path, model_folder: Path) -> None:
    tokenize = Tokenize(AutoTokenizer.from_pretrained(model_folder), max_length=8)
    rows = [{"a": "the cat " * (n % 5 + 1), "b": "a dog", "g": str(n % 2)} for n in range(10)]
    written = [write_corpus(folder, rows, kind, kind) for kind in ("pair", "labelled")]
    tokenized = [tokenize_corpus(corpus.corpus, tokenize) for corpus in written]
    numbered = RowIndex([corpus.corpus for corpus in written], tokenized)
    for index in (numbered, pickle.loads(pickle.dumps(numbered))):
        for row in index.rows([13, 2, 19, 0], [17, -1, 11, -1]):
            assert row.tokens is not None
            assert [ids.tolist() for ids in row.tokens] == tokenize.ids(row.texts)


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_gets_no_data_but_where_it_is(folder: Path, kind: str) -> None:
    written = write_corpus(folder, unlike(300, groups=2), kind)
    numbered = RowIndex([written.corpus])
    rows = numbered.rows([5, 299], [7, 1])
    sent = pickle.dumps(numbered)
    assert len(sent) < 1000
    assert pickle.loads(sent).rows([5, 299], [7, 1]) == rows


def test_a_corpus_has_the_rows_of_its_file_in_their_order(folder: Path) -> None:
    written = write_corpus(folder, unlike(50), "triplet")
    expected = [written.texts(row) for row in range(50)]
    assert list(written.corpus.all_texts()) == expected
    assert written.corpus.texts([9, 0, 9, 49]) == [expected[row] for row in (9, 0, 9, 49)]
    assert written.corpus.lengths.tolist() == [[*map(len, texts)] for texts in expected]
