"""Write the report of runs as one HTML page and as pictures: `mic report RUN...`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mic.config.loading import to_yaml
from mic.errors import InputError
from mic.files import write_text
from mic.report.html import draw_pictures, render_page, save_pictures
from mic.report.panel import View
from mic.report.panels import geometry, overview, quality, training
from mic.tracking import run_directory
from mic.tracking.reader import read_run
from mic.tracking.seed_groups import group_by_seed

PAGE = "report.html"
PANELS = (
    quality.quality_panel,
    geometry.spectra_panel,
    geometry.collapse_panel,
    geometry.variance_panel,
    geometry.correlation_panel,
    geometry.redundancy_panel,
    training.terms_panel,
    training.balance_panel,
    quality.validation_panel,
    training.throughput_panel,
    overview.config_panel,
)


def report(folders: Sequence[Path], to: Path | None = None) -> Path:
    """Write the page and its pictures, and return the page's path.

    One run's page is RUN/report.html with the pictures in RUN/figures/report, unless `to` names
    a folder for all. Several runs are compared: those that differ by their seed alone are a group,
    of which means and 95 % intervals are shown.

    Raises InputError for a folder without a run, a damaged file, or several runs without `to`.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if to is None and len(folders) > 1:
        raise InputError(f"{len(folders)} runs: add --to FOLDER, where their comparison goes")
    if to is not None and to.exists() and not to.is_dir():
        raise InputError(f"--to {to}: is a file; name a folder")
    runs = [read_run(folder) for folder in folders]
    place = [] if to is None else ["--to", str(to)]
    command = shlex.join(["mic", "report", *map(str, folders), *place])
    view = View(group_by_seed(runs), command)
    panels = [panel(view) for panel in PANELS]
    pictures = draw_pictures(panels)
    top = runs[0].name if len(runs) == 1 else " · ".join(view.labels)
    page = render_page(
        f"mic: {top}",
        overview.seed_warnings(view),
        overview.run_table(view),
        panels,
        pictures,
        {
            f"config.yaml of {group.runs[0].name}": to_yaml(group.runs[0].config)
            for group in view.groups
        },
    )
    beside = folders[0] / run_directory.FIGURES / "report" if to is None else to
    save_pictures(pictures, beside, clear=to is None)  # a folder of the user's keeps its files
    file = (folders[0] if to is None else to) / PAGE
    write_text(file, page)
    return file
