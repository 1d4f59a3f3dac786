"""Files to batches: corpora on disk, the order of batches, streams, the Lightning data module."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mic.data.datamodule import PairDataModule as PairDataModule

PUBLIC = {  # imported when first used: a module below does not need the others
    "PairDataModule": "mic.data.datamodule",
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
