"""Where the values of a parameter stand on an axis: along it, along its logarithm, or in a row."""

from collections import Counter
from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from optuna.distributions import CategoricalDistribution

from mic.sweep.report.view import told
from mic.sweep.search_space import Parameter

WIDTH = 0.5  # that settings of one value of a row take of the room between two
MARKS = 4  # of a logarithmic axis that spans less than two powers of ten
TURN = 24  # letters of all labels that have room beside each other
LONG = 16  # letters of one label that has room at all below an axis


class Scale(NamedTuple):
    """`row` are values that stand evenly spaced, by what they are called; else a line of numbers.

    `marks` are where a logarithmic line has marks when powers of ten are too few.
    """

    row: list[str] | None
    logarithmic: bool = False
    marks: Sequence[float] = ()

    @property
    def sideways(self) -> bool:
        """Whether its labels have room as the lines of a list alone."""
        return self.row is not None and max(map(len, self.row)) > LONG

    def place(self, value: Any) -> float:
        """Where a value stands."""
        return float(value) if self.row is None else float(self.row.index(told(value)))

    def spread(self, places: Sequence[float]) -> list[float]:
        """Places with those of a row that would be one upon the other set beside each other.

        >>> Scale(["a", "b"]).spread([0.0, 1.0, 0.0])
        [-0.125, 1.0, 0.125]
        """
        if self.row is None:
            return list(places)
        counts, seen = Counter(places), Counter[float]()
        found = []
        for place in places:
            seen[place] += 1
            found.append(place + WIDTH * ((seen[place] - 0.5) / counts[place] - 0.5))
        return found

    def apply_x(self, axis: Axes) -> None:
        if self.row is not None:
            axis.set_xticks(range(len(self.row)), self.row)
            if len("".join(self.row)) > TURN:
                axis.tick_params("x", labelrotation=30)
            axis.set_xlim(-0.5, len(self.row) - 0.5)
        elif self.logarithmic:
            axis.set_xscale("log")
            mark(axis.xaxis, self.marks)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(5))

    def apply_y(self, axis: Axes) -> None:
        if self.row is not None:
            axis.set_yticks(range(len(self.row)), self.row)
            axis.set_ylim(-0.5, len(self.row) - 0.5)
        elif self.logarithmic:
            axis.set_yscale("log")
            mark(axis.yaxis, self.marks)


def mark(axis: Any, marks: Sequence[float]) -> None:
    """The marks of a logarithmic axis."""
    if marks:
        axis.set_major_locator(FixedLocator(marks))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axis.set_major_locator(LogLocator(10, numticks=6))
    axis.set_minor_locator(NullLocator())


def between(low: float, high: float) -> list[float]:
    """A few numbers in even ratios between two that are less than two powers of ten apart.

    >>> between(1e-5, 4e-5), between(0.2, 15)
    ([1e-05, 2e-05, 4e-05], [0.3, 1.0, 3.0, 10.0])
    """
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 4, 7), (1, 2, 5), (1, 3), (1,)):
        marks = [
            float(f"{factor}e{power}")
            for power in range(floor(log10(low)), ceil(log10(high)) + 1)
            for factor in factors
            if low * 0.99 <= factor * 10.0**power <= high * 1.01
        ]
        if len(marks) <= MARKS:
            break
    return marks


def scale_of(axis: Parameter, values: Sequence[Any]) -> Scale:
    """A range is a line; a choice of values is a row of those that were tried, in the file's order.

    >>> from optuna.distributions import FloatDistribution
    >>> scale_of(Parameter("x", FloatDistribution(1, 9)), [2.0, 3.0]).row is None
    True
    """
    if not isinstance(axis.distribution, CategoricalDistribution):
        if axis.logarithmic:
            low, high = min(values), max(values)
            return Scale(None, True, () if high >= 100 * low else between(low, high))
        return Scale(None)
    tried = list(dict.fromkeys(map(told, values)))
    known = list(dict.fromkeys(map(told, axis.values or ())))
    row = [one for one in known if one in tried] + [one for one in tried if one not in known]
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        row.sort(key=float)
    return Scale(row)
