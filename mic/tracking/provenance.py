"""With what something was computed: versions of packages, the commit of a checkout."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "mic-embeddings",
    "torch",
    "lightning",
    "transformers",
    "datasets",
    "numpy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        **{package: version(package) for package in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of the checkout that mic runs from; None outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
