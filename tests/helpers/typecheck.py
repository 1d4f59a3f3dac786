"""The run-time type checker of the tests: beartype, an int passing for a float as PEP 484 says.

Functions within functions are left to mypy: each would be looked at anew whenever it is made, which
takes longer than what it does.
"""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if "<locals>" in function.__qualname__ else check(function)
