"""Choose the prompt before a text as mteb does for a sentence-transformers model."""

from pathlib import Path
from typing import Any, NamedTuple

from mic.encoder.loading import SETTINGS, read_json, read_modules
from mic.errors import InputError


class Prompts(NamedTuple):
    """Prompts by task, type of task, or query and document; and that of all other texts."""

    named: dict[str, str]
    default: str = ""


def read_prompts(folder: Path) -> Prompts:
    """The prompts of a model's folder, without those whose names mteb does not know.

    Raises InputError for a default prompt that does not exist, and for a pooling that skips
    prompts, which our encoder does not.
    """
    from mteb.models.abs_encoder import AbsEncoder

    settings = read_json(folder / SETTINGS, {})
    given = {name: prompt or "" for name, prompt in (settings.get("prompts") or {}).items()}
    # sentence-transformers adds the two where they are missing, so that mteb finds them
    given = {"query": "", "document": "", **given}
    default = settings.get("default_prompt_name")
    if default is not None and default not in given:
        raise InputError(
            f"{folder / SETTINGS}: default_prompt_name {default!r} is not among its prompts"
        )
    pooling = [
        folder / module["path"]
        for module in read_modules(folder)
        if module["type"].endswith(".Pooling")
    ]
    skips = pooling and read_json(pooling[0] / "config.json", {}).get("include_prompt") is False
    if skips and any(given.values()):
        raise InputError(
            f"{pooling[0]}: include_prompt is false, and mic's pooling does not leave out prompts; "
            "evaluate the model with mteb itself"
        )
    named, _ = AbsEncoder.validate_task_to_prompt_name(given, raise_for_invalid_keys=False)
    return Prompts(named, given[default] if default is not None else "")


def prompt_of(prompts: Prompts, task: Any, prompt_type: Any) -> str:
    """The prompt for a task's texts (mteb's metadata of it), which are queries, documents or None.

    The prompt of a task comes before that of its type, and both before those of all queries or
    documents.
    """
    from mteb.models.abs_encoder import get_prompt

    prompt: str | None = get_prompt(prompts.named, task, prompt_type)
    return prompts.default if prompt is None else prompt
