"""Load configs: YAML files over the schema's defaults, `key=value` overrides over both.

`load(path, *overrides)` merges, in this order, the defaults, the files that `base:` names, the
file itself and the overrides. Nothing heavy is imported here, to keep `mic --help` fast.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mic.config.schema import Config
from mic.config.schema_data import TasksConfig
from mic.errors import InputError

__all__ = ["Config", "defaults", "keys", "load", "to_yaml"]

HERE = Path(__file__).parents[1]
BROUGHT = (HERE / "configs", HERE.parent / "configs")  # in a wheel, in a checkout
LIST = "expected a list, for example [16, 64]"


def load(path: str | Path, *overrides: str) -> Config:
    """Read a config file, its bases and the overrides into a checked `Config`.

    Raises InputError naming the file or override, the key and the cure: for a file that is missing
    or not YAML, an unknown key, a value of the wrong type or out of bounds, widths not increasing.
    """
    merged = defaults()
    for file, content in config_layers(find_config(path), ()):
        if content and content.keys() <= {item.name for item in fields(TasksConfig)}:
            raise InputError(f"{file}: a suite; use it with `mic evaluate MODEL --suite {file}`")
        merged = merge_config(merged, content, str(file))
    for text in overrides:
        content = with_nulls(merged, parse_override(text))
        merged = merge_config(merged, content, f"override {text!r}")
    return resolve_config(merged, str(path))


@cache
def defaults() -> DictConfig:
    """Every setting at its default; made once, because a merge copies them."""
    config = OmegaConf.structured(Config)
    assert isinstance(config, DictConfig)
    return config


def resolve_config(merged: DictConfig, origin: str) -> Config:
    """Resolve and check a merged config."""
    try:
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise InputError(f"{origin}: {', '.join(sorted(missing))}: not set; give it a value")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise InputError(f"{origin}: {key}{first_line(error)}") from None
    assert isinstance(config, Config)
    check_config(config)
    return config


def to_yaml(config: Config) -> str:
    """The config as YAML of plain scalars, lists and dicts."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def find_config(
    path: str | Path, what: str = "config", example: str = "configs/quickstart.yaml"
) -> Path:
    """The file itself, or the one of that name among the configs that come with mic."""
    name = Path(path).as_posix().removeprefix("configs/")
    for candidate in (Path(path), *(folder / name for folder in BROUGHT)):
        if candidate.is_file():
            return candidate
    raise InputError(f"{what} {path}: no such file; start from {example}")


def config_layers(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, DictConfig]]:
    """The files that make up a config, bases first, each with its content."""
    if path in above:
        raise InputError(f"{path}: is its own base by way of {above[-1]}; remove one `base:`")
    content = read_yaml(path)
    if "parameters" in content and "method" in content:
        raise InputError(f"{path}: a sweep file; run it with `mic sweep {path}`")
    plain: dict[str, Any] = OmegaConf.to_container(content)  # type: ignore[assignment]
    bases = plain.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise InputError(f"{path}: base {bases!r}: expected a file, or a list of files")
    for base in bases:
        file = (path.parent / base).resolve()
        if not file.is_file():
            raise InputError(f"{path}: base {base!r}: no such file (paths start at this file)")
        yield from config_layers(file, (*above, path.resolve()))
    yield path, OmegaConf.create(plain)


def read_yaml(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {joined_lines(error)}") from None
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {error.full_key}: {first_line(error)}") from None
    except OSError as error:
        if error.errno is None:  # OmegaConf's, for a file that is one number
            raise InputError(f"{path}: holds no `key: value` lines") from None
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
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"override {text!r}: not readable: {joined_lines(error)}") from None


def with_nulls(base: DictConfig, content: DictConfig) -> DictConfig:
    """An override's content with null for the text None, which W&B's agents write for it.

    Where a key cannot be null, None stays a text.
    """
    merged = content
    for path, value in leaf_values(OmegaConf.to_container(content)):
        if value == "None" and accepts(base, path, None):
            merged = OmegaConf.merge(merged, nested(path, None))  # type: ignore[assignment]
    return merged


def accepts(base: DictConfig, path: tuple[Any, ...], value: Any) -> bool:
    """Whether a config takes a value at a key."""
    try:
        OmegaConf.merge(base, nested(path, value))
    except (OmegaConfBaseException, TypeError):
        return False
    return True


def nested(path: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    """A value below the keys that lead to it."""
    for key in reversed(path):
        value = {key: value}
    section: dict[Any, Any] = value
    return section


def merge_config(base: DictConfig, content: DictConfig, origin: str) -> DictConfig:
    """`content` over `base`, or an InputError that names origin, key and the nearest known key."""
    try:
        merged = OmegaConf.merge(base, content)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        raise InputError(f"{origin}: unknown key {key!r}{suggest_key(key)}") from None
    except (OmegaConfBaseException, TypeError) as error:  # TypeError: a list over a section
        key, reason = first_refused(base, content), first_line(error)
        if "is not a ListConfig" in reason:
            reason = LIST
        elif "is not a subclass" in reason or "incompatible container" in reason:
            reason = expected_kind(base, key)
        raise InputError(f"{origin}: {key}: {reason}") from None
    assert isinstance(merged, DictConfig)
    return merged


def expected_kind(base: DictConfig, key: str) -> str:
    """What a key expects, where a list, a section and a single value were mixed up."""
    for above in accumulate(key.split("."), "{}.{}".format):  # dims.0=3: the list is at dims
        if isinstance(OmegaConf.select(base, above), ListConfig):
            return LIST
    return "is a section; set the keys in it (`mic train --help` lists them)"


def first_refused(base: DictConfig, content: DictConfig) -> str:
    """The key of the first value in `content` that `base` does not take."""
    for path, value in leaf_values(OmegaConf.to_container(content)):
        if not accepts(base, path, value):
            return ".".join(map(str, path))
    raise AssertionError("no value is refused alone")


def leaf_values(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The values of nested dicts, each with the keys that lead to it."""
    if not isinstance(node, dict) or not node:
        yield above, node
        return
    for key, value in node.items():
        yield from leaf_values(value, (*above, key))


def suggest_key(key: str) -> str:
    """The nearest known key as a question."""
    known = [name for name, _, _ in keys(Config)]
    known += sorted({name.partition(".")[0] for name in known if "." in name})  # sections
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


def check_config(config: Config) -> None:
    """Raise an InputError, with key, value and cure, for values that no run could use."""
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
    aligned = config.objective.align_layers
    for layer in aligned:
        if isinstance(layer, str) and layer != "output" and not is_share(layer):
            raise InputError(
                f"objective.align_layers {aligned}: no layer {layer!r}; write its number, a share "
                "of the depth between 0 and 1 (1/2), or output"
            )
    if not aligned and config.objective.gamma:
        raise InputError("objective.align_layers []: name a layer, or set objective.gamma=0")
    check_teacher(config)
    if config.trainer.batch_tokens is not None and config.data.tokenize != "ahead":
        raise InputError(
            f"trainer.batch_tokens={config.trainer.batch_tokens}: counts tokens that are there; "
            "set data.tokenize=ahead"
        )
    if config.name != Path(config.name).name or config.name in ("", ".."):
        raise InputError(f"name {config.name!r}: one folder name, no slashes; see `runs`")


def is_share(text: str) -> bool:
    """Whether a text is a fraction between 0 and 1."""
    try:
        return 0 < Fraction(text) < 1
    except (ValueError, ZeroDivisionError):
        return False


def check_teacher(config: Config) -> None:
    """Raise an InputError for an objective without its teacher, and an unused teacher."""
    objective, kind = config.objective, config.teacher.kind
    terms = [name for name in ("distillation", "regression") if getattr(objective, name).weight]
    terms += ["teacher_margin"] if objective.teacher_margin is not None else []
    if terms and kind == "none":
        raise InputError(
            f"objective.{terms[0]}: needs a teacher; set teacher.kind=self, ema, frozen or cached"
        )
    if kind != "none" and not terms:
        raise InputError(
            f"teacher.kind={kind}: no term learns from it; set objective.distillation.weight=1, or "
            "teacher.kind=none"
        )


def check_bounds(node: Any, above: str) -> None:
    for item in fields(node):
        name, value = above + item.name, getattr(node, item.name)
        children = value if isinstance(value, dict) else {}
        for key, child in children.items():
            if is_dataclass(child):  # and no value of Source.where
                check_bounds(child, f"{name}.{key}.")
        if is_dataclass(value):
            check_bounds(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            bounds = item.metadata
            if not math.isfinite(value):
                raise InputError(f"{name}={value}: must be a finite number")
            if bounds["least"] is not None and not value >= bounds["least"]:
                raise InputError(f"{name}={value}: must be at least {bounds['least']}")
            if bounds["above"] is not None and not value > bounds["above"]:
                raise InputError(f"{name}={value}: must be above {bounds['above']}")
            if bounds["below"] is not None and not value < bounds["below"]:
                raise InputError(f"{name}={value}: must be below {bounds['below']}")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def joined_lines(error: Exception) -> str:
    return " ".join(str(error).split())
