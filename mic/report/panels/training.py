"""Panels of training itself: the objective's terms, their balance, speed."""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure

from mic.report.figures import legend, panels
from mic.report.panel import Panel, View, format_last, without_empty
from mic.report.plotting import Diagram, Line, draw_bars, draw_diagrams, draw_stacked
from mic.report.tables import Table
from mic.tracking.seed_groups import SeedGroup

STAGES = ("data", "encoder", "objective", "backward", "optimizer")
RATES = {
    "speed/pairs_per_second": ("pairs", "pairs / s"),
    "speed/tokens_per_second": ("tokens", "tokens / s"),
    "memory/mib": ("memory", "MiB"),
}
APART = ("loss", "learning_rate", "negatives")  # below train/, and no terms


def terms_panel(view: View) -> Panel:
    """Every term as it is, and weighted as it adds to the loss."""
    title = "Loss terms"
    names = [name for name in view.names("train/") if name not in APART]
    if not names:
        return Panel(title, missing="No step was logged yet.")
    raw = [
        Diagram(title, "loss", view.lines(f"train/{name}"))
        for title, name in (("loss (weighted sum)", "loss"), *((name, name) for name in names))
    ]
    raw += [Diagram("validation loss", "loss", view.lines("val/loss"))]
    pictures = {"terms": draw_diagrams([diagram for diagram in raw if diagram.lines], view.labels)}
    what = "The loss and its terms, unweighted, the mean over the widths"
    if not view.compared:
        weighted = without_empty(
            {name: view.groups[0].series(f"train/{name}/weighted") for name in names}
        )
        if weighted:
            diagram = Diagram("weighted terms", "loss", weighted, scale="symlog")
            pictures["terms_weighted"] = draw_diagrams([diagram], names)
            what += "; weighted, as they add up to the loss (linear below 0.001, then logarithmic)"
    tables = [last_terms_table(view, group, names) for group in view.groups]
    return Panel(
        title, pictures, view.caption(f"{what}. Without units.", view.trained_on()), tables
    )


def last_terms_table(view: View, group: SeedGroup, names: Sequence[str]) -> Table:
    of = f"{group.label}: " if view.compared else ""
    rows = [
        ["loss", format_last(group.series("train/loss")), format_last(group.series("train/loss"))]
    ]
    rows += [
        [name, *(format_last(group.series(f"train/{name}{end}")) for end in ("", "/weighted"))]
        for name in names
    ]
    return Table(f"{of}last logged step", ["term", "raw", "weighted"], rows)


def balance_panel(view: View) -> Panel:
    """Which term moves the weights: shares of the gradient norm."""
    title = "Term balance"
    names = view.names("balance/")
    if not names:
        missing = "Nothing measured: monitor.balance_every is 0, or too few steps were taken."
        return Panel(title, missing=missing)
    what = "Share of each weighted term in the sum of the terms' gradient norms."
    pictures = {"balance": draw_shares(view, "balance/", names)}
    if not view.compared:
        lines = {name: view.groups[0].series(f"balance/{name}") for name in names}
        diagram = Diagram("the same, logarithmic", "share", without_empty(lines), scale="log")
        pictures["balance_small"] = draw_diagrams([diagram], names)
    return Panel(title, pictures, view.caption(what, view.trained_on()))


def throughput_panel(view: View) -> Panel:
    """How fast, with how much memory, and where the time goes."""
    title = "Throughput"
    rates = {name: titles for name, titles in RATES.items() if without_empty(view.lines(name))}
    if not rates:
        return Panel(title, missing="No speed was logged yet.")
    diagrams = [Diagram(title, unit, view.lines(name)) for name, (title, unit) in rates.items()]
    pictures = {"throughput": draw_diagrams(diagrams, view.labels)}
    what = "Pairs and tokens (without padding) per second of training, the most memory so far"
    parts = [part for part in STAGES if part in view.names("speed/")]
    if parts:
        pictures["time"] = draw_shares(view, "speed/", parts)
        what += "; shares of a step's time"
    rows = [
        [name, *(mean_over_steps(group.series(name)) for group in view.groups)]
        for name in (*rates, *(f"speed/{part}" for part in parts))
    ]
    table = Table("mean over the logged steps", ["", *view.labels], rows)
    return Panel(title, pictures, view.caption(f"{what}.", view.trained_on()), [table])


def draw_shares(view: View, above: str, names: Sequence[str]) -> Figure:
    """Shares over the steps; where groups are compared, their means over all steps."""
    figure, (axis,) = panels(1, 2.6 if not view.compared else 1.2 + 0.4 * len(view.groups), 1)
    groups = [
        {name: finite_means(group.series(f"{above}{name}")) for name in names}
        for group in view.groups
    ]
    if view.compared:
        rows = {
            group.label: {name: mean(line.values()) for name, line in parts.items() if line}
            for group, parts in zip(view.groups, groups, strict=True)
        }
        draw_bars(axis, rows, names)
    else:
        draw_stacked(axis, groups[0], names)
    legend(figure, axis)
    return figure


def finite_means(line: Line) -> Mapping[int, float]:
    return {step: value.mean for step, value in line.items() if value.mean == value.mean}


def mean_over_steps(line: Line) -> str:
    """The mean of a line over its steps."""
    values = list(finite_means(line).values())
    return f"{mean(values):.4g}" if values else "-"
