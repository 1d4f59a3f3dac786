"""The `command` of a sweep file: what starts a trial, its config, and how overrides are written."""

import os
import re
import sys
from typing import Any

import yaml

from mic.errors import InputError

MACRO = "${args_no_hyphens}"
EXAMPLE = f'[mic, train, configs/quickstart.yaml, "{MACRO}"]'


def command(given: Any, origin: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """What starts a trial, the config, and the overrides that all trials share.

    >>> launcher, config, overrides = command(["mic", "train", "x.yaml", "seed=1", MACRO], "")
    >>> launcher[1:], config, overrides
    (('-m', 'mic.cli', 'train'), 'x.yaml', ('seed=1',))
    """
    if not isinstance(given, list) or MACRO not in given:
        raise InputError(f"{origin}: command {given!r}: write it as {EXAMPLE}")
    words = [filled(str(word), origin) for word in given if word not in ("${env}", MACRO)]
    if words.count("train") != 1 or len(words) < words.index("train") + 2:
        raise InputError(f"{origin}: command {given!r}: no `train CONFIG` in it, as in {EXAMPLE}")
    at = words.index("train") + 1
    launcher, (config, *overrides) = words[:at], words[at:]
    known = {
        "mic": [sys.executable, "-m", "mic.cli"],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
        "python": [sys.executable],
        "python3": [sys.executable],
    }
    for word in overrides:
        if "=" not in word or word.startswith("-"):
            raise InputError(f"{origin}: command: {word!r} after the config: only key=value belong")
    launcher = [*known.get(launcher[0], launcher[:1]), *launcher[1:]]
    return tuple(launcher), config, tuple(overrides)


def filled(word: str, origin: str) -> str:
    """A word of the command with W&B's macros filled in."""
    if word == "${interpreter}":
        return "python"
    word = re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", lambda at: os.environ.get(at[1], at[1]), word)
    if word.startswith("${"):
        raise InputError(f"{origin}: command: {word}: mic takes key=value; write {MACRO}")
    return word


def written(value: Any) -> str:
    """A value as an override takes it.

    >>> written(1e-05), written([16, 64]), written(None), written("a: b"), written({"weight": 1})
    ('1e-05', '[16, 64]', 'null', "'a: b'", '{weight: 1}')
    """
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and yaml.safe_load(value) == value:
            return value
        return "'" + value.replace("'", "''") + "'"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9).strip()
    return repr(value) if isinstance(value, float) else text.removesuffix("\n...")
