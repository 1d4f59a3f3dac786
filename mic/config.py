"""Reading configs: YAML files over the defaults of mic.settings, `key=value` overrides over both.

`load(path, *overrides)` merges, in this order, the defaults, the files that `base:` names, the
file itself and the overrides. Nothing heavy is imported here, so that `mic --help` answers at once.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mic.errors import InputError
from mic.settings import Config

__all__ = ["Config", "keys", "load", "to_yaml"]

HERE = Path(__file__).parent
BROUGHT = (HERE / "configs", HERE.parent / "configs")  # in a wheel, in a checkout


def load(path: str | Path, *overrides: str) -> Config:
    """Read a config file, its bases and the overrides into a checked `Config`.

    Raises InputError naming the file or override, the key and the cure: for a file that is missing
    or not YAML, an unknown key, a value of the wrong type or out of bounds, widths not increasing.
    """
    merged = OmegaConf.structured(Config)
    for file, content in layers(find(path), ()):
        merged = merge(merged, content, str(file))
    for text in overrides:
        merged = merge(merged, parse_override(text), f"override {text!r}")
    return finish(merged, str(path))


def finish(merged: DictConfig, origin: str) -> Config:
    """Resolve and check a merged config."""
    missing = OmegaConf.missing_keys(merged)
    if missing:
        raise InputError(f"{origin}: {', '.join(sorted(missing))}: not set; give it a value")
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(f"{origin}: {first_line(error)}") from None
    assert isinstance(config, Config)
    check(config)
    return config


def to_yaml(config: Config) -> str:
    """The resolved config as YAML of plain scalars, lists and dicts."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def find(path: str | Path) -> Path:
    """The file itself, or the one of that name among the configs that mic brings along."""
    name = Path(path).as_posix().removeprefix("configs/")
    for candidate in (Path(path), *(folder / name for folder in BROUGHT)):
        if candidate.is_file():
            return candidate
    raise InputError(f"config {path}: no such file; start from configs/quickstart.yaml")


def layers(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, DictConfig]]:
    """The files that make up a config, bases first, each with its content."""
    if path in above:
        raise InputError(f"{path}: is its own base by way of {above[-1]}; remove one `base:`")
    content = read(path)
    bases = content.pop("base", None) or []
    for base in [bases] if isinstance(bases, str) else bases:
        file = (path.parent / base).resolve()
        if not file.is_file():
            raise InputError(f"{path}: base {base!r}: no such file (paths start at this file)")
        yield from layers(file, (*above, path.resolve()))
    yield path, content


def read(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {one_line(error)}") from None
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from None
    if not isinstance(content, DictConfig):
        raise InputError(f"{path}: holds no `key: value` lines")
    return content


def parse_override(text: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"override {text!r}: write it as key=value, for example dims=[16,64]")
    try:
        return OmegaConf.from_dotlist([text])
    except yaml.YAMLError as error:
        raise InputError(f"override {text!r}: not readable: {one_line(error)}") from None


def merge(base: DictConfig, content: DictConfig, origin: str) -> DictConfig:
    """`content` over `base`, or an InputError that names origin, key and the nearest known key."""
    try:
        merged = OmegaConf.merge(base, content)
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key or error.key), first_line(error)
        if isinstance(error, ConfigKeyError):
            raise InputError(f"{origin}: unknown key {key!r}{suggestion(key)}") from None
        if "is not a ListConfig" in reason:
            reason = "expected a list, for example [16, 64]"
        raise InputError(f"{origin}: {key}: {reason}") from None
    assert isinstance(merged, DictConfig)
    return merged


def suggestion(key: str) -> str:
    """The nearest known key as a question."""
    known = [name for name, _, _ in keys(Config)]
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = get_close_matches(key, known, 1) or [
        by_last[last] for last in get_close_matches(key.rpartition(".")[2], by_last, 1)
    ]
    return f"; did you mean {near[0]!r}?" if near else "; `mic train --help` lists all keys"


def keys(schema: type, above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key below a dataclass: (dotted name, type, field); NAME stands for a free name."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        name, kind = above + item.name, hints[item.name]
        inner = get_args(kind)[1] if get_origin(kind) is dict else kind
        if is_dataclass(inner) and isinstance(inner, type):
            yield from keys(inner, f"{name}.NAME." if inner is not kind else f"{name}.")
        else:
            yield name, kind, item


def check(config: Config) -> None:
    """Refuse values that no run could use, naming key, value and cure."""
    check_bounds(config, "")
    for key, dims in (
        ("dims", config.dims),
        ("objective.dims", config.objective.dims),
        ("evaluation.dims", config.evaluation.dims),
    ):
        if any(low >= high for low, high in pairwise(dims)):
            hint = sorted(set(dims))
            raise InputError(f"{key} {dims}: widths must increase; did you mean {hint}?")
        if dims and dims[0] < 1:
            raise InputError(f"{key} {dims}: width {dims[0]} is below 1; remove it")
    if config.name != Path(config.name).name:
        raise InputError(f"name {config.name!r}: one folder name, no slashes; see `runs`")


def check_bounds(node: Any, above: str) -> None:
    for item in fields(node):
        name, value = above + item.name, getattr(node, item.name)
        children = value if isinstance(value, dict) else {}
        for key, child in children.items():
            check_bounds(child, f"{name}.{key}.")
        if is_dataclass(value):
            check_bounds(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            bounds = item.metadata
            if bounds["least"] is not None and not value >= bounds["least"]:
                raise InputError(f"{name}={value}: must be at least {bounds['least']}")
            if bounds["above"] is not None and not value > bounds["above"]:
                raise InputError(f"{name}={value}: must be above {bounds['above']}")
            if bounds["below"] is not None and not value < bounds["below"]:
                raise InputError(f"{name}={value}: must be below {bounds['below']}")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
