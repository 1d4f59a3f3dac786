"""The run-time checker of types and shapes in the tests: beartype, by way of jaxtyping.

An int passes for a float, as PEP 484 says. Functions within functions are left to mypy: each would
be looked at anew whenever it is made, which takes longer than what it does.
"""

import os
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# where tensors are made; the order of batches has loops that the checks make three times as slow
TENSORS = [
    f"mic.{name}"
    for name in (
        "nested",
        "collectives",
        "losses",
        "metrics",
        "objective",
        "encoder",
        "evaluation",
        "data.batch",
        "train.untrained_baselines",
    )
]
PACKAGES = {"none": [], "tensors": TENSORS, "all": ["mic"]}


def install() -> None:
    """Check the packages that the environment variable SHAPES names, from their import on."""
    install_import_hook(PACKAGES[os.environ.get("SHAPES", "tensors")], "typecheck.checked")


check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if "<locals>" in function.__qualname__ else check(function)
