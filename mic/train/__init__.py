"""One training run: the Lightning module, its callbacks, exact resume."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mic.train.module import MICModule as MICModule
    from mic.train.resume.exact_resume import ExactResume as ExactResume
    from mic.train.run import train as train

PUBLIC = {  # imported when first used: a module below does not need the others
    "ExactResume": "mic.train.resume.exact_resume",
    "MICModule": "mic.train.module",
    "train": "mic.train.run",
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
