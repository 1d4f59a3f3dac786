"""What parts of corpora claim: which rows they hold, who is whose partner, what shares a key."""

import pickle
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from corpora import KINDS, Told, corpora, seen, told, unlike
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mic.data.conflicts import most_conflicts
from mic.data.indexed import Numbered
from mic.data.order.permutation import key_of
from mic.data.splits import hold_out
from mic.data.subset import keys_of
from mic.data.tokens import tokenize_corpus
from mic.encoder.pretrained import read_tokenizer
from mic.encoder.tokenizer import Tokenize

untimed = settings(deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Told:
    """Labels 0, 1, 2 of 10 texts each without three of them, and one of a text alone."""
    rows = [*unlike(30, groups=3), {"a": "alone", "g": "lone"}]
    return told(folder, rows, "labelled", held={0, 3, 7})


@untimed
@given(st.data())
def test_a_part_holds_all_rows_but_those_held_out(folder: Path, data: st.DataObject) -> None:
    held = data.draw(st.sets(st.integers(0, 11)))
    one = told(folder, unlike(12), held=held)
    assert len(one.part) == len(one.kept)
    assert one.part.rows(np.arange(len(one.kept))).tolist() == one.kept
    places = data.draw(
        st.lists(st.sampled_from(range(len(one.kept))) if one.kept else st.nothing())
    )
    found = one.part.rows(np.array(places, np.int64))
    assert found.tolist() == [one.kept[place] for place in places]


@untimed
@given(st.data())
def test_a_part_of_listed_rows_holds_those(folder: Path, data: st.DataObject) -> None:
    only = sorted(data.draw(st.sets(st.integers(0, 11), min_size=1)))
    part = told(folder, unlike(12), held=only).part
    assert len(part) == len(only)
    places = data.draw(st.lists(st.integers(0, len(only) - 1)))
    assert part.rows(np.array(places, np.int64)).tolist() == [only[place] for place in places]


def test_what_is_held_out_is_not_kept_and_every_corpus_keeps_a_row(folder: Path) -> None:
    found = [told(folder, unlike(n), "single", str(n)).corpus for n in (60, 1, 39, 2)]
    whole = [(corpus.name, row) for corpus in found for row in range(len(corpus))]
    sizes = set()
    for seed in range(100):
        kept, out = hold_out(found, 10, seed)
        rows = [
            [(part.corpus.name, row) for part in parts for row in part.rows(np.arange(len(part)))]
            for parts in (kept, out)
        ]
        assert sorted(rows[0] + rows[1]) == sorted(whole)
        assert [part.corpus for part in kept] == found
        assert all(len(part) for part in kept + out)
        sizes.add(len(rows[1]))
    assert sizes == {9, 10}  # of 102 rows a tenth at most, and not the one row of the second


@settings(untimed, max_examples=50)
@given(st.data())
def test_rows_share_a_key_where_they_share_a_text_or_a_group(
    folder: Path, data: st.DataObject
) -> None:
    """Texts are equal through all corpora, groups within one; asking leaves them as they are."""
    found = data.draw(corpora(folder))
    for _ in range(2):
        rows = [(one, row) for one in found for row in range(len(one.rows))]
        keys = [set(keys_of(one.corpus, np.array([row]))[0].tolist()) for one, row in rows]
        for (one, row), own in zip(rows, keys, strict=True):
            for (two, other), theirs in zip(rows, keys, strict=True):
                assert len(own & theirs) == len(one.marks(row) & two.marks(other))


def test_a_partner_is_another_kept_row_of_the_label(labelled: Told) -> None:
    part, places = labelled.part, np.arange(28)
    rows = part.rows(places)
    for epoch in range(50):
        partners = part.rows(part.partners(places, key_of(epoch)))
        for row, other in zip(rows.tolist(), partners.tolist(), strict=True):
            assert other in labelled.kept
            assert labelled.group(other) == labelled.group(row)
            assert (other == row) == (labelled.group(row) == "lone")


def test_every_other_row_of_the_label_is_a_partner_equally_often(labelled: Told) -> None:
    """And rows of one label choose independently of each other."""
    groups = [labelled.group(row) for row in labelled.kept]
    others = [
        [at for at, group in enumerate(groups) if group == own and at != place]
        for place, own in enumerate(groups)
    ]
    found = np.array([labelled.part.partners(np.arange(28), key_of(n)) for n in range(1000)])
    for place in range(27):
        counts = Counter(found[:, place].tolist())
        assert set(counts) == set(others[place])
        assert chisquare([*counts.values()]).pvalue > 1e-4
    one, two = others[0][0], others[0][1]
    together = Counter(map(tuple, found[:, [one, two]].tolist()))
    pairs = [together[pair] for pair in product(others[one], others[two])]
    assert sum(pairs) == 1000
    assert chisquare(pairs).pvalue > 1e-4


def test_a_row_s_partner_depends_on_itself_and_the_key_alone(labelled: Told) -> None:
    whole = labelled.part.partners(np.arange(28), 5)
    assert labelled.part.partners(np.array([20, 3, 3]), 5).tolist() == whole[[20, 3, 3]].tolist()


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
    assert most_conflicts([told(folder, written, kind).part], [times]) == most


def test_a_labelled_text_meets_all_that_its_partner_does(folder: Path) -> None:
    """Ten rows with the one text and ten with the other, beside the pair of both."""
    texts = told(folder, [{"a": text, "g": "1"} for text in ("x", "y")], "labelled").part
    others = told(folder, [{"a": "xy"[n % 2], "b": f"b{n}"} for n in range(20)], "pair").part
    assert most_conflicts([texts, others], [1, 1]) >= 21


def test_a_text_may_be_the_partner_of_its_whole_label(folder: Path) -> None:
    """The pair of both labels' first texts meets all twenty rows if all others draw those."""
    texts = told(folder, unlike(20, groups=2), "labelled").part
    pair = told(folder, [{"a": unlike(1)[0]["a"], "b": unlike(2)[1]["a"]}], "pair").part
    assert most_conflicts([texts, pair], [1, 1]) >= 20


def test_rows_that_are_held_out_meet_nobody(folder: Path) -> None:
    rows = [{"a": "same", "b": str(row)} for row in range(9)]
    assert most_conflicts([told(folder, rows, held={0, 5, 8}).part], [1]) == 5


def test_conflicts_are_counted_through_all_blocks_of_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few more at most: keys may share a counter by chance."""
    monkeypatch.setattr("mic.data.conflicts.BLOCK", 64)
    rows = unlike(200)
    assert most_conflicts([told(folder, rows).part], [1]) <= 4
    for row in range(0, 200, 5):
        rows[row]["a"] = "same"
    assert 39 <= most_conflicts([told(folder, rows).part], [1]) <= 43


@settings(untimed, max_examples=50)
@given(st.data())
def test_rows_by_number_are_those_of_the_files(folder: Path, data: st.DataObject) -> None:
    found = data.draw(corpora(folder))
    labelled = [one.corpus.meta.kind == "labelled" for one in found]
    plain = [(at, row) for at, one in enumerate(found) for row in range(len(one.rows))]
    firsts = [plain.index((at, 0)) for at in range(len(found))]
    asked = data.draw(st.lists(st.sampled_from(range(len(plain))), max_size=20))
    partners = [
        firsts[at] + data.draw(st.integers(0, len(found[at].rows) - 1)) if labelled[at] else -1
        for at, _ in (plain[number] for number in asked)
    ]
    numbered = Numbered([one.corpus for one in found])
    rows = numbered.rows(asked, partners)
    expected = seen(found, asked, partners)
    assert [row.texts for row in rows] == [one.texts for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert row.tokens is None
        for other, two in zip(rows, expected, strict=True):
            group = found[one.owner].group(one.row)
            alike = one.owner == two.owner and group == found[two.owner].group(two.row)
            assert (row.group is None) == (group is None)
            assert group is None or (row.group == other.group) == alike
    assert pickle.loads(pickle.dumps(numbered)).rows(asked, partners) == rows


def test_tokens_by_number_are_those_of_the_texts(folder: Path, model_folder: Path) -> None:
    tokenize = Tokenize(read_tokenizer(model_folder), max_length=8)
    rows = [{"a": "the cat " * (n % 5 + 1), "b": "a dog", "g": str(n % 2)} for n in range(10)]
    found = [told(folder, rows, kind, kind) for kind in ("pair", "labelled")]
    tokenized = [tokenize_corpus(one.corpus, tokenize) for one in found]
    numbered = Numbered([one.corpus for one in found], tokenized)
    for one in (numbered, pickle.loads(pickle.dumps(numbered))):
        for row in one.rows([13, 2, 19, 0], [17, -1, 11, -1]):
            assert row.tokens is not None
            assert [ids.tolist() for ids in row.tokens] == tokenize.ids(row.texts)


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_gets_no_data_but_where_it_is(folder: Path, kind: str) -> None:
    one = told(folder, unlike(300, groups=2), kind)
    numbered = Numbered([one.corpus])
    rows = numbered.rows([5, 299], [7, 1])
    sent = pickle.dumps(numbered)
    assert len(sent) < 1000
    assert pickle.loads(sent).rows([5, 299], [7, 1]) == rows


def test_a_corpus_has_the_rows_of_its_file_in_their_order(folder: Path) -> None:
    one = told(folder, unlike(50), "triplet")
    expected = [one.texts(row) for row in range(50)]
    assert list(one.corpus.all_texts()) == expected
    assert one.corpus.texts([9, 0, 9, 49]) == [expected[row] for row in (9, 0, 9, 49)]
    assert one.corpus.lengths.tolist() == [[*map(len, texts)] for texts in expected]
