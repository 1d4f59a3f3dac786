"""Texts to embeddings: backbone, pooling, head, tokenizer, teachers, embeddings on disk."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mic.encoder.encoder import Encoder as Encoder

PUBLIC = {  # imported when first used: a module below does not need the others
    "Encoder": "mic.encoder.encoder",
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
