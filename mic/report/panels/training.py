"""Panels of training itself: the objective's terms, their balance, speed."""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure

from mic.report.figures import legend, panels
from mic.report.panel import Panel, View, last, nonempty
from mic.report.plotting import Cell, Line, curves, sideways, stacked
from mic.report.tables import Table
from mic.tracking.seed_groups import SeedGroup

PARTS = ("data", "encoder", "objective", "backward", "optimizer")
RATES = {
    "speed/pairs_per_second": ("pairs", "pairs / s"),
    "speed/tokens_per_second": ("tokens", "tokens / s"),
    "memory/mib": ("memory", "MiB"),
}
APART = ("loss", "learning_rate", "negatives")  # below train/, and no terms


def terms(view: View) -> Panel:
    """Every term as it is, and weighted as it adds to the loss."""
    title = "Loss terms"
    names = [name for name in view.names("train/") if name not in APART]
    if not names:
        return Panel(title, missing="No step was logged yet.")
    raw = [
        Cell(title, "loss", view.lines(f"train/{name}"))
        for title, name in (("loss (weighted sum)", "loss"), *((name, name) for name in names))
    ]
    raw += [Cell("validation loss", "loss", view.lines("val/loss"))]
    pictures = {"terms": curves([cell for cell in raw if cell.lines], view.labels)}
    what = "The loss and its terms, unweighted, the mean over the widths"
    if not view.compared:
        weighted = nonempty(
            {name: view.groups[0].series(f"train/{name}/weighted") for name in names}
        )
        if weighted:
            cell = Cell("weighted terms", "loss", weighted, scale="symlog")
            pictures["terms_weighted"] = curves([cell], names)
            what += "; weighted, as they add up to the loss (linear below 0.001, then logarithmic)"
    tables = [last_terms(view, group, names) for group in view.groups]
    return Panel(
        title, pictures, view.caption(f"{what}. Without units.", view.trained_on()), tables
    )


def last_terms(view: View, group: SeedGroup, names: Sequence[str]) -> Table:
    of = f"{group.label}: " if view.compared else ""
    rows = [["loss", last(group.series("train/loss")), last(group.series("train/loss"))]]
    rows += [
        [name, *(last(group.series(f"train/{name}{end}")) for end in ("", "/weighted"))]
        for name in names
    ]
    return Table(f"{of}last logged step", ["term", "raw", "weighted"], rows)


def balance(view: View) -> Panel:
    """Which term moves the weights: shares of the gradient norm."""
    title = "Term balance"
    names = view.names("balance/")
    if not names:
        missing = "Nothing measured: monitor.balance_every is 0, or too few steps were taken."
        return Panel(title, missing=missing)
    what = "Share of each weighted term in the sum of the terms' gradient norms."
    pictures = {"balance": shares(view, "balance/", names)}
    if not view.compared:
        lines = {name: view.groups[0].series(f"balance/{name}") for name in names}
        cell = Cell("the same, logarithmic", "share", nonempty(lines), scale="log")
        pictures["balance_small"] = curves([cell], names)
    return Panel(title, pictures, view.caption(what, view.trained_on()))


def speed(view: View) -> Panel:
    """How fast, with how much memory, and where the time goes."""
    title = "Throughput"
    rates = {name: words for name, words in RATES.items() if nonempty(view.lines(name))}
    if not rates:
        return Panel(title, missing="No speed was logged yet.")
    cells = [Cell(title, unit, view.lines(name)) for name, (title, unit) in rates.items()]
    pictures = {"throughput": curves(cells, view.labels)}
    what = "Pairs and tokens (without padding) per second of training, the most memory so far"
    parts = [part for part in PARTS if part in view.names("speed/")]
    if parts:
        pictures["time"] = shares(view, "speed/", parts)
        what += "; shares of a step's time"
    rows = [
        [name, *(average(group.series(name)) for group in view.groups)]
        for name in (*rates, *(f"speed/{part}" for part in parts))
    ]
    table = Table("mean over the logged steps", ["", *view.labels], rows)
    return Panel(title, pictures, view.caption(f"{what}.", view.trained_on()), [table])


def shares(view: View, above: str, names: Sequence[str]) -> Figure:
    """Shares over the steps; where groups are compared, their means over all steps."""
    figure, (axis,) = panels(1, 2.6 if not view.compared else 1.2 + 0.4 * len(view.groups), 1)
    shares_by_group = [
        {name: means(group.series(f"{above}{name}")) for name in names} for group in view.groups
    ]
    if view.compared:
        rows = {
            group.label: {name: mean(line.values()) for name, line in parts.items() if line}
            for group, parts in zip(view.groups, shares_by_group, strict=True)
        }
        sideways(axis, rows, names)
    else:
        stacked(axis, shares_by_group[0], names)
    legend(figure, axis)
    return figure


def means(line: Line) -> Mapping[int, float]:
    return {step: value.mean for step, value in line.items() if value.mean == value.mean}


def average(line: Line) -> str:
    """The mean of a line over its steps."""
    values = list(means(line).values())
    return f"{mean(values):.4g}" if values else "-"
