"""The parameters of a sweep file, as W&B writes them, and what Optuna draws from.

W&B's `values`, `value`, `min` and `max` with `distribution` and `q`; its bell curves (normal, beta
and their kin) are not among what Optuna draws from, and refused.
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
PLAIN = (bool, int, float, str, type(None))  # what Optuna keeps as it is


class Parameter(NamedTuple):
    """One axis: the distribution that Optuna knows, and the values of a grid, where it has some."""

    key: str
    distribution: BaseDistribution
    values: list[Any] | None = None

    @property
    def logarithmic(self) -> bool:
        return bool(getattr(self.distribution, "log", False))

    def ends(self) -> list[Any]:
        """Values that a config must take for all between them to be taken."""
        if self.values is not None and isinstance(self.distribution, CategoricalDistribution):
            return self.values
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return [self.distribution.low, self.distribution.high]

    def stored(self, value: Any) -> Any:
        """A value as Optuna keeps it: lists and dicts as JSON."""
        return value if isinstance(value, PLAIN) else json.dumps(value)

    def meant(self, value: Any) -> Any:
        """A stored value as the config takes it."""
        return next((one for one in self.values or () if self.stored(one) == value), value)


def parameters(content: Mapping[str, Any], origin: str, above: str = "") -> dict[str, Parameter]:
    """Every parameter of a sweep file by its dotted key; nested ones are written out.

    Raises InputError for one that is no parameter of W&B's, or that Optuna cannot draw.

    >>> found = parameters({"objective": {"parameters": {"gamma": {"values": [0.1, 1]}}}}, "x.yaml")
    >>> found["objective.gamma"].values
    [0.1, 1]
    """
    found: dict[str, Parameter] = {}
    for name, one in content.items():
        key = f"{above}{name}"
        if not isinstance(one, Mapping):
            raise InputError(
                f"{origin}: parameters.{key} {one!r}: write {{value: {one!r}}} or {{values: [...]}}"
            )
        if set(one) == {"parameters"} and isinstance(one["parameters"], Mapping):
            found |= parameters(one["parameters"], origin, f"{key}.")
        else:
            found[key] = parameter(key, dict(one), f"{origin}: parameters.{key}")
    return found


def parameter(key: str, one: dict[str, Any], origin: str) -> Parameter:
    """One parameter; `distribution` is guessed from what else is there, as W&B does."""
    if "value" in one or "values" in one:
        values = one.pop("values") if "values" in one else [one.pop("value")]
        if not isinstance(values, list) or not values:
            raise InputError(f"{origin}: values {values!r}: expected a list, such as [0.1, 1]")
        left = set(one) - {"distribution"}
        if left or one.get("distribution", "categorical") not in ("categorical", "constant"):
            raise InputError(f"{origin}: {told(one)} does not go with `value` or `values`")
        return categorical(key, values)
    low, high = (number(one, end, origin) for end in ("min", "max"))
    if not low < high:
        raise InputError(f"{origin}: min {low} is not below max {high}")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = one.get("distribution", "int_uniform" if whole else "uniform")
    step = one.get("q", 1.0) if str(kind).startswith("q_") else None
    if left := set(one) - {"min", "max", "distribution", *(["q"] if step is not None else [])}:
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
        case "log_uniform":  # of W&B's oldest form: the ends are exponents of e
            return Parameter(key, FloatDistribution(math.exp(low), math.exp(high), log=True))
        case "log_uniform_values":
            raise InputError(f"{origin}: min {low}: must be above 0 for {kind}")
    raise InputError(
        f"{origin}: distribution {kind!r}: Optuna does not draw from it; take int_uniform, "
        "uniform, q_uniform, log_uniform_values, or `values`"
    )


def categorical(key: str, values: list[Any]) -> Parameter:
    """Values in no order; what Optuna cannot keep is kept as JSON."""
    stored = [value if isinstance(value, PLAIN) else json.dumps(value) for value in values]
    return Parameter(key, CategoricalDistribution(stored), values)


def stepped(key: str, low: float, high: float, step: float, origin: str) -> Parameter:
    if not step > 0:
        raise InputError(f"{origin}: q {step}: must be above 0")
    count = math.floor((high - low) / step + 1e-9)
    values = [round(low + step * at, 12) for at in range(count + 1)]
    return Parameter(key, FloatDistribution(low, values[-1], step=step), values)


def number(one: Mapping[str, Any], end: str, origin: str) -> int | float:
    """The end of a range. YAML reads 1e-3 as a text: what looks like a number is one."""
    value = one.get(end)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{origin}: {end} {value!r}: expected a number, or give `values`")
    return value


def told(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in one.items())


def grid(axes: Sequence[Parameter], origin: str) -> list[Point]:
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
    return [dict(zip((axis.key for axis in axes), one, strict=True)) for one in combinations]
