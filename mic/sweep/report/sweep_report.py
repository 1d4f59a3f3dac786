"""Write a sweep's tables, pictures, page and best config: `mic report --sweep DIR`."""

import shlex
from pathlib import Path

from mic.files import write_text
from mic.report.html import draw_pictures, render_page, save_pictures
from mic.report.run_report import PAGE
from mic.sweep.report import best, notes
from mic.sweep.report.curves import training_panel
from mic.sweep.report.plots import contour_panel, importance_panel, pareto_panel, slices_panel
from mic.sweep.report.read import read_folder
from mic.sweep.report.table import settings_csv, settings_markdown, settings_table, shorten_table
from mic.sweep.report.view import SweepView
from mic.sweep.report.widths import widths_panel
from mic.tracking import run_directory

PANELS = (
    widths_panel,
    pareto_panel,
    importance_panel,
    slices_panel,
    contour_panel,
    training_panel,
    best.test_scores_panel,
    best.best_config_panel,
    notes.runs_panel,
)


def report_sweep(folder: Path) -> Path:
    """Write table.csv, table.md, best.yaml, figures and the page into a sweep's folder.

    It may be called at any moment of the sweep; best.yaml is there once a setting is finished with
    all seeds. Returns the page's path.

    Raises InputError for a folder without a sweep, or a damaged file.
    """
    view = view_of(folder)
    warnings = notes.sweep_warnings(view)
    panels = [panel(view) for panel in PANELS]
    pictures = draw_pictures(panels)
    page = render_page(
        f"mic: sweep {view.name}",
        warnings,
        shorten_table(settings_table(view)),
        panels,
        pictures,
        {},
    )
    save_pictures(pictures, folder / run_directory.FIGURES, clear=True)
    write_text(folder / "table.csv", settings_csv(view))
    write_text(folder / "table.md", settings_markdown(view, warnings))
    best.write_best(view, folder / best.BEST)
    write_text(folder / PAGE, page)
    return folder / PAGE


def view_of(folder: Path) -> SweepView:
    """Read a sweep's folder."""
    sweep, settings = read_folder(folder)
    command = shlex.join(["mic", "report", "--sweep", str(folder)])
    return SweepView(folder, sweep, sweep.base, settings, command)
