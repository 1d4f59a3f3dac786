"""Who beats whom at which width: every two groups, task by task, and over all tasks."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from mic.console import bar
from mic.evaluation.groups import ALL, Group
from mic.metrics.bootstrap import DRAWS, LEVEL, Difference, bootstrap_scores, holm, score_difference
from mic.report.tables import Table

Samples = dict[tuple[str, int], np.ndarray]  # (task, width) -> the score, then that of every draw


class Pair(NamedTuple):
    """How much higher the first scores than the second, by task and width."""

    first: str
    second: str
    found: dict[tuple[str, int], Difference]


def compare_groups(groups: Sequence[Group], headlines: Mapping[str, str]) -> list[Pair]:
    """Every two groups on the tasks whose scores are made of items, at their common widths.

    Nothing where there is no such task or width.
    """
    tasks = tasks_with_items(groups, headlines)
    dims = common_dims(groups)
    if not tasks or not dims:
        return []
    whole = len(tasks) == len(headlines.keys() - {ALL}) > 1
    sizes = {task: len(groups[0].members[0].items[task].truth) for task in tasks}
    drawn: dict[str, Samples] = {group.label: {} for group in groups}
    with bar("bootstrap", len(groups) * len(tasks) * len(dims)) as advance:
        for group in groups:
            for task in tasks:
                items = [one.items[task] for one in group.members]
                for dim in dims:
                    drawn[group.label][task, dim] = bootstrap_scores(task, items, dim)
                    advance(1)
            if whole:
                for dim in dims:  # tasks are drawn apart, so the draws' mean is one of all tasks
                    every = [drawn[group.label][task, dim] for task in tasks]
                    drawn[group.label][ALL, dim] = np.mean(every, axis=0)
    sizes[ALL] = sum(sizes.values())
    return [
        Pair(
            a.label,
            b.label,
            {
                key: score_difference(one, drawn[b.label][key], sizes[key[0]])
                for key, one in drawn[a.label].items()
            },
        )
        for a, b in combinations(groups, 2)
    ]


def tasks_with_items(groups: Sequence[Group], headlines: Mapping[str, str]) -> list[str]:
    members = [one for group in groups for one in group.members]
    return [task for task in headlines if all(task in one.items for one in members)]


def common_dims(groups: Sequence[Group]) -> list[int]:
    found = [set(one.meta["dims"]) for group in groups for one in group.members]
    return sorted(set.intersection(*found))


def tables(pairs: Sequence[Pair]) -> list[Table]:
    """A table for every two groups; see `explanation`."""
    every = [one for pair in pairs for one in pair.found.values()]
    held = dict(zip(map(id, every), holm([one.p for one in every]), strict=True))
    made = []
    for pair in pairs:
        dims = sorted({dim for _, dim in pair.found})
        tasks = dict.fromkeys(task for task, _ in pair.found)
        rows = []
        for task in sorted(tasks, key=lambda task: task != ALL):
            cells = [pair.found[task, dim] for dim in dims]
            shown = [told(one, held[id(one)]) for one in cells]
            rows.append([task, f"{cells[0].items:,}", *shown])
        title = f"{pair.first} minus {pair.second}"
        made.append(Table(title, ["", "n", *map(str, dims)], rows))
    return made


def told(one: Difference, held: bool) -> str:
    """
    >>> told(Difference(1.25, 0.5, 2.0, 0.001, 100), held=True)
    '+1.2 [+0.5, +2.0] **'
    """
    mark = " **" if one.apart and held else " *" if one.apart else ""
    return f"{one.value:+.1f} [{one.low:+.1f}, {one.high:+.1f}]{mark}"


def explanation(pairs: Sequence[Pair], seeds: int) -> str:
    """What the tables' intervals and stars mean, and what they do not."""
    every = [one for pair in pairs for one in pair.found.values()]
    apart, chance = sum(one.apart for one in every), (1 - LEVEL) * len(every)
    text = (
        f"Differences in points with {LEVEL:.0%} intervals, by a paired bootstrap of n test items "
        f"({DRAWS:,} draws, fixed seed). * the interval leaves out 0, as {apart} of {len(every)} "
        f"do, and about {chance:.1f} would by chance if no model differed from any other; ** it "
        f"also holds when all {len(every)} are counted (Holm, 5 %)."
    )
    if seeds > 1:
        text += " Of several seeds the mean is compared: the interval is about other test items,"
        text += " not about other seeds."
    return text
