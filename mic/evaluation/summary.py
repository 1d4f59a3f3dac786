"""Show evaluations: tables on the terminal, table.md and quality.png."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mic.evaluation.geometry import explain_geometry, geometry_tables
from mic.evaluation.models import truncation_cost
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import PCA, RAW
from mic.evaluation.significance import (
    ALL,
    ComparedMethods,
    EvaluationGroup,
    compare_groups,
    compare_methods,
    difference_tables,
    explain_differences,
    group_evaluations,
    tasks_with_items,
)
from mic.files import write_text
from mic.report import figures
from mic.report.scores import interval_values, score_table
from mic.report.tables import rich_table, titled_markdown

TABLE, QUALITY = "table.md", "quality.png"


def show_evaluations(
    evaluations: Sequence[Evaluation], to: Path, command: str, baselines: bool
) -> None:
    """Print headlines and differences between models; write them with all metrics into a folder.

    Raises InputError where the models have no common task, or its data differs.
    """
    groups = group_evaluations(evaluations)
    view = compare_methods(groups, baselines)
    main = [score_table(task, metric, view.methods) for task, metric in view.headlines.items()]
    pairs = compare_groups(groups, view.headlines) if len(groups) > 1 else []
    seeds = max(len(group.members) for group in groups)
    verdict = explain_differences(pairs, seeds) if pairs else ""
    console = Console()
    for table in [*main, *difference_tables(pairs)]:
        console.print(rich_table(table))
    notes = evaluation_notes(view, groups, baselines)
    for note in [verdict, *notes]:
        if note:
            console.print(note, highlight=False, markup=False)
    to.mkdir(parents=True, exist_ok=True)
    caption = f"{' '.join(notes)} Made by `{command}`."
    picture = figures.quality(
        view.headlines,
        interval_values(view.methods, "mean"),
        caption,
        halves=interval_values(view.methods, "half"),
        untrained=view.untrained,
    )
    figures.save(picture, to / QUALITY)
    others = [
        score_table(task, metric, view.methods)
        for task in view.headlines
        for metric in next(iter(view.methods.values()))[task]
        if metric != view.headlines[task]
    ]
    paragraphs = [f"Made by `{command}`.", *notes, *map(titled_markdown, main)]
    paragraphs += [verdict, *map(titled_markdown, difference_tables(pairs))] if pairs else []
    paragraphs += map(titled_markdown, others)
    if spread := geometry_tables(groups, baselines):
        paragraphs += [explain_geometry(groups), *map(titled_markdown, spread)]
    write_text(to / TABLE, "\n\n".join(paragraphs) + "\n")
    console.print(f"{to / TABLE} and {to / QUALITY} have it all.", highlight=False, soft_wrap=True)


def evaluation_notes(
    view: ComparedMethods, groups: Sequence[EvaluationGroup], baselines: bool
) -> list[str]:
    """What the tables' values mean: units, seeds, baselines, and what is missing."""
    first = groups[0].members[0].meta
    notes = ["Per cent."]
    sizes = [len(group.members) for group in groups]
    if max(sizes) > 1:
        count = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        notes.append(f"Mean ± half of the 95 % t-interval over seeds ({count}).")
    if baselines and view.untrained:
        members = [member for group in groups for member in group.members]
        pca, runs = first["pca"], any(RAW in member.baselines for member in members)
        whose = "the encoder before training" if runs else "the model itself"
        own_row = "" if runs else " Its own row is its raw truncation."
        fitted = (
            f"PCA fitted on {pca['fitted_on']:,} training texts of "
            f"{', '.join(pca['training_texts_of'])}, none of which is evaluated"
            if any(PCA in member.baselines for member in members)
            else f"no PCA, as {pca['fitted_on']:,} training texts are too few to fit it on"
        )
        turned = f"random rotation, the mean of {first['rotations']}"
        notes.append(f"Baselines are of {whose}: {fitted}; {turned}.{own_row}")
    apart = view.headlines.keys() - {ALL, *tasks_with_items(groups, view.headlines)}
    if len(groups) > 1 and apart:
        names = ", ".join(sorted(apart))
        notes.append(f"No bootstrap of {names}: these tasks have no scores of single items.")
    notes += filter(None, truncation_costs(view, groups))
    if view.left_out:
        notes.append(f"Left out, as not all models have them: {', '.join(view.left_out)}.")
    return notes


def truncation_costs(view: ComparedMethods, groups: Sequence[EvaluationGroup]) -> Iterator[str]:
    """Say what truncation costs each model of which no nested training is known."""
    task, metric = next(iter(view.headlines.items()))  # over all tasks, if there are several
    of = "its quality on this suite" if task == ALL else f"its {metric} on {task}"
    for group in groups:
        meta = group.members[0].meta
        if meta.get("nested") is False:  # an older evaluation does not say
            values = {
                dim: interval.mean
                for dim, interval in view.methods[group.label][task][metric].items()
            }
            yield truncation_cost(group.label, values, meta["width"], of)
