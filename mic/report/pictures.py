"""The pictures of panels as PNGs: bare for the page, with their caption as files."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from matplotlib.figure import Figure

from mic.files import replacing
from mic.report import figures
from mic.report.panel import Panel


class Picture(NamedTuple):
    bare: bytes
    whole: bytes  # with its caption, to stand alone


def drawn(panels: Iterable[Panel]) -> dict[str, Picture]:
    """Every picture of the panels by its name."""
    return {
        name: Picture(png(figure), png(captioned(figure, panel.caption)))
        for panel in panels
        for name, figure in panel.pictures.items()
    }


def save(pictures: Mapping[str, Picture], folder: Path, clear: bool) -> None:
    """Write the pictures into a folder; `clear` removes those of an earlier report from it."""
    folder.mkdir(parents=True, exist_ok=True)
    if clear:  # what is left out now must not be taken for now's
        for old in folder.glob("*.png"):
            old.unlink()
    for name, picture in pictures.items():
        with replacing(folder / f"{name}.png") as partial:
            partial.write_bytes(picture.whole)


def png(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, dpi=figures.DPI, format="png")
    return stream.getvalue()


def captioned(figure: Figure, caption: str) -> Figure:
    """A figure that stands alone, higher by its caption."""
    wide, high = figure.get_size_inches()
    lines = fill(caption, int(13 * wide))
    figure.set_size_inches(wide, high + 0.15 * (lines.count("\n") + 1))
    figure.supxlabel(lines, fontsize=8, color="#444444")
    return figure
