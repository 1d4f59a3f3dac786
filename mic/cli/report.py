"""`mic report`: write runs, or a sweep, as one HTML page and pictures."""

import argparse
from pathlib import Path
from typing import Any

from mic.errors import InputError


def add_report(actions: Any) -> None:
    report = actions.add_parser(
        "report",
        help="runs as one HTML page and pictures",
        description="Write what a run has measured, so far or to its end, as one HTML page that "
        "needs no network, and as PNGs: RUN/report.html and RUN/figures/report. Several runs are "
        "compared, with mean and 95 % interval over those that differ by their seed alone. Of a "
        "sweep: its table, what is best at each width, what matters, and the best config.",
    )
    report.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="a run directory")
    report.add_argument(
        "--sweep",
        metavar="DIR",
        type=Path,
        help="a sweep's folder, in the place of runs; table.csv, table.md, best.yaml, report.html "
        "and figures go into it",
    )
    report.add_argument(
        "--to", metavar="FOLDER", type=Path, help="where page and PNGs go (needed for several runs)"
    )
    report.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> None:
    if options.sweep is None:
        if not options.runs:
            raise InputError("report: name a run directory, or --sweep DIR")
        from mic.report.run_report import report

        print(report(options.runs, options.to))
        return
    if options.runs or options.to is not None:
        other = f"RUN {options.runs[0]}" if options.runs else f"--to {options.to}"
        raise InputError(
            f"--sweep {options.sweep}: takes no {other}; a sweep's report goes into its own folder"
        )
    from mic.sweep.report.sweep_report import report_sweep

    print(report_sweep(options.sweep))
