"""Define settings as dataclass fields that carry their meaning and bounds."""

from dataclasses import field
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with its meaning and bounds: least <= value, above < value < below."""
    metadata = {"help": help, "least": least, "above": above, "below": below}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)
