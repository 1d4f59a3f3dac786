"""Read a suite: the tasks that models are evaluated by, as a YAML file in the config's format."""

import dataclasses
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mic.config.loading import check_bounds, config_layers, find_config, merge_config
from mic.config.schema_data import RetrievalFiles, Source, TasksConfig
from mic.data.sources.files import file_format
from mic.errors import InputError


def read_suite(name: str, data: Path | None) -> TasksConfig:
    """The tasks of a suite: a file, or the name of a shipped one, such as `paper`.

    Paths start at `data` where it is given; else they are files, or data sets of the Hub, as in
    any config.

    Raises InputError for an unknown suite or key, a task without its columns, missing files.
    """
    brought = f"configs/suite/{name}.yaml"
    if name.endswith(".yaml"):
        file = find_config(name, "suite", "configs/suite/paper.yaml")
    else:
        file = find_config(
            brought, "suite", f"configs/suite/paper.yaml; a benchmark of mteb is mteb:{name}"
        )
    merged = OmegaConf.structured(TasksConfig)
    assert isinstance(merged, DictConfig)
    for layer, content in config_layers(file, ()):
        merged = merge_config(merged, content, str(layer))
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise InputError(f"{file}: {', '.join(missing)}: not set; give it a value")
    suite = OmegaConf.to_object(merged)
    assert isinstance(suite, TasksConfig)
    check_bounds(suite, "")
    names = [task for kind in vars(suite).values() for task in kind]
    if not names:
        raise InputError(f"{file}: names no task; start from configs/suite/paper.yaml")
    taken = sorted({task for task in names if names.count(task) > 1 or task == "meta"})
    if taken:
        raise InputError(f"{file}: task {taken[0]!r}: the name is taken; give each its own")
    return with_paths(suite, file, data)


def chosen_tasks(suite: TasksConfig, names: Sequence[str]) -> TasksConfig:
    """The suite's tasks of these names; all where none is named. Raises InputError for others."""
    kinds = vars(suite)
    known = [task for kind in kinds.values() for task in kind]
    for name in names:
        if name not in known:
            raise InputError(
                f"--tasks {name}: the suite has no such task{nearest_names(name, known)}"
            )
    if not names:
        return suite
    return TasksConfig(
        **{
            kind: {name: of for name, of in tasks.items() if name in names}
            for kind, tasks in kinds.items()
        }
    )


def nearest_names(name: str, known: Sequence[str]) -> str:
    """The nearest known names, ignoring case, as the end of a message.

    >>> nearest_names("sts21", ["STS12", "BIOSSES"]), nearest_names("x", ["STS12"])
    ('; did you mean STS12?', '')
    """
    lower = {name_.lower(): name_ for name_ in known}
    near = [lower[name_] for name_ in get_close_matches(name.lower(), lower, 3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def with_paths(suite: TasksConfig, file: Path, data: Path | None) -> TasksConfig:
    """The suite with `data` before its paths. Raises InputError where a file is missing."""
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: no such folder; name the one that holds the data sets")
    absent = []
    for of, field in paths(suite):
        path = str(getattr(of, field))
        if data is not None and not path.startswith("builtin:"):
            setattr(of, field, str(data / path))
        path = str(getattr(of, field))
        is_file = data is not None or file_format(Path(path)) is not None
        if is_file and not path.startswith("builtin:") and not path_exists(path):
            absent.append(path)
    if absent:
        cure = "put them there" if data else "name the folder that holds them with --data DIR"
        raise InputError(f"suite {file}: no {', no '.join(absent)}; {cure}")
    return suite


def path_exists(path: str) -> bool:
    return any(sign in path for sign in "*?[") or Path(path).expanduser().exists()


def paths(node: Any) -> Iterator[tuple[Any, str]]:
    """Every object with a path in it, and the field that holds it."""
    if isinstance(node, Source):
        yield node, "path"
    elif isinstance(node, RetrievalFiles):
        yield from ((node, item.name) for item in dataclasses.fields(node))
    elif isinstance(node, dict):
        for value in node.values():
            yield from paths(value)
    elif dataclasses.is_dataclass(node):
        for item in dataclasses.fields(node):
            yield from paths(getattr(node, item.name))
