"""Group evaluations by seed, and compare the groups by a paired bootstrap at every width."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from mic.console import bar
from mic.errors import InputError
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import Results
from mic.metrics.bootstrap import DRAWS, LEVEL, Difference, bootstrap_scores, holm, score_difference
from mic.report.scores import SeedScores, scores_over_seeds
from mic.report.tables import Table
from mic.tracking.seed_groups import common_name

ALL, MEAN = "all tasks", "mean"  # the tasks' headlines averaged, as a task with one metric


class EvaluationGroup(NamedTuple):
    """A model, or one model trained with several seeds."""

    label: str
    members: list[Evaluation]


class ComparedMethods(NamedTuple):
    """Scores by method, the first `untrained` being baselines, and each task's headline metric."""

    methods: dict[str, SeedScores]
    untrained: int
    headlines: dict[str, str]
    left_out: list[str]


def group_evaluations(evaluations: Sequence[Evaluation]) -> list[EvaluationGroup]:
    """The groups in the order of their first members, each with a unique label.

    Raises InputError for a model that is given twice.
    """
    groups: dict[str, list[Evaluation]] = {}
    weights: dict[str, str] = {}
    for evaluation in evaluations:
        if evaluation.meta["weights"] in weights:
            first = weights[evaluation.meta["weights"]]
            raise InputError(f"{evaluation.name} and {first} have the same weights; name one")
        weights[evaluation.meta["weights"]] = evaluation.name
        groups.setdefault(evaluation.meta["group"], []).append(evaluation)
    labels = [common_name([evaluation.name for evaluation in group]) for group in groups.values()]
    return [
        EvaluationGroup(label if labels.count(label) == 1 else label_with_hash(group[0]), group)
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def label_with_hash(evaluation: Evaluation) -> str:
    return f"{evaluation.name} ({evaluation.meta['weights'][:8]})"


def compare_methods(groups: Sequence[EvaluationGroup], baselines: bool) -> ComparedMethods:
    """The scores that tables and figures show, of the tasks that all models have.

    Raises InputError where no task is common, or one task has different data for two models.
    """
    members = [member for group in groups for member in group.members]
    first = members[0]
    tasks = [task for task in first.results if all(task in member.results for member in members)]
    for task in tasks:
        for member in members:
            if member.meta["tasks"][task] != first.meta["tasks"][task]:
                raise InputError(
                    f"{member.name} and {first.name}: task {task!r} has other texts or labels; "
                    "evaluate both with one suite and --data"
                )
    if not tasks:
        raise InputError("the models have no task in common; evaluate them with one suite")
    headlines = {task: first.meta["headlines"][task] for task in tasks}
    shown = {ALL: MEAN, **headlines} if len(tasks) > 1 else headlines
    methods = baselines_of(groups, headlines) if baselines else {}
    count = len(methods)
    for group in groups:
        methods[group.label] = summarize_seeds(
            [member.results for member in group.members], headlines
        )
    left_out = sorted({task for member in members for task in member.results} - set(tasks))
    return ComparedMethods(methods, count, shown, left_out)


def baselines_of(
    groups: Sequence[EvaluationGroup], headlines: Mapping[str, str]
) -> dict[str, SeedScores]:
    """The baselines of every encoder, once each; a run's are those of its untrained encoder."""
    return {
        f"{name}{of}": summarize_seeds([start.baselines[name] for start in starts], headlines)
        for starts, of in bases_of(groups)
        for name in starts[0].baselines
        if all(name in start.baselines for start in starts)
    }


def bases_of(groups: Sequence[EvaluationGroup]) -> list[tuple[list[Evaluation], str]]:
    """For each group, an evaluation of every untrained encoder that no group before it has.

    The seeds of a group may have started from one encoder or from one each. The text of each is
    added to the names of its baselines, where there are several groups with baselines.
    """
    known: set[str] = set()
    bases: list[tuple[list[Evaluation], str]] = []
    for group in groups:
        starts = {
            member.meta["base"]: member for member in reversed(group.members) if member.baselines
        }
        fresh = [member for base, member in reversed(starts.items()) if base not in known]
        known |= starts.keys()
        if fresh:
            bases.append((fresh, group.label))
    return [(fresh, f" ({label})" if len(bases) > 1 else "") for fresh, label in bases]


def summarize_seeds(results: Sequence[Results], headlines: Mapping[str, str]) -> SeedScores:
    """Mean and interval over seeds of each common task, and of the mean of several."""
    chosen = [{task: scores[task] for task in headlines} for scores in results]
    if len(headlines) > 1:
        chosen = [{ALL: {MEAN: mean_of(scores, headlines)}, **scores} for scores in chosen]
    return scores_over_seeds(chosen)


def mean_of(results: Results, headlines: Mapping[str, str]) -> dict[int, float]:
    """The mean of the headlines at every width that all of them have."""
    columns = [results[task][metric] for task, metric in headlines.items()]
    return {
        dim: sum(values[dim] for values in columns) / len(columns)
        for dim in columns[0]
        if all(dim in values for values in columns)
    }


Samples = dict[tuple[str, int], np.ndarray]  # (task, width) -> the score, then that of every draw


class GroupPair(NamedTuple):
    """The scores of the first group minus those of the second, by task and width."""

    first: str
    second: str
    differences: dict[tuple[str, int], Difference]


def compare_groups(
    groups: Sequence[EvaluationGroup], headlines: Mapping[str, str]
) -> list[GroupPair]:
    """Compare every two groups on the tasks that have items, at their common widths.

    Empty where there is no such task or width.
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
                items = [member.items[task] for member in group.members]
                for dim in dims:
                    drawn[group.label][task, dim] = bootstrap_scores(task, items, dim)
                    advance(1)
            if whole:
                for dim in dims:  # tasks are drawn apart, so the draws' mean is one of all tasks
                    every = [drawn[group.label][task, dim] for task in tasks]
                    drawn[group.label][ALL, dim] = np.mean(every, axis=0)
    sizes[ALL] = sum(sizes.values())
    return [
        GroupPair(
            a.label,
            b.label,
            {
                key: score_difference(values, drawn[b.label][key], sizes[key[0]])
                for key, values in drawn[a.label].items()
            },
        )
        for a, b in combinations(groups, 2)
    ]


def tasks_with_items(groups: Sequence[EvaluationGroup], headlines: Mapping[str, str]) -> list[str]:
    members = [member for group in groups for member in group.members]
    return [task for task in headlines if all(task in member.items for member in members)]


def common_dims(groups: Sequence[EvaluationGroup]) -> list[int]:
    widths = [set(member.meta["dims"]) for group in groups for member in group.members]
    return sorted(set.intersection(*widths))


def difference_tables(pairs: Sequence[GroupPair]) -> list[Table]:
    """A table for every two groups; `explain_differences` says what it shows."""
    every = [gap for pair in pairs for gap in pair.differences.values()]
    held = dict(zip(map(id, every), holm([gap.p for gap in every]), strict=True))
    tables = []
    for pair in pairs:
        dims = sorted({dim for _, dim in pair.differences})
        tasks = dict.fromkeys(task for task, _ in pair.differences)
        rows = []
        for task in sorted(tasks, key=lambda task: task != ALL):
            cells = [pair.differences[task, dim] for dim in dims]
            shown = [format_difference(gap, held[id(gap)]) for gap in cells]
            rows.append([task, f"{cells[0].items:,}", *shown])
        title = f"{pair.first} minus {pair.second}"
        tables.append(Table(title, ["", "n", *map(str, dims)], rows))
    return tables


def format_difference(gap: Difference, held: bool) -> str:
    """
    >>> format_difference(Difference(1.25, 0.5, 2.0, 0.001, 100), held=True)
    '+1.2 [+0.5, +2.0] **'
    """
    mark = " **" if gap.apart and held else " *" if gap.apart else ""
    return f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]{mark}"


def explain_differences(pairs: Sequence[GroupPair], seeds: int) -> str:
    """Say what the tables' intervals and stars mean."""
    every = [gap for pair in pairs for gap in pair.differences.values()]
    apart, chance = sum(gap.apart for gap in every), (1 - LEVEL) * len(every)
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
