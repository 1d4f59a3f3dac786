"""What the docstring pairs claim: clean text, no leak from test to train, the same bytes again."""

import gzip
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from mic.data.sources import docstrings
from mic.data.sources.docstring_parsing import BODY_CHARS
from mic.data.sources.docstrings import (
    SPLITS,
    build_docstrings,
    load_docstrings,
    normalised,
    pair,
    split_of,
)
from mic.errors import InputError

PACKAGE = "tiny_package_of_docstrings"
BODY = "The second paragraph explains at some length what number {} has to do with it."


def write(root: Path, sources: dict[str, str], package: str = PACKAGE) -> None:
    for name, source in sources.items():
        path = root / package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")


def function(name: str, docstring: str) -> str:
    return f"def {name}():\n    {docstring!r}\n"


def numbered(number: int) -> str:
    words = f"Compute the quantity named after number {number}.\n\n{BODY.format(number)}"
    return function(f"f{number}", words)


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def run(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter in the repository prints."""
    command = [sys.executable, "-c", code, *arguments]
    root = Path(__file__).parents[3]
    env = os.environ | environment
    return subprocess.run(
        command, cwd=root, env=env, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, and the cache in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_first_sentence_asks_and_the_rest_answers() -> None:
    docstring = """Rank the documents, e.g. by cosine,
    for every query. Ties go to the earlier one.

    The queries are compared with all documents at once."""
    assert pair(docstring) == (
        "Rank the documents, e.g. by cosine, for every query.",
        "Ties go to the earlier one. The queries are compared with all documents at once.",
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (":func:`~numpy.linalg.norm`", "norm"),
        (":class:`the norm <numpy.linalg.norm>`", "the norm"),
        (":py:meth:`numpy.norm`", "numpy.norm"),
        ("``norm``", "norm"),
        ("`the norm <https://numpy.org>`_", "the norm"),
        ("[the norm](https://numpy.org)", "the norm"),
        ("[`~numpy.linalg.norm`]", "norm"),
        ("**norm**", "norm"),
        ("|norm|", "norm"),
        (r"\*\*kwargs", "**kwargs"),
        ("**kwargs", "**kwargs"),
        ("``__init__``", "__init__"),
        ("`a`. Then `b`", "a. Then b"),
        ("norm [1]_", "norm"),
    ],
)
def test_markup_reads_as_its_text(written: str, read: str) -> None:
    texts = pair(
        f"Return what the user asked for.\n\nSee {written} for the length of every vector."
    )
    assert texts is not None
    assert texts[1] == f"See {read} for the length of every vector."


def test_code_rules_and_directives_leave_the_body_and_prose_stays() -> None:
    docstring = """Scale every row of a matrix.

.. versionadded:: 1.2
    Also for sparse input.

Rows of length zero stay as they are.

.. note:: Columns are never scaled.

Parameters
----------
X : array_like
    The matrix, given row by row.

>>> scale([[3, 4]])
array([[0.6, 0.8]])

Like this::

    scale(secret_literal)

Examples
--------
An example with its words.

Notes
-----
Runs in linear time.

```python
scale(secret_fence)
```
"""
    assert pair(docstring) == (
        "Scale every row of a matrix.",
        "Rows of length zero stay as they are. Columns are never scaled. Parameters X : array_like"
        " The matrix, given row by row. Like this: Notes Runs in linear time.",
    )


@pytest.mark.parametrize(
    "signature",
    [
        "add(x1, x2, /, out=None, *, where=True)",
        "linear(input, weight, bias=None) -> Tensor",
        "np.add(x1,\n    x2=(1, 2)) -> y",
        "str(object='') -> str\nstr(bytes[, encoding]) -> str",
    ],
)
def test_signature_lines_are_no_summary(signature: str) -> None:
    texts = pair(f"{signature}\n\nAdd the two arguments.\n\n{BODY}")
    assert texts is not None
    assert texts[0] == "Add the two arguments."


@pytest.mark.parametrize(
    "docstring",
    [
        "Sort it.\n\n" + BODY,  # three words would do, two do not
        "Sort the given list.\n\nIn place, and stable.",
        "Sort the given list and return nothing at all.",
        "Sort the given list.\n\nHow to sort the GIVEN  `list`. " + BODY,  # the body says it again
        "Sortiert die übergebene Ääöüßöä Üüßßßßß Öööööö.\n\n" + BODY,
        "Sort the given list.\n\n" + "1.5 2.25 == {} [] () 3e-7 " * 8,
        "Any of the following kinds:\n\n" + BODY,
        ":param items: the list that is to be sorted\n:param key: what it is to be sorted by, if",
        "",
    ],
)
def test_what_makes_no_question_and_answer_is_dropped(docstring: str) -> None:
    assert pair(docstring) is None


def test_long_bodies_end_with_a_whole_word() -> None:
    words = " ".join(f"word{'x' * (i % 7)}" for i in range(400))
    texts = pair(f"Say a great many words.\n\n{words}")
    assert texts is not None
    assert BODY_CHARS - 12 < len(texts[1]) <= BODY_CHARS
    assert words.startswith(texts[1] + " ")


def test_functions_methods_and_classes_are_named_after_module_and_class(tree: Path) -> None:
    source = f'''
class Outer:
    """Hold the numbers of a tiny world.\n\n    {BODY.format("zero")}"""
    class Inner:
        async def method(self):
            """Wait for the inner number.\n\n            It is {BODY.format("one")}"""
            def local():
                """Nobody can call this function.\n\n                So {BODY.format("two")}"""
if True:
    def guarded():
        """Return the number of guards.\n\n        Now {BODY.format("three")}"""
'''
    write(tree, {"__init__": "", "sub/__init__": "", "sub/leaf": source})
    module = f"{PACKAGE}.sub.leaf"
    rows = build_docstrings([PACKAGE])
    assert [row["name"] for row in rows] == [
        f"{module}.{name}" for name in ("Outer", "Outer.Inner.method", "guarded")
    ]
    assert {row["module"] for row in rows} == {module}


def test_a_text_occurs_once_over_all_modules(tree: Path) -> None:
    twice = "Return the number of things.\n\nThings are counted one by one until none is left."
    respelt = "Return  the NUMBER of `things`!\n\nAnother answer that has nothing to do with it."
    answer = "Count whatever there is.\n\nThings are counted, one by one, until none is left!"
    write(
        tree,
        {
            "__init__": "",
            "b": function("same", twice) + function("respelt", respelt) + function("again", twice),
            "a": function("first", twice),
            "c": function("answer", answer),
        },
    )
    assert [row["name"] for row in build_docstrings([PACKAGE])] == [f"{PACKAGE}.a.first"]


def test_bodies_that_begin_alike_are_boilerplate(tree: Path) -> None:
    opening = (
        "Parameters X : array-like of shape (n_samples, n_features) with the input samples of it"
    )
    shared = [
        function(f"shared{i}", f"Fit the model in way {i}.\n\n{opening}, and {'x' * i}")
        for i in range(1, docstrings.BOILERPLATE + 1)
    ]
    write(tree, {"__init__": "", "a": "".join(shared) + numbered(1)})
    assert [row["name"] for row in build_docstrings([PACKAGE])] == [f"{PACKAGE}.a.f1"]


def test_unreadable_files_and_tests_are_passed_over(tree: Path) -> None:
    write(
        tree,
        {
            "__init__": "raise RuntimeError('imported')",
            "good": "pattern = '\\d'\n" + numbered(1),
            "broken": "def f(:\n" + numbered(2),
            "tests/helper": numbered(3),
            "test_it": numbered(4),
            "conftest": numbered(5),
            "testament": numbered(6),
        },
    )
    (tree / PACKAGE / "latin.py").write_bytes(f"# \xe9\n{numbered(7)}".encode("latin-1"))
    (tree / PACKAGE / "null.py").write_bytes(f"# \0\n{numbered(8)}".encode())
    names = [row["name"] for row in build_docstrings([PACKAGE])]
    assert names == [f"{PACKAGE}.good.f1", f"{PACKAGE}.testament.f6"]
    with pytest.raises(InputError):
        build_docstrings(
            [f"{PACKAGE}.good"]
        )  # to find what has a dot Python imports what is before it


def test_modules_are_split_whole_and_by_name_alone() -> None:
    named = {"rich.table": "train", "socket": "validation", "pandas.core.frame": "test"}
    assert {module: split_of(module) for module in named} == named
    counts = [split_of(f"package.module{i}") for i in range(10_000)]
    shares = {split: counts.count(split) / len(counts) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.90, "validation": 0.04, "test": 0.06}, abs=0.01)


def test_no_module_and_no_text_is_in_two_splits(tree: Path) -> None:
    write(
        tree, {"__init__": "", **{f"m{i}": numbered(i) + numbered(i + 1) for i in range(0, 300, 2)}}
    )
    splits = [read(load_docstrings(split, [PACKAGE], progress=False)) for split in SPLITS]
    assert all(splits)
    rows = list(chain(*splits))
    assert len(rows) == 300
    for key in ("name", "summary", "body"):
        assert len({normalised(row[key]) for row in rows}) == len(rows)
    modules = [{row["module"] for row in split} for split in splits]
    assert len(set.union(*modules)) == sum(map(len, modules))


def test_another_process_in_another_folder_writes_the_same_bytes(tree: Path) -> None:
    sources = {f"m{i}": numbered(i) for i in range(40)}
    write(tree, {"__init__": "", **sources})
    write(tree / "elsewhere", {**dict(reversed(sources.items())), "__init__": ""})
    files = [load_docstrings(split, [PACKAGE], progress=False) for split in SPLITS]
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "from mic.data.sources.docstrings import load_docstrings, SPLITS\n"
    code += "for split in SPLITS: print(load_docstrings(split, [sys.argv[2]], progress=False))"
    environment = {"MIC_CACHE": str(tree / "other"), "PYTHONHASHSEED": "7"}
    there = run(code, str(tree / "elsewhere"), PACKAGE, **environment).split()
    assert [Path(path).name for path in there] == [path.name for path in files]
    assert {path.read_bytes()[4:8] for path in files} == {bytes(4)}  # gzip's time of writing
    assert [Path(path).read_bytes() for path in there] == [path.read_bytes() for path in files]


def test_a_second_load_reads_no_source(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tree, {"__init__": "", "a": numbered(1)})
    first = load_docstrings("train", [PACKAGE])
    assert "docstrings" in capsys.readouterr().err
    rows = read(first)
    (tree / PACKAGE / "a.py").unlink()
    assert load_docstrings("train", [PACKAGE]) == first
    assert read(first) == rows
    assert capsys.readouterr().err == ""
    files = [path for path in tree.glob("cache/*") if path.suffix != ".lock"]
    assert sorted(files) == sorted(load_docstrings(split, [PACKAGE]) for split in SPLITS)


def test_the_file_name_tells_versions_apart(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, {"__init__": "", "a": numbered(1)})
    old = load_docstrings("test", [PACKAGE], progress=False)
    monkeypatch.setattr(docstrings, "VERSION", docstrings.VERSION + 1)
    assert load_docstrings("test", [PACKAGE], progress=False) != old


def test_a_failed_write_leaves_no_file_of_that_name(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bytes:
        raise OSError("no space left")

    write(tree, {"__init__": "", "a": numbered(1)})
    monkeypatch.setattr(gzip, "compress", full)
    with pytest.raises(OSError, match="no space"):
        load_docstrings("train", [PACKAGE], progress=False)
    assert not list(tree.glob("cache/*.gz"))


def test_unknown_split_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"'valid'.*train, validation, test"):
        load_docstrings("valid")


def test_packages_that_are_not_installed_are_passed_over_unless_all_are(tree: Path) -> None:
    write(tree, {"__init__": "", "a": numbered(1)})
    assert len(build_docstrings(["no_such_package", PACKAGE])) == 1
    with pytest.raises(InputError, match=r"\['no_such_package'\].*add 'stdlib'"):
        build_docstrings(["no_such_package"])


def test_real_packages_give_pairs_without_being_imported() -> None:
    code = "import sys; from mic.data.sources.docstrings import build_docstrings\n"
    code += "rows = build_docstrings(['email', 'xml'])\n"
    code += "assert 'xml' not in sys.modules; print(*(row['name'] for row in rows))"
    names = run(code).split()
    assert len(names) > 50
    assert "email.message.Message.get_payload" in names
    assert any(name.startswith("xml.") for name in names)
