"""Define a panel of the report, and the view of the runs that panels are made from."""

from collections.abc import Collection, Mapping, Sequence
from math import floor, log10
from typing import NamedTuple

from matplotlib.figure import Figure

from mic.report.plotting import Diagram, Line
from mic.report.tables import Table
from mic.tracking.reader import Run, logged_widths
from mic.tracking.seed_groups import SeedGroup

SPLITS = {"train": "training", "validation": "validation"}


class Panel(NamedTuple):
    """One section of the report; `folded` are tables, `texts` plain text that open on demand, by
    heading.

    Without pictures, `missing` says why there are none.
    """

    title: str
    pictures: Mapping[str, Figure] = {}
    caption: str = ""
    tables: Sequence[Table] = ()
    folded: Mapping[str, Sequence[Table]] = {}
    missing: str = ""
    texts: Mapping[str, str] = {}


class View(NamedTuple):
    """The groups of runs that a report shows, and the command that makes it."""

    groups: list[SeedGroup]
    command: str

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @property
    def compared(self) -> bool:
        return len(self.groups) > 1

    @property
    def labels(self) -> list[str]:
        return [group.label for group in self.groups]

    def caption(self, what: str, rows: str = "", intervals: bool = True) -> str:
        """What a picture shows, over which rows, with which interval, by which command."""
        sizes = {len(group.runs) for group in self.groups}
        seeds = f"Mean and 95 % t-interval over {format_range(sizes)} seeds."
        command = f"Made by `{self.command}`."
        parts = [what, rows, seeds if intervals and max(sizes) > 1 else "", command]
        return " ".join(part for part in parts if part)

    def widths(self, above: str) -> list[int]:
        return logged_widths(self.runs, above)

    def diagrams(self, above: str, title: str, ylabel: str, scale: str = "linear") -> list[Diagram]:
        """A measure over training: one diagram with a line a width; or, where groups are compared,
        one for the narrow, the middle and the full width with a line a group."""
        dims = self.widths(above)
        if not self.compared:
            lines = {width_label(dim): self.groups[0].series(f"{above}/d{dim}") for dim in dims}
            return [Diagram(title, ylabel, without_empty(lines), scale=scale)] if dims else []
        return [
            Diagram(f"{title}, first {dim}", ylabel, self.lines(f"{above}/d{dim}"), scale=scale)
            for dim in three_widths(dims)
        ]

    def lines(self, name: str) -> dict[str, Line]:
        """A logged name by group."""
        return without_empty({group.label: group.series(name) for group in self.groups})

    def keys(self) -> list[str]:
        """The labels of the lines of `diagrams`; a label's place decides its colour."""
        if self.compared:
            return self.labels
        ends = {name.rpartition("/d")[2] for run in self.runs for name in run.metrics}
        return [width_label(dim) for dim in sorted(int(end) for end in ends if end.isdigit())]

    def rows(self) -> str:
        """N, over which the geometry was measured."""
        counts = {
            int(rows)
            for run in self.runs
            for rows in run.metrics.get("geometry/rows", {}).values()
            if rows == rows
        }
        if not counts:
            return ""
        return f"N = {format_range(counts)} embeddings of validation texts."

    def trained_on(self) -> str:
        """Rows of the finished runs, and those of a batch."""
        known = [run.meta["rows"] for run in self.runs if run.meta.get("rows")]
        rows = {name: {sizes[name] for sizes in known if sizes.get(name)} for name in SPLITS}
        splits = [
            f"{format_range(counts)} rows of {SPLITS[name]}"
            for name, counts in rows.items()
            if counts
        ]
        batch = format_range({run.config.trainer.batch_size for run in self.runs})
        return f"{', '.join([*splits, f'batches of {batch}'])}.".capitalize()

    def names(self, above: str) -> list[str]:
        """The names right below `above` that any run logged, in their order."""
        names = dict.fromkeys(
            name.removeprefix(above)
            for run in self.runs
            for name in run.metrics
            if name.startswith(above)
        )
        return [name for name in names if "/" not in name]


def format_range(counts: Collection[int]) -> str:
    """
    >>> format_range([2000, 2000]), format_range([5, 1000])
    ('2,000', '5 to 1,000')
    """
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def without_empty(lines: Mapping[str, Line]) -> dict[str, Line]:
    """The lines that have a point."""
    return {label: line for label, line in lines.items() if line}


def width_label(dim: int) -> str:
    return f"d = {dim}"


def three_widths(dims: Sequence[int]) -> list[int]:
    """A narrow, a middle and the full width.

    >>> three_widths([16, 32, 64, 128, 384]), three_widths([8])
    ([16, 64, 384], [8])
    """
    places = dict.fromkeys((0, len(dims) // 2, len(dims) - 1)) if dims else {}
    return [dims[place] for place in places]


def format_number(value: float) -> str:
    """Four significant digits.

    >>> format_number(0.012345), format_number(1234.5678), format_number(float("nan"))
    ('0.01235', '1235', 'nan')
    """
    return f"{value:.4g}"


def format_last(line: Line) -> str:
    """The last value of a line, with its interval; a dash if there is none.

    >>> from mic.tracking.seed_groups import Interval
    >>> format_last({0: Interval(1.5, 0.25, 3)}), format_last({})
    ('1.50 ± 0.25', '-')
    >>> format_last({2: Interval(123.456, 3.21, 3)})
    '123.5 ± 3.2'
    """
    if not line:
        return "-"
    value = line[max(line)]
    if not value.half > 0:
        return format_number(value.mean)
    return value.shown(min(8, max(0, 1 - floor(log10(value.half)))))
