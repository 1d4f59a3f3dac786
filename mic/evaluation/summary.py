"""What was found, for people: tables on the terminal, table.md, and quality.png."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mic.evaluation.geometry_table import explanation as geometry_told
from mic.evaluation.geometry_table import geometry_tables
from mic.evaluation.groups import ALL, Compared, Group, compared, grouped
from mic.evaluation.results import Evaluation
from mic.evaluation.scoring import PCA, RAW
from mic.evaluation.significance import compare_groups, explanation, tables, tasks_with_items
from mic.evaluation.truncation import cost
from mic.files import write_text
from mic.report import figures
from mic.report.scores import interval_values, score_table
from mic.report.tables import rich_table, titled_markdown

TABLE, QUALITY = "table.md", "quality.png"


def show(found: Sequence[Evaluation], to: Path, command: str, baselines: bool) -> None:
    """Print the headlines and who beats whom; write them, with all other metrics, into a folder.

    Raises InputError where the models were asked different questions.
    """
    groups = grouped(found)
    view = compared(groups, baselines)
    main = [score_table(task, metric, view.methods) for task, metric in view.headlines.items()]
    pairs = compare_groups(groups, view.headlines) if len(groups) > 1 else []
    seeds = max(len(group.members) for group in groups)
    verdict = explanation(pairs, seeds) if pairs else ""
    console = Console()
    for one in [*main, *tables(pairs)]:
        console.print(rich_table(one))
    notes = about(view, groups, baselines)
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
    parts = [f"Made by `{command}`.", *notes, *map(titled_markdown, main)]
    parts += [verdict, *map(titled_markdown, tables(pairs))] if pairs else []
    parts += map(titled_markdown, others)
    if spread := geometry_tables(groups, baselines):
        parts += [geometry_told(groups), *map(titled_markdown, spread)]
    write_text(to / TABLE, "\n\n".join(parts) + "\n")
    console.print(f"{to / TABLE} and {to / QUALITY} have it all.", highlight=False, soft_wrap=True)


def about(view: Compared, groups: Sequence[Group], baselines: bool) -> list[str]:
    """What a reader should know of the tables."""
    first = groups[0].members[0].meta
    notes = ["Per cent."]
    sizes = [len(group.members) for group in groups]
    if max(sizes) > 1:
        told = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        notes.append(f"Mean ± half of the 95 % t-interval over seeds ({told}).")
    if baselines and view.untrained:
        pca, runs = first["pca"], any(RAW in one.baselines for g in groups for one in g.members)
        whose = "the encoder before training" if runs else "the model itself"
        own = "" if runs else " Its own row is its raw truncation."
        fitted = (
            f"PCA fitted on {pca['fitted_on']:,} training texts of "
            f"{', '.join(pca['training_texts_of'])}, none of which is judged"
            if any(PCA in one.baselines for g in groups for one in g.members)
            else f"no PCA, as {pca['fitted_on']:,} training texts are too few to fit it on"
        )
        turned = f"random rotation, the mean of {first['rotations']}"
        notes.append(f"Baselines are of {whose}: {fitted}; {turned}.{own}")
    apart = view.headlines.keys() - {ALL, *tasks_with_items(groups, view.headlines)}
    if len(groups) > 1 and apart:
        names = ", ".join(sorted(apart))
        notes.append(f"No bootstrap of {names}: of these no single items are known.")
    notes += filter(None, costs(view, groups))
    if view.left_out:
        notes.append(f"Left out, as not all models have them: {', '.join(view.left_out)}.")
    return notes


def costs(view: Compared, groups: Sequence[Group]) -> Iterator[str]:
    """What cutting costs each model of which no nested training is known."""
    task, metric = next(iter(view.headlines.items()))  # over all tasks, if there are several
    of = "its quality on this suite" if task == ALL else f"its {metric} on {task}"
    for group in groups:
        meta = group.members[0].meta
        if meta.get("nested") is False:  # an older evaluation does not say
            values = {dim: one.mean for dim, one in view.methods[group.label][task][metric].items()}
            yield cost(group.label, values, meta["width"], of)
