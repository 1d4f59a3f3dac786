"""The arrows of the house: what may import what."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

MIC = Path(__file__).parents[1] / "mic"
PURE = ("nested", "losses", "pooling", "geometry", "metrics", "classification", "objective")
PURE += ("quantized",)
HEAVY = {"lightning", "transformers", "wandb", "datasets"}


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module_of(file: Path) -> str:
    """A file's name as one imports it; a package is its __init__."""
    return ".".join(("mic", *file.relative_to(MIC).with_suffix("").parts)).removesuffix(".__init__")


IMPORTS = {
    module_of(file): imported(file)
    for file in MIC.rglob("*.py")
    if file.parent != MIC or file.name != "__init__.py"
}


def reached(name: str) -> set[str]:
    """What importing a module of mic brings in, by way of mic's own modules."""
    found: set[str] = set()
    ahead = {name}
    while ahead:
        found |= ahead
        ahead = set().union(*(IMPORTS.get(module, set()) for module in ahead)) - found
    return found


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_of_tensors_know_no_framework(name):
    assert not {module.split(".")[0] for module in reached(f"mic.{name}")} & HEAVY


def test_arrows_run_one_way():
    TopologicalSorter(  # a package may name itself to reach what is in it
        {name: found & IMPORTS.keys() - {name} for name, found in IMPORTS.items()}
    ).prepare()  # raises CycleError naming the cycle


def test_no_file_is_longer_than_three_hundred_lines():
    lengths = {str(file): len(file.read_text().splitlines()) for file in MIC.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
