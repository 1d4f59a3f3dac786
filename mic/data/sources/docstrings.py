"""Build English training pairs from the docstrings of the installed libraries.

A quickstart should learn from real text without a download. The summary line of a docstring is the
query, the rest of it the document ("find the function from what it does"). Sources are read with
`ast` and never imported, so that a build runs none of their code. A module goes to one split as a
whole, chosen by a stable hash of its name: the test functions come from modules never trained on.
"""

import ast
import gzip
import hashlib
import importlib.util
import json
import platform
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.progress import track

from mic.data.sources.docstring_parsing import normalised, pair
from mic.errors import InputError
from mic.files import cache_folder, locked, replacing

VERSION = 1  # raise it whenever the rows of an unchanged installation change
SPLITS = ("train", "validation", "test")
STDLIB = "stdlib"
# What mic depends on, so that a developer and a user train on the same pairs. Not transformers:
# the docstrings of its models are copies of one another but for a name.
PACKAGES = (
    *(STDLIB, "numpy", "scipy", "pandas", "sklearn", "joblib", "sympy", "mpmath", "networkx"),
    *("matplotlib", "PIL", "torch", "torchmetrics", "lightning", "datasets", "huggingface_hub"),
    *("fsspec", "jinja2", "rich"),
)
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
OPENING_WORDS, BOILERPLATE = 16, 3

_SKIPPED = re.compile(
    r"(tests?|testing|idle_test|idlelib|lib2to3|turtledemo|(site|dist)-packages|__pycache__"
    r"|_vendor(ed)?|externals?|(test_.*|.*_test|conftest)\.py)"
)


class DocstringPair(TypedDict):
    """One pair, with the dotted names of the function or class and of its module."""

    summary: str
    body: str
    name: str
    module: str


def load_docstrings(split: str, packages: Sequence[str] = PACKAGES, progress: bool = True) -> Path:
    """The gzipped JSON lines of one split, built at the first call and taken from the cache after.

    The cache knows a package by its version alone: edit an installed source, and delete the file.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} of the docstrings: choose one of {', '.join(SPLITS)}")
    versions = [VERSION, platform.python_version(), *map(_version, sorted(set(packages)))]
    key = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:12]
    paths = {name: cache_folder() / f"docstrings-{name}-{key}.jsonl.gz" for name in SPLITS}
    if not paths[split].exists():
        cache_folder().mkdir(parents=True, exist_ok=True)
        with locked(cache_folder() / f".docstrings-{key}.lock"):  # of two processes one builds
            if not paths[split].exists():
                rows = build_docstrings(packages, progress)
                for name, path in paths.items():
                    _write(path, (row for row in rows if split_of(row["module"]) == name))
    return paths[split]


def build_docstrings(
    packages: Sequence[str] = PACKAGES, progress: bool = False
) -> list[DocstringPair]:
    """The pairs of those among `packages` that are installed, sorted by name, no text twice."""
    files = [file for package in sorted(set(packages)) for file in _sources(package)]
    if not files:
        raise InputError(
            f"packages {list(packages)}: none is installed; add {STDLIB!r}, always there"
        )
    console = Console(stderr=True)
    tracked = track(files, "Reading docstrings (once)", console=console, disable=not progress)
    rows = [row for path, module in tracked for row in extract(path, module)]
    return _unique(sorted(rows, key=lambda row: (row["name"], row["summary"], row["body"])))


def split_of(module: str) -> str:
    """The split of a module: 90 % train, 4 % validation, 6 % test, the same on every machine."""
    percent = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "big") % 100
    return "train" if percent < 90 else "validation" if percent < 94 else "test"


def extract(path: Path, module: str) -> list[DocstringPair]:
    """The pairs of one source file; none where it is not valid UTF-8 or not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, which the user cannot mend
            tree = ast.parse(path.read_text("utf-8-sig"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    pairs = ((name, pair(docstring)) for name, docstring in _documented(tree, module))
    return [
        DocstringPair(summary=p[0], body=p[1], name=name, module=module) for name, p in pairs if p
    ]


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Names and docstrings below a node, not looking into functions: what is local has no user."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            if docstring := ast.get_docstring(child):
                yield name, docstring
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, name)
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _documented(child, prefix)


def _unique(rows: Sequence[DocstringPair]) -> list[DocstringPair]:
    """Drop boilerplate, then every later row whose summary or body was there before.

    Bodies that begin alike ("X : array-like of shape (n_samples, n_features) ...") cannot tell
    which function was asked for: from `BOILERPLATE` summaries on, all of them go.
    """
    shared = Counter(body for _, body in {(normalised(r["summary"]), _opening(r)) for r in rows})
    summaries: set[str] = set()
    bodies: set[str] = set()
    unique = []
    for row in rows:
        summary, body = normalised(row["summary"]), normalised(row["body"])
        if shared[_opening(row)] < BOILERPLATE and summary not in summaries and body not in bodies:
            unique.append(row)
            summaries.add(summary)
            bodies.add(body)
    return unique


def _opening(row: DocstringPair) -> str:
    return " ".join(normalised(row["body"]).split()[:OPENING_WORDS])


def _sources(package: str) -> list[tuple[Path, str]]:
    """The source files of a package and their dotted names, found without importing it."""
    if package == STDLIB:
        return _modules(Path(sysconfig.get_paths()["stdlib"]), "")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None  # a dot imports
    roots = sorted(spec.submodule_search_locations or []) if spec else []
    return [file for root in roots for file in _modules(Path(root), package)]


def _modules(root: Path, prefix: str) -> list[tuple[Path, str]]:
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if path.is_file() and not any(_SKIPPED.fullmatch(part) for part in parts):
            stem = parts[:-1] if path.name == "__init__.py" else (*parts[:-1], path.stem)
            modules.append((path, ".".join(filter(None, (prefix, *stem)))))
    return modules


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(DISTRIBUTIONS.get(package, package))}"
    except metadata.PackageNotFoundError:
        return package


def _write(path: Path, rows: Iterable[DocstringPair]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))
