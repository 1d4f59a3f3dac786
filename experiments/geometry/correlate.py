"""Does geometry predict quality? Correlations over all models that were evaluated, and a picture.

`python experiments/geometry/correlate.py TO [TO ...]`; TO is a folder that `mic evaluate --to`
wrote: one setting. Writes correlation.md, points.csv and a scatter plot for each of two widths.
"""

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clusters import LEAST, RESAMPLES, Correlation, Estimate, correlation
from points import EXCESS, MEAN, PREDICTORS, RANK, Point, Setting, read_settings
from scatter import scatter

from mic.errors import InputError
from mic.files import write_text
from mic.report import figures
from mic.report.tables import numeric_markdown

PICTURES = {16: "scatter.png", 64: "scatter_64.png"}
EVERY, RUNS = "all methods", "trained runs alone"
PREDICTED = {RANK: "+", EXCESS: "-"}  # the sign that the paper would have


class Cell(NamedTuple):
    """How a predictor and a quality go together at one width of one setting."""

    setting: str
    over: str
    width: int
    quality: str
    predictor: str
    found: Correlation | None


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="TO", nargs="+", type=Path)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(words)
    command = shlex.join(["python", "experiments/geometry/correlate.py", *words])
    try:
        correlate(options.folders, options.out, command)
    except InputError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or options.out}: {error.strerror}; choose another --out")


def correlate(folders: Sequence[Path], out: Path, command: str) -> None:
    """Write all that is known of the folders. Raises InputError for those that cannot be used."""
    settings = read_settings(folders)
    for setting in settings:
        methods = sorted({point.method for point in setting.points})
        if len(methods) < LEAST:
            raise InputError(
                f"{setting.name}: {len(methods)} methods ({', '.join(methods)}); a correlation "
                f"needs {LEAST}: evaluate more models into it"
            )
    cells = [cell for setting in settings for cell in cells_of(setting)]
    out.mkdir(parents=True, exist_ok=True)
    report = "\n\n".join(text(settings, cells, command)) + "\n"
    write_text(out / "points.csv", as_csv(settings))
    for width, name in PICTURES.items():
        drawn = [setting for setting in settings if width in setting.widths]
        if drawn:
            shown = {
                (cell.setting, cell.predictor): cell.found
                for cell in cells
                if (cell.over, cell.width, cell.quality) == (EVERY, width, MEAN)
            }
            caption = f"A point is a model: each seed, each baseline. Made by `{command}`."
            figures.save(scatter(drawn, width, shown, caption), out / name)
    write_text(out / "correlation.md", report)
    print(report)


def cells_of(setting: Setting) -> Iterator[Cell]:
    for over in (EVERY, RUNS):
        for width in setting.widths:
            points = [one for one in setting.at(width) if one.trained or over == EVERY]
            methods = [one.method for one in points]
            for kind in setting.tasks:
                quality = [one.quality[kind] for one in points]
                for name in PREDICTORS:
                    predictor = [one.predictors[name] for one in points]
                    found = correlation(predictor, quality, methods)
                    yield Cell(setting.name, over, width, kind, name, found)


def text(settings: Sequence[Setting], cells: Sequence[Cell], command: str) -> Iterator[str]:
    """The parts of the report."""
    yield f"Made by `{command}`."
    yield (
        f"Spearman's rho and Pearson's r of {RANK} (of the first d numbers) and {EXCESS} (of these "
        "with the others) with the quality at d, over models of one setting at one width. In "
        f"brackets the 95 % interval of {RESAMPLES:,} resamples with a fixed seed that draw "
        f"methods, each with all its seeds; * where it leaves 0 out. No figure with fewer than "
        f"{LEAST} methods, or where nothing varies.{undefined(cells)}"
    )
    yield from missing(settings)
    yield "**Cells (a setting at a width) by where the interval of rho lies, and the paper's sign**"
    yield numeric_markdown(
        ["over", "quality", "predictor", "paper", "above 0", "below 0", "holds 0", "cells"],
        counts(cells),
    )
    for setting in settings:
        for over in (EVERY, RUNS):
            own = [one for one in cells if (one.setting, one.over) == (setting.name, over)]
            yield f"**{setting.name}, {over}**: {size(setting, over)}"
            if not any(one.found for one in own):
                yield f"Nothing to correlate: it takes {LEAST} methods, and figures that vary."
                continue
            yield numeric_markdown(["", "quality", *headings()], rows(setting, own))


def undefined(cells: Sequence[Cell]) -> str:
    shares = [one.found.rho.undefined for one in cells if one.found]
    if not any(shares):
        return ""
    return (
        " Resamples in which a predictor or a quality does not vary, as where one method is drawn "
        f"alone, have no correlation and are left out: {100 * max(shares):.1f} % at most."
    )


def missing(settings: Sequence[Setting]) -> Iterator[str]:
    """Points that have no finite figure; the cells that would need it go without them."""
    for setting in settings:
        names = [
            f"{one.model} at {one.width}"
            for one in setting.points
            if not all(map(finite, [*one.quality.values(), *one.predictors.values()]))
        ]
        if names:
            yield f"Left out of {setting.name} where a figure is not finite: {', '.join(names)}."


def finite(value: float) -> bool:
    return abs(value) < float("inf")


def counts(cells: Sequence[Cell]) -> list[list[str]]:
    keys = dict.fromkeys((one.over, one.quality, one.predictor) for one in cells)
    found = []
    for key in keys:
        signs = [
            one.found.rho.sign
            for one in cells
            if (one.over, one.quality, one.predictor) == key and one.found
        ]
        numbers = [signs.count(1), signs.count(-1), signs.count(0), len(signs)]
        found.append([*key, PREDICTED[key[-1]], *map(str, numbers)])
    return found


def size(setting: Setting, over: str) -> str:
    points = [one for one in setting.at(setting.widths[0]) if one.trained or over == EVERY]
    tasks = ", ".join(f"{kind} {count}" for kind, count in setting.tasks.items())
    methods = len({one.method for one in points})
    return f"{len(points)} models of {methods} methods; tasks: {tasks}."


def headings() -> list[str]:
    return [f"{name}: {letter}" for name in PREDICTORS for letter in ("rho", "r")]


def rows(setting: Setting, cells: Sequence[Cell]) -> list[list[str]]:
    found = {(one.width, one.quality, one.predictor): one.found for one in cells}
    return [
        [
            str(width),
            kind,
            *(cell for name in PREDICTORS for cell in shown(found[width, kind, name])),
        ]
        for width in setting.widths
        for kind in setting.tasks
    ]


def shown(found: Correlation | None) -> list[str]:
    return [in_brackets(found.rho), in_brackets(found.r)] if found else ["", ""]


def in_brackets(one: Estimate) -> str:
    """A value with its interval, and a star where this leaves 0 out."""
    star = " *" if one.sign else ""
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]{star}"


def as_csv(settings: Sequence[Setting]) -> str:
    kinds = dict.fromkeys(kind for setting in settings for kind in setting.tasks)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    about = ("setting", "model", "method", "seed", "width")
    writer.writerow([*about, *(f"quality: {kind}" for kind in kinds), *PREDICTORS])
    for point in (one for setting in settings for one in setting.points):
        quality = [point.quality.get(kind) for kind in kinds]
        predictors = [point.predictors[name] for name in PREDICTORS]
        writer.writerow([*described(point), *quality, *predictors])
    return stream.getvalue()


def described(point: Point) -> list[str | int | None]:
    return [point.setting, point.model, point.method, point.seed, point.width]


if __name__ == "__main__":
    main(sys.argv[1:])
