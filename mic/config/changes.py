"""What sets two configs apart, and which of it changes nothing of what is trained."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mic.config.diff import dotted
from mic.config.schema import Config

# what a run is called, where things are, how it is shown, and how it is shared out
HARMLESS = (
    "name",
    "runs",
    "logging.*",
    "data.num_workers",
    "data.*.path",
    "evaluation.*.path",
    "evaluation.*.corpus",
    "evaluation.*.queries",
    "evaluation.*.qrels",
    "teacher.folder",
    "trainer.devices",
    "trainer.strategy",
    "trainer.save_every",
)


def differences(old: Config, new: Config) -> dict[str, list[Any]]:
    """The keys whose values differ, with the old and the new value; null for one that is not there.

    >>> differences(Config(seed=1), Config(seed=2))
    {'seed': [1, 2]}
    """
    before, now = dotted(old), dotted(new)
    keys = [*before, *(key for key in now if key not in before)]
    found = {key: [before.get(key), now.get(key)] for key in keys}
    return {key: values for key, values in found.items() if values[0] != values[1]}


def harmless(key: str, values: Sequence[Any]) -> bool:
    """Whether a run may go on with another value of a key.

    >>> harmless("trainer.max_steps", [10, 20]), harmless("trainer.max_steps", [20, 10])
    (True, False)
    >>> harmless("data.train.mine.path", ["a", "b"]), harmless("seed", [1, 2])
    (True, False)
    """
    if key == "trainer.max_steps":
        return bool(values[1] > values[0])
    return any(fnmatchcase(key, pattern) for pattern in HARMLESS)


def within(key: str, allowed: str) -> bool:
    """Whether a key is the allowed one or of the allowed section."""
    return key == allowed or key.startswith(f"{allowed}.")
