"""Show evaluations by mteb's tasks: a table for each model, table.md and quality.png."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mic.evaluation.results import Evaluation
from mic.evaluation.significance import (
    ALL,
    MEAN,
    ComparedMethods,
    compare_methods,
    group_evaluations,
)
from mic.evaluation.summary import QUALITY, TABLE
from mic.files import write_text
from mic.report import figures
from mic.report.scores import SeedScores, interval_values, score_table
from mic.report.tables import Table, rich_table, titled_markdown

PANELS = 12  # a picture of more tasks shows their mean alone


def show_mteb_evaluations(evaluations: Sequence[Evaluation], to: Path, command: str) -> None:
    """Print the main scores of every task at every width; write them into a folder.

    Raises InputError where the models have no common task, or its data differs.
    """
    groups = group_evaluations(evaluations)
    view = compare_methods(groups, baselines=False)
    many = len(groups) > 1
    tables = [task_table(label, scores, view) for label, scores in view.methods.items()]
    if many and ALL in view.headlines:
        tables.insert(0, score_table(ALL, MEAN, view.methods))
    notes = ["Main scores of mteb, times 100.", *mteb_notes(evaluations, view)]
    console = Console()
    for table in tables:
        console.print(rich_table(table))
    for note in notes:
        console.print(note, highlight=False, markup=False)
    to.mkdir(parents=True, exist_ok=True)
    drawn = view.headlines if len(view.headlines) <= PANELS else {ALL: MEAN}
    picture = figures.quality(
        drawn,
        interval_values(view.methods, "mean"),
        f"{' '.join(notes)} Made by `{command}`.",
        halves=interval_values(view.methods, "half"),
        untrained=0,
    )
    figures.save(picture, to / QUALITY)
    parts = [f"Made by `{command}`.", *notes, *map(titled_markdown, tables)]
    write_text(to / TABLE, "\n\n".join(parts) + "\n")
    console.print(f"{to / TABLE} and {to / QUALITY} have it all.", highlight=False, soft_wrap=True)


def task_table(label: str, scores: SeedScores, view: ComparedMethods) -> Table:
    """A row for each task, a column for each width; the mean over tasks comes last."""
    rows = sorted(view.headlines.items(), key=lambda item: item[0] == ALL)
    dims = sorted({dim for task, metric in rows for dim in scores[task][metric]})
    return Table(
        label,
        ["task", "main score", *map(str, dims)],
        [
            [task, metric, *(scores[task][metric][dim].shown(2) for dim in dims)]
            for task, metric in rows
        ],
    )


def mteb_notes(evaluations: Sequence[Evaluation], view: ComparedMethods) -> list[str]:
    first = evaluations[0].meta
    notes = [f"{first['suite']} by mteb {first['versions']['mteb']}; one encoding for all widths."]
    if len(evaluations) > len(view.methods):
        notes.append("Mean ± half of the 95 % t-interval over seeds.")
    if len(view.methods) > 1:
        notes.append("No bootstrap: mteb gives no scores of single items.")
    if view.left_out:
        notes.append(f"Left out, as not all models have them: {', '.join(view.left_out)}.")
    return notes
