"""Where what was computed once is kept for all runs of a user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MIC_CACHE`, or `mic` in the user's cache."""
    if own := os.environ.get("MIC_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mic"
