"""An advice in words: the sentence that counts, how to follow it, and what the figures mean."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from mic.evaluation.advise.collection import Collection
from mic.evaluation.advise.quality import CALIBRATION, JUDGED, Found, Point
from mic.evaluation.advise.selection import Advice, Kept, choose, size
from mic.evaluation.advise.speed import Speed, Speeds
from mic.evaluation.models import Model
from mic.evaluation.truncation import cost
from mic.metrics.bootstrap import DRAWS, LEVEL
from mic.report.tables import Table

LESS = (0.98, 0.95, 0.9, 0.8)  # shares whose price is told beside the wanted one's
QUICK = 1000  # searches a second of the full vectors beyond which speed is no reason


class Report(NamedTuple):
    """All that was found, for the tables and the files; `dim` widths and bytes are per vector."""

    model: Model
    collection: Collection
    qrels: str | None
    keep: float
    nested: bool
    found: Found
    kept: dict[Point, Kept]
    speeds: Speeds
    advice: Advice

    @property
    def full(self) -> Point:
        return self.found.full

    @property
    def documents(self) -> int:
        return len(self.collection.documents)


def verdict(report: Report) -> list[str]:
    """What to use, or that nothing smaller will do, and what to take in its place."""
    advice, wanted = report.advice, f"{100 * report.keep:g} %"
    told = []
    if advice.sure is not None:
        told.append(f"Use {described(report, advice.sure)}")
    else:
        told.append(
            f"Nothing smaller surely keeps {wanted} of the full {report.full.dim} numbers in fp32: "
            f"stay with {size(report.full):,} bytes a vector, or take what keeps most: "
            f"{described(report, advice.best)}"
        )
    if advice.perhaps is not None:
        kept = report.kept[advice.perhaps]
        told.append(
            f"Perhaps {named(advice.perhaps)} will do: {size(advice.perhaps):,} bytes, "
            f"{kept.share:.1f} % {interval(kept)}; {len(report.collection.queries):,} queries are "
            f"too few to be sure of {wanted}."
        )
    return told


def ladder(report: Report) -> list[str]:
    """What less than the wanted share would cost, in a sentence; nothing where it is no smaller."""
    told, last = [], report.advice.sure
    for share in LESS:
        point = choose(report.kept, report.full, share).sure
        if share < report.keep and point is not None:
            if last is None or size(point) < size(last):
                told.append(f"{100 * share:g} % by {named(point)} ({size(point):,} bytes)")
            last = point
    return [f"Surely kept, if less is enough: {', '.join(told)}."] if told else []


def described(report: Report, point: Point) -> str:
    kept, speed = report.kept[point], report.speeds.found[point]
    return (
        f"{named(point)}: {size(point):,} bytes a vector, {fraction(report, point)} of the full; "
        f"keeps {kept.share:.1f} % {interval(kept)} of {what(report)}; {paced(speed)} here."
    )


def named(point: Point) -> str:
    form = "binary" if point.precision == "binary" else f"as {point.precision}"
    return f"{point.dim} numbers {form}"


def fraction(report: Report, point: Point) -> str:
    """A point's size beside the full one.

    A whole number below the bar, for a size that divides the full one; else one with a digit.
    """
    return f"1/{size(report.full) / size(point):.1f}".removesuffix(".0")


def paced(speed: Speed) -> str:
    """
    >>> paced(Speed(900.0, 7.96)), paced(Speed(100.0, 0.8))
    ('search 8.0x as fast', 'search at 0.8x the speed')
    """
    faster = speed.times >= 1
    return (
        f"search {speed.times:.1f}x as fast"
        if faster
        else f"search at {speed.times:.1f}x the speed"
    )


def interval(kept: Kept) -> str:
    return f"[{kept.low:.1f}, {kept.high:.1f}]"


def what(report: Report) -> str:
    return JUDGED if report.found.metric == JUDGED else "the full vectors' 10 best"


def how_to(report: Report) -> list[str]:
    """Commands that make such vectors: those that are advised, else the best."""
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


def table(report: Report, narrow: bool = False) -> Table:
    """A row a point: what it costs, what it keeps, how fast it is searched.

    A narrow one has room on a terminal of 80 columns; it does without the metric itself.
    """
    marks = {report.full: "full"}
    for name in ("perhaps", "sure"):
        point = getattr(report.advice, name)
        if point is not None:
            marks[point] = "use" if name == "sure" else name
    head = ["numbers", "bytes a vector", "index, MB", report.found.metric]
    head += [f"kept, % [{LEVEL:.0%} interval]", "queries a second", "times the full ones'", ""]
    if narrow:
        head = ["numbers", "bytes", "MB", f"kept, % [{LEVEL:.0%}]", "per s", "times", ""]
    rows = []
    for point, kept in report.kept.items():
        speed = report.speeds.found[point]
        rows.append(
            [
                f"{point.dim} {point.precision}",
                f"{size(point):,}",
                megabytes(size(point) * report.documents),
                *[f"{kept.quality:.1f}"] * (not narrow),
                "100" if point == report.full else f"{kept.share:.1f} {interval(kept)}",
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


def notes(report: Report) -> Iterator[str]:
    """What the figures mean, and what they do not."""
    queries = f"{len(report.collection.queries):,} queries"
    best = f"the full vectors' is {report.kept[report.full].quality:.1f}"
    if report.collection.relevant is not None:
        judged = sum(map(len, report.collection.relevant))
        yield (
            f"Quality is nDCG@10 by the judgements in {report.qrels}: {judged:,} relevant "
            f"documents of {queries}; {best}."
        )
    else:
        yield (
            "Quality is agreement, as there are no judgements (--qrels): the share of the 10 "
            f"documents that the full vectors ({report.full.dim} numbers in fp32) rank first which "
            "is found again among the 10 first. It says how much of this model's own answers is "
            "kept, not how good they are."
        )
    if report.collection.left_out:
        yield f"{report.collection.left_out:,} queries without a relevant document were left out."
    yield (
        f"Kept: the share of the full vectors' value, with a paired bootstrap over the {queries} "
        f"({DRAWS:,} draws, fixed seed), each point by itself. `use` marks the smallest vectors "
        f"whose whole interval is at least {100 * report.keep:g} %, `perhaps` smaller ones whose "
        "own figure is, which may be luck."
    )
    rows, full = report.speeds.rows, report.speeds.found[report.full].per_second
    part = f" ({rows:,} were, the rest is in proportion)" if rows < report.documents else ""
    quick = (
        f" With {full:,.0f} searches a second of the full vectors, choose by size, not by speed."
    )
    yield (
        f"Search is exact, over all {report.documents:,} documents{part}: one query after the "
        "other, with torch and numpy on one CPU thread, in CPU seconds; `times` is beside the full "
        "vectors in the same run. MB are of the whole index. The kernels and indexes of a vector "
        f"database have other speeds.{quick if full > QUICK else ''}"
    )
    sample = min(CALIBRATION, report.documents)
    yield (
        f"int8: a range a coordinate, from {sample:,} documents; binary: the sign, ranked by "
        "Hamming distance. Queries are coded as documents are; nothing is rescored with finer "
        "vectors. A vector's bytes are those of its numbers alone."
    )
    if not report.nested:
        values = {
            point.dim: kept.quality
            for point, kept in report.kept.items()
            if point.precision == report.full.precision
        }
        of = f"its {JUDGED} here" if report.found.metric == JUDGED else "its own 10 best here"
        if told := cost(report.model.name, values, report.full.dim, of):
            yield told
