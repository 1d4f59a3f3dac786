"""Read a sweep file, in W&B's own format, and check it before anything runs.

The file's `command` says what a trial is: `[mic, train, CONFIG, key=value, "${args_no_hyphens}"]`,
or torchrun in the place of mic. A parameter named `seed` is not searched: every setting is tried
with each seed, and the optimiser sees the mean. `seeds: [0, 1, 2]` is short for it.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from omegaconf import OmegaConf

from mic.config import loading as configs
from mic.config.loading import find_config, load, suggest_key
from mic.config.schema import Config
from mic.errors import InputError
from mic.sweep.search_space import Parameter, Point, parse_parameters

Method = Literal["grid", "random", "bayes", "qmc", "custom"]
MIC_KEYS = ("seeds",)  # keys that W&B does not know; `mic sweep --engine wandb` writes them its way
KEYS = (
    *("name", "description", "program", "command", "project", "entity", "kind", "apiVersion"),
    *("method", "metric", "metrics", "parameters", "early_terminate", "run_cap"),
    *("controller", "scheduler"),
)
MACRO = "${args_no_hyphens}"
EXAMPLE = f'[mic, train, configs/quickstart.yaml, "{MACRO}"]'
LOGGED = ("val", "train", "geometry", "correlation", "balance", "best", "speed", "memory", "data")


class Metric(NamedTuple):
    """A name of metrics.jsonl, whose last value counts, and which way is better."""

    name: str
    goal: Literal["maximize", "minimize"] = "minimize"

    @property
    def sign(self) -> int:
        return 1 if self.goal == "maximize" else -1


class EarlyTermination(NamedTuple):
    """When to end a trial early: after `min_validations`, by the median or by hyperband."""

    kind: Literal["median", "hyperband"]
    min_validations: int
    eta: int = 3


@dataclass(frozen=True)
class Sweep:
    """A sweep file; `content` is the file itself as plain values."""

    file: Path
    content: dict[str, Any]
    name: str
    method: Method
    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...]
    seeds: tuple[int, ...]
    early_termination: EarlyTermination | None
    max_settings: int | None  # how many at most, each with all seeds
    launcher: tuple[str, ...]  # the command up to the config
    config: str
    overrides: tuple[str, ...]

    @property
    def base(self) -> Config:
        return load(self.config, *self.overrides)

    @property
    def folder(self) -> Path:
        """The sweep's own folder among the runs."""
        return Path(self.base.runs) / self.name

    def config_of(self, point: Point, seed: int, *more: str) -> Config:
        """The config of one trial. Raises InputError when no run could use it."""
        chosen = [f"{key}={as_override(value)}" for key, value in point.items()]
        return load(self.config, *self.overrides, *chosen, f"seed={seed}", *more)


def read_sweep(path: str | Path, base: str | Path | None = None) -> Sweep:
    """Read a sweep file and check it: every key, every parameter's name and values, the command.

    `base` is a config in the place of the command's. Raises InputError naming file, key, value and
    cure.
    """
    file = find_config(path, "sweep", "configs/sweep/regularization.yaml")
    content: dict[Any, Any] = OmegaConf.to_container(configs.read_yaml(file))  # type: ignore[assignment]
    for key in content:
        if key not in (*KEYS, *MIC_KEYS):
            near = get_close_matches(str(key), (*KEYS, *MIC_KEYS), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KEYS)}, seeds"
            raise InputError(f"{file}: unknown key {key!r}; {hint}")
    method: Any = content.get("method")
    if method not in get_args(Method):
        raise InputError(f"{file}: method {method!r}: choose {' or '.join(get_args(Method))}")
    launcher, config, overrides = parse_command(content.get("command"), str(file))
    if base is not None:
        config, overrides = str(base), ()
    base_config = load(config, *overrides)
    given = content.get("parameters")
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{file}: parameters: none; give {{objective.gamma: {{values: [0, 1]}}}}")
    axes = parse_parameters(given, str(file))
    seeds = parse_seeds(content, axes.pop("seed", None), base_config.seed, str(file))
    if not axes:
        raise InputError(f"{file}: parameters: nothing but a seed; seeds alone are no sweep")
    name = str(content.get("name") or file.stem)
    if name != Path(name).name or name in ("", ".", ".."):
        raise InputError(f"{file}: name {name!r}: one folder name, no slashes")
    metrics = parse_metrics(content, base_config, str(file))
    sweep = Sweep(
        file=file,
        content=content,
        name=name,
        method=method,
        metrics=metrics,
        parameters=tuple(axes.values()),
        seeds=seeds,
        early_termination=parse_early_termination(
            content.get("early_terminate"), len(metrics), str(file)
        ),
        max_settings=parse_run_cap(content, method, len(seeds), str(file)),
        launcher=launcher,
        config=config,
        overrides=overrides,
    )
    check_parameters(sweep)
    return sweep


def parse_command(given: Any, origin: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The launcher of a trial, the config, and the overrides that all trials share.

    >>> launcher, config, overrides = parse_command(["mic", "train", "x.yaml", "seed=1", MACRO], "")
    >>> launcher[1:], config, overrides
    (('-m', 'mic.cli', 'train'), 'x.yaml', ('seed=1',))
    """
    if not isinstance(given, list) or MACRO not in given:
        raise InputError(f"{origin}: command {given!r}: write it as {EXAMPLE}")
    words = [fill_macros(str(word), origin) for word in given if word not in ("${env}", MACRO)]
    if words.count("train") != 1 or len(words) < words.index("train") + 2:
        raise InputError(f"{origin}: command {given!r}: no `train CONFIG` in it, as in {EXAMPLE}")
    config_index = words.index("train") + 1
    launcher, (config, *overrides) = words[:config_index], words[config_index:]
    known = {
        "mic": [sys.executable, "-m", "mic.cli"],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
        "python": [sys.executable],
        "python3": [sys.executable],
    }
    for word in overrides:
        if "=" not in word or word.startswith("-"):
            raise InputError(f"{origin}: command: {word!r} after the config: only key=value belong")
    launcher = [*known.get(launcher[0], launcher[:1]), *launcher[1:]]
    return tuple(launcher), config, tuple(overrides)


def fill_macros(word: str, origin: str) -> str:
    """A word of the command with W&B's macros filled in."""
    if word == "${interpreter}":
        return "python"
    word = re.sub(
        r"\$\{envvar:([A-Z0-9_]*)\}", lambda match: os.environ.get(match[1], match[1]), word
    )
    if word.startswith("${"):
        raise InputError(f"{origin}: command: {word}: mic takes key=value; write {MACRO}")
    return word


def parse_seeds(
    content: Mapping[str, Any], axis: Parameter | None, default: int, origin: str
) -> tuple[int, ...]:
    if axis is not None and "seeds" in content:
        raise InputError(f"{origin}: seeds and parameters.seed: one of them is enough")
    if axis is not None and axis.values is None:
        raise InputError(f"{origin}: parameters.seed: give `values`, such as [0, 1, 2]")
    seeds: Any = content.get("seeds", axis.values if axis is not None else [default])
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"{origin}: seeds {seeds!r}: expected different numbers, as [0, 1, 2]")
    return tuple(seeds)


def parse_metrics(content: Mapping[str, Any], base: Config, origin: str) -> tuple[Metric, ...]:
    """The metrics: names that a run of this config logs, as far as is known before it runs."""
    given = content.get("metrics", [content["metric"]] if content.get("metric") else [])
    if not isinstance(given, list) or not given or ("metric" in content and "metrics" in content):
        raise InputError(
            f"{origin}: metric: write {{name: val/TASK/METRIC/d16, goal: maximize}}, or metrics: "
            "a list of such"
        )
    tasks = {"pairs", "loss", *(task_names(base.evaluation.validation) or ["heldout"])}
    metrics = []
    for item in given:
        name = item.get("name") if isinstance(item, Mapping) else None
        goal = item.get("goal", "minimize") if isinstance(item, Mapping) else None
        if not isinstance(name, str) or goal not in ("maximize", "minimize"):
            raise InputError(
                f"{origin}: metric {item!r}: write {{name: val/TASK/METRIC/d16, goal: maximize}}"
            )
        first, _, rest = name.partition("/")
        task = rest.partition("/")[0]
        if first not in LOGGED or not rest:
            raise InputError(
                f"{origin}: metric {name!r}: no name of metrics.jsonl; they begin with val/, "
                "train/, geometry/, ... (a test task is nothing to choose by)"
            )
        if first == "val" and task not in tasks:
            raise InputError(
                f"{origin}: metric {name!r}: no validation task {task!r}; there are "
                f"{', '.join(sorted(tasks))}"
            )
        metrics.append(Metric(name, goal))
    if len(metrics) > 1 and content.get("method") not in ("custom", "grid", "random", "qmc"):
        raise InputError(f"{origin}: metrics: {len(metrics)} of them need method: custom (NSGA-II)")
    if len({metric.name for metric in metrics}) < len(metrics):
        raise InputError(f"{origin}: metrics: one is there twice")
    return tuple(metrics)


def task_names(tasks: Any) -> list[str]:
    """The names of a config's tasks, of every kind."""
    return [name for kind in fields(tasks) for name in getattr(tasks, kind.name)]


def parse_early_termination(given: Any, metrics: int, origin: str) -> EarlyTermination | None:
    """`early_terminate`, counted in validations; W&B counts every log line of the metric."""
    if given is None:
        return None
    if metrics > 1:
        raise InputError(f"{origin}: early_terminate: needs a single metric")
    kind = given.get("type") if isinstance(given, Mapping) else None
    known = {"type", "min_iter", "max_iter", "s", "eta", "strict"}
    if kind not in ("median", "hyperband") or set(given) - known:
        raise InputError(
            f"{origin}: early_terminate {given!r}: write {{type: hyperband, min_iter: 2}}, or "
            "type: median"
        )
    eta, first = given.get("eta", 3), given.get("min_iter")
    if first is None and "max_iter" in given and "s" in given:
        first = max(1, int(given["max_iter"] / eta ** given["s"]))
    if type(first) is not int or first < 1 or type(eta) is not int or eta < 2:
        raise InputError(
            f"{origin}: early_terminate {given!r}: min_iter must be a whole number, 1 or more, "
            "and eta 2 or more"
        )
    return EarlyTermination(kind, first, eta)


def parse_run_cap(content: Mapping[str, Any], method: str, seeds: int, origin: str) -> int | None:
    """How many settings `run_cap` allows: it counts trials, and every setting has all seeds."""
    cap = content.get("run_cap")
    if cap is None and method != "grid":
        raise InputError(f"{origin}: run_cap: not set, and {method} never ends; set run_cap: 40")
    if cap is not None and (type(cap) is not int or cap < seeds):
        raise InputError(f"{origin}: run_cap {cap!r}: a whole number, {seeds} (a setting) or more")
    return None if cap is None else cap // seeds


def check_parameters(sweep: Sweep) -> None:
    """Raise an InputError for a parameter that the config does not know, or a value it refuses."""
    first_ends: Point = {axis.key: axis.ends()[0] for axis in sweep.parameters}
    for axis in sweep.parameters:
        origin = f"{sweep.file}: parameters.{axis.key}"
        for value in axis.ends():
            try:
                load(sweep.config, *sweep.overrides, f"{axis.key}={as_override(value)}")
            except InputError as error:
                if "unknown key" in str(error):
                    raise InputError(f"{origin}: unknown key{suggest_key(axis.key)}") from None
                refusal = error
            else:
                continue
            try:  # a value may need that of another parameter
                sweep.config_of(first_ends | {axis.key: value}, sweep.seeds[0])
            except InputError:
                raise InputError(f"{origin}: {refusal}") from None


def identifying_lines(sweep: Sweep) -> Sequence[str]:
    """Lines that differ between two sweeps of the same name."""
    return (
        f"method {sweep.method}",
        *(f"metric {metric.name} {metric.goal}" for metric in sweep.metrics),
        *(f"parameter {axis.key} {axis.distribution}" for axis in sweep.parameters),
        f"seeds {list(sweep.seeds)}",
    )


def as_override(value: Any) -> str:
    """A value as a key=value override of `mic train` writes it.

    >>> [as_override(value) for value in (1e-05, [16, 64], None, "a: b", {"weight": 1})]
    ['1e-05', '[16, 64]', 'null', "'a: b'", '{weight: 1}']
    """
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and yaml.safe_load(value) == value:
            return value
        return "'" + value.replace("'", "''") + "'"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9).strip()
    return repr(value) if isinstance(value, float) else text.removesuffix("\n...")
