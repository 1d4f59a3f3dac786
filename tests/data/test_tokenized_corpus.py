"""Tokens kept on disk: what calling would make, found again by what they depend on."""

import json
import pickle
from pathlib import Path

import pytest
from sentences import answer, sentence
from transformers import AutoTokenizer

from mic.config.schema_data import CorpusConfig
from mic.data.corpus import Corpus, open_corpus, tokenize_corpus
from mic.encoder.tokenizer import Tokenize


@pytest.fixture
def tokenize(model_folder: Path) -> Tokenize:
    return Tokenize(AutoTokenizer.from_pretrained(model_folder), max_length=16)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "pairs.jsonl"
    rows = [{"a": sentence(n) + " and" * (n % 20), "b": answer(n)} for n in range(50)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_corpus("pairs", CorpusConfig(str(file), ["a", "b"]))


def test_tokens_are_those_of_each_text_alone(corpus: Corpus, tokenize: Tokenize) -> None:
    tokens = tokenize_corpus(corpus, tokenize)
    alone = [[tokenize.ids([text])[0] for text in row] for row in corpus.texts(range(50))]
    assert [[ids.tolist() for ids in row] for row in tokens.texts(range(50))] == alone
    assert tokens.lengths.tolist() == [[len(ids) for ids in row] for row in alone]
    assert tokens.lengths.max() == 16
    assert [[ids.tolist() for ids in row] for row in tokens.texts([7, 3])] == [alone[7], alone[3]]


def test_tokens_are_made_once_whatever_the_tokenizer_did_before(
    corpus: Corpus, tokenize: Tokenize
) -> None:
    """A fast tokenizer remembers how the last call padded and cut."""
    first = tokenize_corpus(corpus, tokenize)
    written = (first.folder / "ids.i32").stat().st_mtime_ns
    again = Tokenize(tokenize.tokenizer, 16, multiple=8)
    again(["the cat", "a"])
    again.uncut(["the cat"])
    assert tokenize_corpus(corpus, again).folder == first.folder
    assert (first.folder / "ids.i32").stat().st_mtime_ns == written


def test_another_cut_or_vocabulary_has_other_tokens(corpus: Corpus, tokenize: Tokenize) -> None:
    shorter = Tokenize(tokenize.tokenizer, 8)
    assert tokenize_corpus(corpus, shorter).folder != tokenize_corpus(corpus, tokenize).folder
    before = tokenize.fingerprint
    tokenize.tokenizer.add_tokens(["zebra"])
    assert Tokenize(tokenize.tokenizer, 16).fingerprint != before


def test_what_travels_to_a_worker_is_a_path(corpus: Corpus, tokenize: Tokenize) -> None:
    tokens = tokenize_corpus(corpus, tokenize)
    assert tokens.lengths.sum() > 0  # mapped here already
    packed = pickle.dumps(tokens)
    assert len(packed) < 1000
    assert pickle.loads(packed).lengths.tolist() == tokens.lengths.tolist()


def test_a_tokenizing_that_breaks_off_leaves_nothing(
    corpus: Corpus, tokenize: Tokenize, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Tokenize, "ids", lambda *_: [][0])
        with pytest.raises(IndexError):
            tokenize_corpus(corpus, tokenize)
    assert len(tokenize_corpus(corpus, tokenize).texts(range(50))) == 50
