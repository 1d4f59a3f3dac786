"""A sweep as tables, pictures, one page and the best config: `mic report --sweep DIR`."""

import shlex
from pathlib import Path

from mic.files import write_text
from mic.report.html import draw_pictures, render_page, save_pictures
from mic.report.run_report import PAGE
from mic.sweep.report import about, best
from mic.sweep.report.curves import training
from mic.sweep.report.plots import contour, importance, pareto, slices
from mic.sweep.report.read import read_folder
from mic.sweep.report.table import as_csv, as_markdown, settings_table, top
from mic.sweep.report.view import SweepView
from mic.sweep.report.widths import best_per_width
from mic.tracking import run_directory

PANELS = (
    best_per_width,
    pareto,
    importance,
    slices,
    contour,
    training,
    best.test_scores,
    best.best_config_panel,
    about.trials_panel,
)


def report_sweep(folder: Path) -> Path:
    """Write table.csv, table.md, best.yaml, figures and the page into a sweep's folder.

    It may be called at any moment of the sweep; best.yaml is there once a setting is finished with
    all seeds. Returns the page's path.

    Raises InputError for a folder without a sweep, or a damaged file.
    """
    view = view_of(folder)
    notes = about.sweep_warnings(view)
    panels = [panel(view) for panel in PANELS]
    pictures = draw_pictures(panels)
    page = render_page(
        f"mic: sweep {view.name}",
        notes,
        top(settings_table(view)),
        panels,
        pictures,
        {},
    )
    save_pictures(pictures, folder / run_directory.FIGURES, clear=True)
    write_text(folder / "table.csv", as_csv(view))
    write_text(folder / "table.md", as_markdown(view, notes))
    best.write_best(view, folder / best.BEST)
    write_text(folder / PAGE, page)
    return folder / PAGE


def view_of(folder: Path) -> SweepView:
    """A sweep's folder, read."""
    sweep, settings = read_folder(folder)
    command = shlex.join(["mic", "report", "--sweep", str(folder)])
    return SweepView(folder, sweep, sweep.base, settings, command)
