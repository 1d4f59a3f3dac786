"""An advice on the terminal, and as table.md, advice.json and kept.png."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from mic.evaluation.advise.quality import Point
from mic.evaluation.advise.selection import size
from mic.evaluation.advise.words import Report, how_to, ladder, notes, table, verdict
from mic.files import write_json, write_text
from mic.metrics.quantization import PRECISIONS
from mic.report import figures
from mic.report.tables import rich_table, titled_markdown
from mic.tracking.run_directory import git_commit, versions

TABLE, ADVICE, PICTURE = "table.md", "advice.json", "kept.png"


def show(report: Report) -> None:
    """Print the table, what it means, and last what to do."""
    console = Console()
    console.print(rich_table(table(report, narrow=True)))
    for text in [*notes(report), "", *verdict(report), *ladder(report), *how_to(report)]:
        console.print(text, highlight=False, markup=False, soft_wrap=text.startswith("  "))


def write(report: Report, to: Path, command: str, about: dict[str, Any]) -> None:
    """Write the three files, each whole or not at all."""
    to.mkdir(parents=True, exist_ok=True)
    figures.save(
        picture(report, f"{' '.join(verdict(report)[:1])} Made by `{command}`."), to / PICTURE
    )
    code = "\n".join(["```", *(line.strip() for line in how_to(report)), "```"])
    parts = [
        *verdict(report),
        *ladder(report),
        code,
        titled_markdown(table(report)),
        *notes(report),
    ]
    write_text(to / TABLE, "\n\n".join([f"Made by `{command}`.", *parts]) + "\n")
    write_json(to / ADVICE, {**as_json(report), **about, "command": command})


def as_json(report: Report) -> dict[str, Any]:
    """Every figure, with the points that are advised."""
    advice = report.advice
    return {
        "model": report.model.given,
        "documents": report.documents,
        "queries": len(report.collection.queries),
        "metric": report.found.metric,
        "keep": report.keep,
        "use": None if advice.sure is None else advice.sure._asdict(),
        "perhaps": None if advice.perhaps is None else advice.perhaps._asdict(),
        "full": report.full._asdict(),
        "nested": report.nested,
        "points": [
            {
                **point._asdict(),
                "bytes": size(point),
                "index_bytes": size(point) * report.documents,
                "quality": kept.quality,
                "kept": kept.share,
                "interval": [kept.low, kept.high],
                "queries_per_second": report.speeds.found[point].per_second,
                "times": report.speeds.found[point].times,
            }
            for point, kept in report.kept.items()
        ],
        "searched_for_speed": report.speeds.rows,
        "versions": versions(),
        "git_commit": git_commit(),
    }


def picture(report: Report, caption: str) -> Figure:
    """What is kept against the bytes of a vector: a line a precision, with its intervals."""
    figure, (axis,) = figures.panels(1, 4.2)
    for number, precision in enumerate(PRECISIONS):
        points = [point for point in report.kept if point.precision == precision]
        kept = np.array([report.kept[point] for point in points])
        x, look = [size(point) for point in points], figures.style(number)
        axis.plot(x, kept[:, 1], label=precision, markersize=4, **look)
        axis.fill_between(x, kept[:, 2], kept[:, 3], color=look["color"], alpha=0.15, linewidth=0)
        for point, at, share in zip(points, x, kept[:, 1], strict=True):
            axis.annotate(
                str(point.dim),
                (at, share),
                xytext=(6, -9),
                textcoords="offset points",
                fontsize=7,
                color=look["color"],
            )
    axis.axhline(100 * report.keep, color="black", linewidth=0.8, linestyle=":", label="wanted")
    ringed(axis, report, report.advice.sure)
    axis.set_xscale("log", base=2)
    ticks = sorted({size(point) for point in report.kept})
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45, fontsize=7)
    axis.minorticks_off()
    axis.margins(x=0.08)
    axis.set(xlabel="bytes of a vector (beside a point: its numbers)")
    axis.set_ylabel(f"{report.found.metric} kept, of the full vectors' (%)")
    figures.legend(figure, axis)
    return figures.captioned(figure, caption)


def ringed(axis: Any, report: Report, point: Point | None) -> None:
    """A ring around the vectors that are advised."""
    if point is not None:
        place = ([size(point)], [report.kept[point].share])
        axis.scatter(*place, s=170, facecolors="none", edgecolors="black", label="use", zorder=5)
