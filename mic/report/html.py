"""Draw the pictures of panels, and render the panels as one self-contained HTML page.

The page has no script and makes no request: the pictures and the style are in it. Whatever stands
in the files of a run is text in it, by the template's autoescape.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from mic.files import replacing
from mic.report import figures
from mic.report.panel import Panel
from mic.report.tables import Table

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # fetch nothing
TEMPLATE, STYLE = "report.html.jinja", "style.css"
SMALL = 1000  # pixels; wider pictures have panels beside each other
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class Picture(NamedTuple):
    """A figure as two PNGs."""

    bare: bytes  # for the page, where the caption is text
    captioned: bytes  # to stand alone


class Image(NamedTuple):
    """A PNG as an `img` element shows it: pixels, and its bytes in base64."""

    width: int
    height: int
    data: str

    @property
    def small(self) -> bool:
        return self.width < SMALL


def render_page(
    title: str,
    notes: Sequence[str],
    runs: Table,
    panels: Sequence[Panel],
    pictures: Mapping[str, Picture],
    configs: Mapping[str, str],
) -> str:
    """The whole page; `configs` are texts that unfold, by their heading."""
    return TEMPLATES.get_template(TEMPLATE).render(
        title=title,
        notes=notes,
        runs=runs,
        panels=panels,
        images={name: image_of(picture.bare) for name, picture in pictures.items()},
        configs=configs,
        policy=POLICY,
        style=Markup(Path(__file__).with_name(STYLE).read_text(encoding="utf-8")),
    )


def image_of(png: bytes) -> Image:
    """Width and height stand in a PNG's header."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return Image(width, height, b64encode(png).decode("ascii"))


def draw_pictures(panels: Iterable[Panel]) -> dict[str, Picture]:
    """Every picture of the panels by its name."""
    pictures = {}
    for panel in panels:
        for name, figure in panel.pictures.items():
            bare = figures.pixels_of(figure)
            caption = figures.pixels_of(caption_figure(panel.caption, figure.get_figwidth()))
            pictures[name] = Picture(png_of(bare), png_of(np.vstack([bare, caption])))
    return pictures


def png_of(pixels: UInt8[np.ndarray, "high wide rgba"]) -> bytes:
    stream = BytesIO()
    figures.write_png(pixels, stream)
    return stream.getvalue()


def caption_figure(caption: str, wide: float) -> Figure:
    """A caption to stand below a figure of so many inches, which need not be drawn again for it."""
    lines = fill(caption, int(13 * wide))
    high = 0.15 * (lines.count("\n") + 1) + 0.05
    figure = Figure(figsize=(wide, high))
    figure.text(0.5, 0.98, lines, fontsize=8, color="#444444", ha="center", va="top")
    return figure


def save_pictures(pictures: Mapping[str, Picture], folder: Path, clear: bool) -> None:
    """Write the pictures with their captions into a folder.

    `clear` removes the PNGs of an earlier report from it, so that a picture that is left out now is
    not taken for a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if clear:
        for earlier in folder.glob("*.png"):
            earlier.unlink()
    for name, picture in pictures.items():
        with replacing(folder / f"{name}.png") as file:
            file.write_bytes(picture.captioned)
