"""Show an advice on the terminal, and write it as table.md, advice.json and kept.png."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from mic.evaluation.advise.collection import Collection
from mic.evaluation.advise.quality import CALIBRATION, NDCG, OperatingPoint, QueryScores
from mic.evaluation.advise.selection import Advice, KeptShare, choose, vector_bytes
from mic.evaluation.advise.speed import Speed, Speeds
from mic.evaluation.models import Model, truncation_cost
from mic.files import write_json, write_text
from mic.metrics.bootstrap import DRAWS, LEVEL
from mic.metrics.quantization import PRECISIONS
from mic.report import figures
from mic.report.tables import Table, rich_table, titled_markdown
from mic.tracking.run_directory import git_commit, package_versions

LESS = (0.98, 0.95, 0.9, 0.8)  # smaller shares whose cost is shown as well
QUICK = 1000  # searches a second of the full vectors beyond which speed is no reason


class AdviceReport(NamedTuple):
    """Everything that tables and files of an advice show; sizes are of one vector."""

    model: Model
    collection: Collection
    qrels: str | None
    keep: float
    nested: bool
    scores: QueryScores
    shares: dict[OperatingPoint, KeptShare]
    speeds: Speeds
    advice: Advice

    @property
    def full(self) -> OperatingPoint:
        return self.scores.full

    @property
    def documents(self) -> int:
        return len(self.collection.documents)


def verdict(report: AdviceReport) -> list[str]:
    """Say which vectors to use, or that nothing smaller keeps the share, and which keep most."""
    advice, wanted = report.advice, f"{100 * report.keep:g} %"
    sentences = []
    if advice.sure is not None:
        sentences.append(f"Use {describe_point(report, advice.sure)}")
    else:
        sentences.append(
            f"Nothing smaller surely keeps {wanted} of the full {report.full.dim} dimensions in "
            f"fp32: stay with {vector_bytes(report.full):,} bytes a vector, or take what keeps "
            f"most: {describe_point(report, advice.best)}"
        )
    if advice.perhaps is not None:
        keeps, size = report.shares[advice.perhaps], vector_bytes(advice.perhaps)
        queries = len(report.collection.queries)
        sentences.append(
            f"Perhaps {point_name(advice.perhaps)} will do: {size:,} bytes, {keeps.share:.1f} % "
            f"{format_interval(keeps)}; {queries:,} queries are too few to be sure of {wanted}."
        )
    return sentences


def ladder(report: AdviceReport) -> list[str]:
    """Say how small vectors that keep less than the wanted share are; empty where no smaller."""
    steps, last = [], report.advice.sure
    for share in LESS:
        point = choose(report.shares, report.full, share).sure
        if share < report.keep and point is not None:
            if last is None or vector_bytes(point) < vector_bytes(last):
                steps.append(
                    f"{100 * share:g} % by {point_name(point)} ({vector_bytes(point):,} bytes)"
                )
            last = point
    return [f"Surely kept, if less is enough: {', '.join(steps)}."] if steps else []


def describe_point(report: AdviceReport, point: OperatingPoint) -> str:
    share, speed = report.shares[point], report.speeds.by_point[point]
    size, fraction = vector_bytes(point), size_fraction(report, point)
    return (
        f"{point_name(point)}: {size:,} bytes a vector, {fraction} of the full; keeps "
        f"{share.share:.1f} % {format_interval(share)} of {quality_name(report)}; "
        f"{format_speed(speed)} here."
    )


def point_name(point: OperatingPoint) -> str:
    form = "binary" if point.precision == "binary" else f"as {point.precision}"
    return f"{point.dim} dimensions {form}"


def size_fraction(report: AdviceReport, point: OperatingPoint) -> str:
    """A point's size as a fraction of the full one: 1/12, or 1/5.3 where it does not divide it."""
    return f"1/{vector_bytes(report.full) / vector_bytes(point):.1f}".removesuffix(".0")


def format_speed(speed: Speed) -> str:
    """
    >>> format_speed(Speed(900.0, 7.96)), format_speed(Speed(100.0, 0.8))
    ('search 8.0x as fast', 'search at 0.8x the speed')
    """
    faster = speed.times >= 1
    return (
        f"search {speed.times:.1f}x as fast"
        if faster
        else f"search at {speed.times:.1f}x the speed"
    )


def format_interval(share: KeptShare) -> str:
    return f"[{share.low:.1f}, {share.high:.1f}]"


def quality_name(report: AdviceReport) -> str:
    return NDCG if report.scores.metric == NDCG else "the full vectors' 10 best"


def how_to(report: AdviceReport) -> list[str]:
    """Commands that make the advised vectors, or the best if none is advised."""
    point = report.advice.sure or report.advice.best
    cut = f" --dim {point.dim}" if point.dim < report.full.dim else ""
    lines = [
        f"  mic export {shlex.quote(report.model.given)} --to small{cut}",
        '  vectors = SentenceTransformer("small").encode(texts)',
    ]
    options = {
        "int8": '"int8", calibration_embeddings=vectors_of_the_corpus',
        "binary": '"ubinary"',
    }
    if point.precision in options:
        lines.append(f"  codes = quantize_embeddings(vectors, {options[point.precision]})")
    return lines


def advice_table(report: AdviceReport, narrow: bool = False) -> Table:
    """A row for each point: its size, quality and speed.

    A narrow table fits a terminal of 80 columns; it leaves out the metric itself.
    """
    marks = {report.full: "full"}
    for name in ("perhaps", "sure"):
        point = getattr(report.advice, name)
        if point is not None:
            marks[point] = "use" if name == "sure" else name
    head = ["dimensions", "bytes a vector", "index, MB", report.scores.metric]
    head += [f"kept, % [{LEVEL:.0%} interval]", "queries a second", "times the full ones'", ""]
    if narrow:
        head = ["dims", "bytes", "MB", f"kept, % [{LEVEL:.0%}]", "per s", "times", ""]
    rows = []
    for point, share in report.shares.items():
        speed = report.speeds.by_point[point]
        rows.append(
            [
                f"{point.dim} {point.precision}",
                f"{vector_bytes(point):,}",
                megabytes(vector_bytes(point) * report.documents),
                *[f"{share.quality:.1f}"] * (not narrow),
                "100" if point == report.full else f"{share.share:.1f} {format_interval(share)}",
                f"{speed.per_second:,.0f}",
                f"{speed.times:.1f}",
                marks.get(point, ""),
            ]
        )
    title = f"{report.model.name}: {report.documents:,} documents, "
    return Table(f"{title}{len(report.collection.queries):,} queries", head, rows)


def megabytes(count: int) -> str:
    """
    >>> megabytes(89_600), megabytes(25_395_200), megabytes(1_536_000_000)
    ('0.09', '25.4', '1,536')
    """
    value = count / 1e6
    return f"{value:,.{2 if value < 1 else 1 if value < 100 else 0}f}"


def advice_notes(report: AdviceReport) -> Iterator[str]:
    """Say how quality, intervals, speed and sizes were measured."""
    queries = f"{len(report.collection.queries):,} queries"
    best = f"the full vectors' is {report.shares[report.full].quality:.1f}"
    if report.collection.relevant is not None:
        count = sum(map(len, report.collection.relevant))
        yield (
            f"Quality is nDCG@10 by the relevance judgements in {report.qrels}: {count:,} "
            f"relevant documents of {queries}; {best}."
        )
    else:
        yield (
            "Quality is agreement, as there are no relevance judgements (--qrels): the share of "
            f"the 10 documents that the full vectors ({report.full.dim} dimensions in fp32) rank "
            "first which is also among the 10 first. It says how many of this model's answers are "
            "kept, not how good they are."
        )
    if report.collection.left_out:
        yield f"{report.collection.left_out:,} queries without a relevant document were left out."
    yield (
        f"Kept: the share of the full vectors' value, with a paired bootstrap over the {queries} "
        f"({DRAWS:,} draws, fixed seed), each point by itself. `use` marks the smallest vectors "
        f"whose whole interval is at least {100 * report.keep:g} %, `perhaps` smaller ones whose "
        "mean is, which may be by chance."
    )
    rows, full = report.speeds.rows, report.speeds.by_point[report.full].per_second
    measured = f" (measured on {rows:,}, in proportion)" if rows < report.documents else ""
    quick = (
        f" With {full:,.0f} searches a second of the full vectors, choose by size, not by speed."
    )
    yield (
        f"Search is exact, over all {report.documents:,} documents{measured}: one query after the "
        "other, with torch and numpy on one CPU thread, in CPU seconds; `times` is relative to the "
        "full vectors in the same run. MB are of the whole index. The kernels and indexes of a "
        f"vector database have other speeds.{quick if full > QUICK else ''}"
    )
    sample = min(CALIBRATION, report.documents)
    yield (
        f"int8: a range for each dimension, from {sample:,} documents; binary: the sign, ranked by "
        "Hamming distance. Queries are coded as documents are; nothing is rescored with finer "
        "vectors. The bytes of a vector are those of its values alone."
    )
    if not report.nested:
        values = {
            point.dim: share.quality
            for point, share in report.shares.items()
            if point.precision == report.full.precision
        }
        of = f"its {NDCG} here" if report.scores.metric == NDCG else "its 10 best here"
        if cost := truncation_cost(report.model.name, values, report.full.dim, of):
            yield cost


TABLE, ADVICE, PICTURE = "table.md", "advice.json", "kept.png"


def show_advice(report: AdviceReport) -> None:
    """Print the table, the notes, and at the end the advice."""
    console = Console()
    console.print(rich_table(advice_table(report, narrow=True)))
    for text in [*advice_notes(report), "", *verdict(report), *ladder(report), *how_to(report)]:
        console.print(text, highlight=False, markup=False, soft_wrap=text.startswith("  "))


def write_advice(report: AdviceReport, to: Path, command: str, details: dict[str, Any]) -> None:
    """Write the three files, each whole or not at all."""
    to.mkdir(parents=True, exist_ok=True)
    figures.save(
        draw_kept_shares(report, f"{' '.join(verdict(report)[:1])} Made by `{command}`."),
        to / PICTURE,
    )
    code = "\n".join(["```", *(line.strip() for line in how_to(report)), "```"])
    paragraphs = [
        *verdict(report),
        *ladder(report),
        code,
        titled_markdown(advice_table(report)),
        *advice_notes(report),
    ]
    write_text(to / TABLE, "\n\n".join([f"Made by `{command}`.", *paragraphs]) + "\n")
    write_json(to / ADVICE, {**advice_json(report), **details, "command": command})


def advice_json(report: AdviceReport) -> dict[str, Any]:
    """Every figure, with the points that are advised."""
    advice = report.advice
    return {
        "model": report.model.given,
        "documents": report.documents,
        "queries": len(report.collection.queries),
        "metric": report.scores.metric,
        "keep": report.keep,
        "use": None if advice.sure is None else advice.sure._asdict(),
        "perhaps": None if advice.perhaps is None else advice.perhaps._asdict(),
        "full": report.full._asdict(),
        "nested": report.nested,
        "points": [
            {
                **point._asdict(),
                "bytes": vector_bytes(point),
                "index_bytes": vector_bytes(point) * report.documents,
                "quality": share.quality,
                "kept": share.share,
                "interval": [share.low, share.high],
                "queries_per_second": report.speeds.by_point[point].per_second,
                "times": report.speeds.by_point[point].times,
            }
            for point, share in report.shares.items()
        ],
        "searched_for_speed": report.speeds.rows,
        "versions": package_versions(),
        "git_commit": git_commit(),
    }


def draw_kept_shares(report: AdviceReport, caption: str) -> Figure:
    """What is kept against the bytes of a vector: a line a precision, with its intervals."""
    figure, (axis,) = figures.panels(1, 4.2)
    for number, precision in enumerate(PRECISIONS):
        points = [point for point in report.shares if point.precision == precision]
        shares = np.array([report.shares[point] for point in points])
        x, look = [vector_bytes(point) for point in points], figures.style(number)
        axis.plot(x, shares[:, 1], label=precision, markersize=4, **look)
        axis.fill_between(
            x, shares[:, 2], shares[:, 3], color=look["color"], alpha=0.15, linewidth=0
        )
        for point, width_bytes, share in zip(points, x, shares[:, 1], strict=True):
            axis.annotate(
                str(point.dim),
                (width_bytes, share),
                xytext=(6, -9),
                textcoords="offset points",
                fontsize=7,
                color=look["color"],
            )
    axis.axhline(100 * report.keep, color="black", linewidth=0.8, linestyle=":", label="wanted")
    draw_ring(axis, report, report.advice.sure)
    axis.set_xscale("log", base=2)
    ticks = sorted({vector_bytes(point) for point in report.shares})
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45, fontsize=7)
    axis.minorticks_off()
    axis.margins(x=0.08)
    axis.set(xlabel="bytes of a vector (beside a point: its dimensions)")
    axis.set_ylabel(f"{report.scores.metric} kept, of the full vectors' (%)")
    figures.legend(figure, axis)
    return figures.captioned(figure, caption)


def draw_ring(axis: Any, report: AdviceReport, point: OperatingPoint | None) -> None:
    """A ring around the vectors that are advised."""
    if point is not None:
        place = ([vector_bytes(point)], [report.shares[point].share])
        axis.scatter(*place, s=170, facecolors="none", edgecolors="black", label="use", zorder=5)
