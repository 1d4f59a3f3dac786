"""Read the parameters of a sweep file, in W&B's format, as distributions of Optuna.

Known are `values`, `value`, and `min` and `max` with `distribution` and `q`. W&B's normal and beta
distributions are refused, as Optuna has none.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mic.errors import InputError

Point = dict[str, Any]  # a value for every parameter, by its dotted key
PLAIN = (bool, int, float, str, type(None))  # what Optuna stores as it is


class Parameter(NamedTuple):
    """One axis: its distribution in Optuna, and the values of a grid; None for a range."""

    key: str
    distribution: BaseDistribution
    values: list[Any] | None = None

    @property
    def logarithmic(self) -> bool:
        return bool(getattr(self.distribution, "log", False))

    def ends(self) -> list[Any]:
        """Values to check: when a config accepts them it accepts all that can be drawn."""
        if self.values is not None and isinstance(self.distribution, CategoricalDistribution):
            return self.values
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return [self.distribution.low, self.distribution.high]

    def stored(self, value: Any) -> Any:
        """A value as Optuna stores it: lists and dicts as JSON."""
        return value if isinstance(value, PLAIN) else json.dumps(value)

    def original_value(self, value: Any) -> Any:
        """A stored value as the config takes it."""
        return next(
            (original for original in self.values or () if self.stored(original) == value), value
        )

    def describe(self) -> str:
        """The distribution in words.

        >>> Parameter("gamma", FloatDistribution(0.001, 1, log=True)).describe()
        'log-uniform from 0.001 to 1'
        """
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            texts = [value_text(value) for value in self.values or kind.choices]
            return f"one of {', '.join(texts)}" if len(texts) > 1 else f"always {texts[0]}"
        assert isinstance(kind, FloatDistribution | IntDistribution)
        ends = f"from {value_text(kind.low)} to {value_text(kind.high)}"
        if isinstance(kind, IntDistribution):
            return f"whole number {ends}"
        step = "" if kind.step is None else f" in steps of {value_text(kind.step)}"
        return f"{'log-uniform' if kind.log else 'uniform'} {ends}{step}"


def value_text(value: Any) -> str:
    """A value as YAML writes it, a number with at most six digits.

    >>> [value_text(value) for value in (0.05, 1.0, 3, True, None, "mean", [2, "output"])]
    ['0.05', '1', '3', 'true', 'null', 'mean', '[2, "output"]']
    """
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def parse_parameters(
    content: Mapping[str, Any], origin: str, above: str = ""
) -> dict[str, Parameter]:
    """Every parameter of a sweep file by its dotted key; nested ones are written out.

    Raises InputError for one that is no parameter of W&B's, or that Optuna cannot draw.

    >>> nested = {"objective": {"parameters": {"gamma": {"values": [0.1, 1]}}}}
    >>> parse_parameters(nested, "x.yaml")["objective.gamma"].values
    [0.1, 1]
    """
    axes: dict[str, Parameter] = {}
    for name, entry in content.items():
        key = f"{above}{name}"
        if not isinstance(entry, Mapping):
            raise InputError(
                f"{origin}: parameters.{key} {entry!r}: write {{value: {entry!r}}} or "
                "{values: [...]}"
            )
        if set(entry) == {"parameters"} and isinstance(entry["parameters"], Mapping):
            axes |= parse_parameters(entry["parameters"], origin, f"{key}.")
        else:
            axes[key] = parse_parameter(key, dict(entry), f"{origin}: parameters.{key}")
    return axes


def parse_parameter(key: str, entry: dict[str, Any], origin: str) -> Parameter:
    """One parameter; a missing `distribution` follows from the other keys, as in W&B."""
    if "value" in entry or "values" in entry:
        values = entry.pop("values") if "values" in entry else [entry.pop("value")]
        if not isinstance(values, list) or not values:
            raise InputError(f"{origin}: values {values!r}: expected a list, such as [0.1, 1]")
        left = set(entry) - {"distribution"}
        if left or entry.get("distribution", "categorical") not in ("categorical", "constant"):
            raise InputError(
                f"{origin}: {joined_items(entry)} does not go with `value` or `values`"
            )
        return categorical(key, values)
    low, high = (parse_range_end(entry, end, origin) for end in ("min", "max"))
    if not low < high:
        raise InputError(f"{origin}: min {low} is not below max {high}")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = entry.get("distribution", "int_uniform" if whole else "uniform")
    step = entry.get("q", 1.0) if str(kind).startswith("q_") else None
    if left := set(entry) - {"min", "max", "distribution", *(["q"] if step is not None else [])}:
        raise InputError(f"{origin}: {sorted(left)[0]!r} does not go with distribution {kind}")
    match kind:
        case "int_uniform" if whole:
            values = list(range(int(low), int(high) + 1))
            return Parameter(key, IntDistribution(int(low), int(high)), values)
        case "uniform":
            return Parameter(key, FloatDistribution(float(low), float(high)))
        case "q_uniform":
            return stepped(key, float(low), float(high), float(step or 1.0), origin)
        case "log_uniform_values" if low > 0:
            return Parameter(key, FloatDistribution(float(low), float(high), log=True))
        case "log_uniform":  # W&B's oldest form: the ends are exponents of e
            return Parameter(key, FloatDistribution(math.exp(low), math.exp(high), log=True))
        case "log_uniform_values":
            raise InputError(f"{origin}: min {low}: must be above 0 for {kind}")
    raise InputError(
        f"{origin}: distribution {kind!r}: Optuna does not draw from it; take int_uniform, "
        "uniform, q_uniform, log_uniform_values, or `values`"
    )


def categorical(key: str, values: list[Any]) -> Parameter:
    """Values in no order; what Optuna cannot store is stored as JSON."""
    stored = [value if isinstance(value, PLAIN) else json.dumps(value) for value in values]
    return Parameter(key, CategoricalDistribution(stored), values)


def stepped(key: str, low: float, high: float, step: float, origin: str) -> Parameter:
    if not step > 0:
        raise InputError(f"{origin}: q {step}: must be above 0")
    count = math.floor((high - low) / step + 1e-9)
    values = [round(low + step * index, 12) for index in range(count + 1)]
    return Parameter(key, FloatDistribution(low, values[-1], step=step), values)


def parse_range_end(entry: Mapping[str, Any], end: str, origin: str) -> int | float:
    """The end of a range. YAML reads 1e-3 as text, so text that is a number is taken as entry."""
    value = entry.get(end)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{origin}: {end} {value!r}: expected a number, or give `values`")
    return value


def joined_items(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in entry.items())


def grid_points(axes: Sequence[Parameter], origin: str) -> list[Point]:
    """Every combination, the last parameter changing fastest.

    Raises InputError for a parameter without values.
    """
    for axis in axes:
        if axis.values is None:
            raise InputError(
                f"{origin}: parameters.{axis.key}: a grid needs `values`; a range is for random, "
                "bayes, qmc"
            )
    combinations = product(*(axis.values or () for axis in axes))
    return [dict(zip((axis.key for axis in axes), values, strict=True)) for values in combinations]
