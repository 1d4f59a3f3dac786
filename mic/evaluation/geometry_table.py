"""Tables of geometry: a row a baseline or a group of models, a column a width."""

from collections.abc import Sequence

from mic.evaluation.geometry import EXCESS, RANK, TEXTS
from mic.evaluation.groups import Group, bases_of
from mic.evaluation.results import Evaluation
from mic.report.tables import Table
from mic.tracking.reader import OWN
from mic.tracking.seed_groups import Interval, interval

SHOWN = {RANK: ("effective rank", 1, 1), EXCESS: ("correlation excess x 1000", 1000, 2)}
Rows = dict[str, dict[int, Interval]]  # label -> width -> over seeds


def geometry_tables(groups: Sequence[Group], baselines: bool) -> list[Table]:
    """A table a measure; none where no evaluation has its geometry, as older ones have not."""
    tables = []
    for measure, (title, scale, digits) in SHOWN.items():
        rows = baseline_rows(groups, measure, scale) if baselines else {}
        for group in groups:
            if over := over_members(group.members, OWN, measure, scale):
                rows[group.label] = over
        dims = sorted({dim for row in rows.values() for dim in row})
        cells = [
            [label, *(row[dim].shown(digits) if dim in row else "-" for dim in dims)]
            for label, row in rows.items()
        ]
        if dims:
            tables.append(Table(f"geometry: {title}", ["", *map(str, dims)], cells))
    return tables


def baseline_rows(groups: Sequence[Group], measure: str, scale: float) -> Rows:
    return {
        f"{name}{of}": over_members(starts, name, measure, scale)
        for starts, of in bases_of(groups)
        for name in starts[0].baselines
        if all(name in one.geometry for one in starts)
    }


def over_members(
    members: Sequence[Evaluation], method: str, measure: str, scale: float
) -> dict[int, Interval]:
    """Mean and interval over seeds; nothing unless all of them were measured."""
    if not all(method in one.geometry for one in members):
        return {}
    found = [one.geometry[method][measure] for one in members]
    return {
        dim: interval([scale * one[dim] for one in found])
        for dim in found[0]
        if all(dim in one for one in found)
    }


def explanation(groups: Sequence[Group]) -> str:
    """What the tables are of."""
    known = [one.meta["texts"] for group in groups for one in group.members if one.geometry]
    texts = min(TEXTS, *known)
    return (
        f"Geometry is of unit vectors of {texts:,} of the suite's texts: the effective rank of the "
        "first numbers, and the mean squared correlation of the first numbers with the others, "
        "less what chance has."
    )
