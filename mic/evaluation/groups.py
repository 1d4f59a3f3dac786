"""Models side by side: those that differ by their seed alone together, with mean and interval."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mic.errors import InputError
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import Results
from mic.report.scores import SeedScores, scores_over_seeds
from mic.tracking.seed_groups import common

ALL, MEAN = "all tasks", "mean"  # the tasks' headlines averaged, as a task with one metric


class Group(NamedTuple):
    """A model, or one model trained with several seeds."""

    label: str
    members: list[Evaluation]


class Compared(NamedTuple):
    """Methods by their label, the first `untrained` of them baselines; what is shown of a task."""

    methods: dict[str, SeedScores]
    untrained: int
    headlines: dict[str, str]
    left_out: list[str]


def grouped(found: Sequence[Evaluation]) -> list[Group]:
    """The groups in the order of their first members, each with a label of its own.

    Raises InputError for a model that is there twice.
    """
    groups: dict[str, list[Evaluation]] = {}
    weights: dict[str, str] = {}
    for one in found:
        if one.meta["weights"] in weights:
            raise InputError(
                f"{one.name} and {weights[one.meta['weights']]} have the same weights; name one"
            )
        weights[one.meta["weights"]] = one.name
        groups.setdefault(one.meta["group"], []).append(one)
    labels = [common([one.name for one in group]) for group in groups.values()]
    return [
        Group(label if labels.count(label) == 1 else told_apart(group[0]), group)
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def told_apart(one: Evaluation) -> str:
    return f"{one.name} ({one.meta['weights'][:8]})"


def compared(groups: Sequence[Group], baselines: bool) -> Compared:
    """All that tables and figures show: of the tasks that every model was asked.

    Raises InputError where no task is common, or models were asked different questions by one name.
    """
    members = [one for group in groups for one in group.members]
    first = members[0]
    tasks = [task for task in first.results if all(task in one.results for one in members)]
    for task in tasks:
        for one in members:
            if one.meta["tasks"][task] != first.meta["tasks"][task]:
                raise InputError(
                    f"{one.name} and {first.name}: task {task!r} was about other texts or labels; "
                    "evaluate both with one suite and --data"
                )
    if not tasks:
        raise InputError("the models have no task in common; evaluate them with one suite")
    headlines = {task: first.meta["headlines"][task] for task in tasks}
    shown = {ALL: MEAN, **headlines} if len(tasks) > 1 else headlines
    methods = baselines_of(groups, headlines) if baselines else {}
    count = len(methods)
    for group in groups:
        methods[group.label] = summary([one.results for one in group.members], headlines)
    left_out = sorted({task for one in members for task in one.results} - set(tasks))
    return Compared(methods, count, shown, left_out)


def baselines_of(groups: Sequence[Group], headlines: Mapping[str, str]) -> dict[str, SeedScores]:
    """Every encoder's baselines once: a run's are those of what it began with."""
    return {
        f"{name}{of}": summary([one.baselines[name] for one in starts], headlines)
        for starts, of in bases_of(groups)
        for name in starts[0].baselines
        if all(name in one.baselines for one in starts)
    }


def bases_of(groups: Sequence[Group]) -> list[tuple[list[Evaluation], str]]:
    """Of each group an evaluation for every encoder with baselines that no group before it has.

    Seeds may have begun from one encoder or from one each. With them whose they are, where there
    are several groups of them.
    """
    known: set[str] = set()
    found: list[tuple[list[Evaluation], str]] = []
    for group in groups:
        starts = {one.meta["base"]: one for one in reversed(group.members) if one.baselines}
        own = [one for base, one in reversed(starts.items()) if base not in known]
        known |= starts.keys()
        if own:
            found.append((own, group.label))
    return [(own, f" ({label})" if len(found) > 1 else "") for own, label in found]


def summary(found: Sequence[Results], headlines: Mapping[str, str]) -> SeedScores:
    """Mean and interval over seeds of the common tasks, and first of their mean."""
    kept = [{task: one[task] for task in headlines} for one in found]
    if len(headlines) > 1:
        kept = [{ALL: {MEAN: mean_of(one, headlines)}, **one} for one in kept]
    return scores_over_seeds(kept)


def mean_of(results: Results, headlines: Mapping[str, str]) -> dict[int, float]:
    """The mean of the headlines at every width that all of them have."""
    columns = [results[task][metric] for task, metric in headlines.items()]
    return {
        dim: sum(one[dim] for one in columns) / len(columns)
        for dim in columns[0]
        if all(dim in one for one in columns)
    }
