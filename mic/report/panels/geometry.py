"""Panels of geometry: spectra, collapse, variance, correlation, redundancy."""

from collections.abc import Sequence
from math import isclose
from typing import NamedTuple

import torch

from mic.report import figures
from mic.report.panel import Panel, View, format_last, format_range, three_widths, without_empty
from mic.report.plotting import Diagram, draw_diagrams, draw_spectra
from mic.report.tables import Table
from mic.tracking.seed_groups import Interval, SeedGroup, series_over_runs
from mic.tracking.snapshots import Snapshot

UNWATCHED = "The geometry was not measured: monitor.geometry is off, or nothing was validated yet."
COLLAPSE = {  # with its unit
    "effective_rank_share": "effective rank / min(d, N-1)",
    "mean_cosine": "cosine",
    "dead_share": "share of coordinates",
    "uniformity": "log potential",
    "alignment": "squared distance",
}


def spectra_panel(view: View) -> Panel:
    """Eigenvalues of a narrow, the middle and the full width, step by step or side by side."""
    title = "Eigenvalue spectra"
    watched = [run for run in view.runs if run.snapshots]
    if not watched:
        return Panel(title, missing=UNWATCHED)
    dims = three_widths(
        sorted({dim for run in watched for snapshot in run.snapshots for dim in snapshot.spectra})
    )
    what = "Eigenvalues of the covariance of unit vectors, the largest first, of the first numbers "
    what += "of each; the axis ends at a millionth of the largest"
    if not view.compared:
        run = watched[0]
        picture = draw_spectra(
            {
                f"first {dim}": {
                    snapshot.step: snapshot.spectra[dim].double().numpy()
                    for snapshot in run.snapshots
                    if dim in snapshot.spectra
                }
                for dim in dims
            }
        )
        what += f"; run {run.name}, coloured by step."
    else:
        picture = draw_diagrams(
            [
                Diagram(
                    f"first {dim}, last step",
                    "eigenvalue",
                    without_empty(
                        {group.label: last_spectrum(group, dim) for group in view.groups}
                    ),
                    scale="log-log",
                    xlabel="rank",
                )
                for dim in dims
            ],
            view.labels,
        )
        what += "; at each run's last snapshot."
    rows = snapshot_rows([run.snapshots[-1] for run in watched])
    return Panel(title, {"spectra": picture}, view.caption(what, rows, intervals=view.compared))


def last_spectrum(group: SeedGroup, dim: int) -> dict[int, Interval]:
    """The last spectra of a group's runs as a line over the ranks."""
    spectra_of_runs = [run.snapshots[-1].spectra.get(dim) for run in group.runs if run.snapshots]
    series = [
        dict(enumerate(eigenvalues.tolist(), 1))
        for eigenvalues in spectra_of_runs
        if eigenvalues is not None
    ]
    return {rank: value for rank, value in series_over_runs(series).items() if value.mean > 0}


def collapse_panel(view: View) -> Panel:
    """The measures by which a collapse of a prefix shows, over training."""
    title = "Collapse per prefix"
    shown = {name: unit for name, unit in COLLAPSE.items() if view.widths(f"geometry/{name}")}
    if not shown:
        return Panel(title, missing=UNWATCHED)
    diagrams = [
        diagram
        for name, unit in shown.items()
        for diagram in view.diagrams(f"geometry/{name}", name.replace("_", " "), unit)
    ]
    dims = view.widths(f"geometry/{next(iter(shown))}")
    what = "Every prefix over training: its effective rank (1: all directions are used alike), the "
    what += "mean cosine of two different texts (1: all texts are one), coordinates without "
    what += (
        "variance (dead), uniformity (0: all texts are one) and alignment of pairs (0: both are "
    )
    what += "one)."
    tables = [measure_table(view, group, "geometry", list(shown), dims) for group in view.groups]
    picture = draw_diagrams(diagrams, view.keys())
    return Panel(title, {"collapse": picture}, view.caption(what, view.rows()), tables)


def measure_table(
    view: View, group: SeedGroup, above: str, names: Sequence[str], dims: Sequence[int]
) -> Table:
    """The last values of a group: a row a measure, a column a width."""
    rows = [
        [name, *(format_last(group.series(f"{above}/{name}/d{dim}")) for dim in dims)]
        for name in names
    ]
    of = f"{group.label}: " if view.compared else ""
    return Table(f"{of}last values", ["d", *map(str, dims)], rows)


class State(NamedTuple):
    """The first or the last snapshot of a group's first watched run."""

    name: str
    color: str
    snapshot: Snapshot


def first_and_last_states(view: View) -> list[State]:
    """Every group before and after; what groups have in common before training is shown once."""
    firsts: list[State] = []
    lasts: list[State] = []
    for number, group in enumerate(view.groups):
        run = next((run for run in group.runs if run.snapshots), None)
        if run is None:
            continue
        seed = f"seed {run.config.seed}, " if len(group.runs) > 1 else ""
        of = f"{group.label}, {seed}" if view.compared else seed
        first, end = run.snapshots[0], run.snapshots[-1]
        if not any(same_variance(first, state.snapshot) for state in firsts):
            firsts.append(State(f"{of}step {first.step}", figures.UNCHANGED, first))
        if end.step > first.step:
            lasts.append(State(f"{of}step {end.step}", figures.style(number)["color"], end))
    if len(firsts) == 1:
        firsts = [firsts[0]._replace(name=f"before training, step {firsts[0].snapshot.step}")]
    return [*firsts, *lasts]


def same_variance(first: Snapshot, second: Snapshot) -> bool:
    return (
        first.step == second.step
        and first.variance.shape == second.variance.shape
        and torch.allclose(first.variance, second.variance, rtol=1e-4)
    )


def variance_panel(view: View) -> Panel:
    """Figure 1 of the paper: the variance of every coordinate, before and after."""
    title = "Variance per coordinate"
    shown = first_and_last_states(view)
    if not shown:
        return Panel(title, missing=UNWATCHED)
    variances = {state.name: state.snapshot.variance for state in shown}
    dims = sorted({dim for state in shown for dim in state.snapshot.spectra})
    what = "Variance of each coordinate of unit vectors over the mean of all (1: an equal share), "
    what += "before and after training; the coefficient of variation is 0 where all are equal."
    picture = figures.variance(variances, dims, colors=[state.color for state in shown])
    caption = view.caption(
        what, snapshot_rows([state.snapshot for state in shown]), intervals=False
    )
    return Panel(title, {"variance": picture}, caption)


def correlation_panel(view: View) -> Panel:
    """Figure 2 of the paper: correlations of a prefix with its residual, before and after."""
    title = "Correlation of prefix and residual"
    snapshots = {state.name: state.snapshot for state in first_and_last_states(view)}
    maps = {
        name: snapshot.correlation
        for name, snapshot in snapshots.items()
        if snapshot.correlation is not None
    }
    if not maps:
        return Panel(title, missing=f"No map. {UNWATCHED}")
    first = snapshots[next(iter(maps))]
    shape = maps[next(iter(maps))].shape
    left_out = [
        name for name in snapshots if name not in maps or snapshots[name].rows != first.rows
    ]
    left_out += [name for name, matrix in maps.items() if matrix.shape != shape]
    maps = {name: matrix for name, matrix in maps.items() if name not in left_out}
    what = f"|correlation| of the first {first.map_dim} coordinates with the others, on one colour "
    what += "scale; beside the rms stands that of independent coordinates, 1 / sqrt(N - 1)."
    if figures.block_note(maps):
        what += f" The map is {figures.block_note(maps)}."
    if left_out:
        what += f" Left out, of another width or N: {', '.join(left_out)}."
    picture = figures.correlation_map(maps, list(first.spectra), first.rows)
    caption = view.caption(what, snapshot_rows([first]), intervals=False)
    return Panel(title, {"correlation": picture}, caption)


def redundancy_panel(view: View) -> Panel:
    """How much a prefix and its residual repeat each other, over training."""
    title = "Redundancy of prefix and residual"
    dims = view.widths("correlation/rms")
    if not dims:
        return Panel(title, missing="No correlations of prefix and residual were logged yet.")
    floors = {
        value
        for run in view.runs
        for value in run.metrics.get("correlation/floor", {}).values()
        if value == value
    }
    same_floor = len(floors) > 0 and isclose(min(floors), max(floors), rel_tol=1e-6)
    floor = min(floors) if same_floor else None
    diagrams = [
        diagram._replace(floor=floor)
        for diagram in view.diagrams("correlation/rms", "rms correlation", "rms |correlation|")
    ]
    what = "Root mean square of the correlations of each prefix with the coordinates behind it. "
    if floor is not None:
        what += f"Dotted: {floor:.4f}, that of independent coordinates (1 / sqrt(N - 1))."
    names = ["rms", "max", "q50", "q90", "q99", "excess"]
    tables = [measure_table(view, group, "correlation", names, dims) for group in view.groups]
    picture = draw_diagrams(diagrams, view.keys())
    return Panel(title, {"redundancy": picture}, view.caption(what, view.rows()), tables)


def snapshot_rows(snapshots: Sequence[Snapshot]) -> str:
    """N of snapshots."""
    rows = {snapshot.rows for snapshot in snapshots}
    return f"N = {format_range(rows)} embeddings of validation texts."
