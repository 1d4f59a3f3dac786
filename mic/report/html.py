"""Panels as one HTML page that needs nothing but itself: no script, no request, pictures inside."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from mic.report.panel import Panel
from mic.report.tables import Table

# whatever a file smuggles in, the browser fetches nothing
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = Path(__file__).with_name("style.css")
WORDS = "key"  # first head of tables whose cells are words


def page(
    title: str,
    head: Sequence[str],
    runs: Table,
    panels: Sequence[Panel],
    pictures: Mapping[str, bytes],
    configs: Mapping[str, str],
) -> str:
    """The whole page; `pictures` are PNGs by name, `configs` texts to unfold by heading."""
    numbered = list(enumerate(panels, 1))
    links = "".join(f'<li><a href="#s{n}">{escape(panel.title)}</a></li>' for n, panel in numbered)
    sections = "\n".join(section(n, panel, pictures) for n, panel in numbered)
    texts = unfolding(configs)
    notes = "".join(f'<p class="note">{escape(line)}</p>' for line in head)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{notes}
{table(runs)}
<nav><ul>{links}</ul></nav>
{sections}
{texts}
</body>
</html>
"""


def section(number: int, panel: Panel, pictures: Mapping[str, bytes]) -> str:
    """A panel: pictures with their caption, tables, and what is missing."""
    parts = [f'<section id="s{number}">', f"<h2>{escape(panel.title)}</h2>"]
    if panel.missing:
        parts.append(f'<p class="missing">{escape(panel.missing)}</p>')
    if panel.pictures:
        images = "".join(image(name, panel.title, pictures[name]) for name in panel.pictures)
        parts.append(f"<figure>{images}<figcaption>{code(panel.caption)}</figcaption></figure>")
    elif panel.caption:
        parts.append(f'<p class="caption">{code(panel.caption)}</p>')
    parts += [tables(panel.tables)]
    parts += [folded(name, tables(of)) for name, of in panel.folded.items()]
    parts += [unfolding(panel.texts)]
    return "\n".join([*parts, "</section>"])


def image(name: str, title: str, png: bytes) -> str:
    wide, high = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of PNG's header
    small = ' class="small"' if wide < SMALL else ""
    data = b64encode(png).decode("ascii")
    return (
        f'<div class="picture"><img{small} width="{wide}" height="{high}" '
        f'alt="{escape(title)}: {escape(name)}" src="data:image/png;base64,{data}"></div>'
    )


SMALL = 1000  # pixels; wider ones have panels beside each other


def tables(of: Sequence[Table]) -> str:
    """Tables, some beside each other where there is room."""
    return f'<div class="tables">{"".join(map(table, of))}</div>' if of else ""


def table(of: Table) -> str:
    """A table in a box that scrolls on a narrow screen."""
    if not of.rows:
        return f'<p class="missing">{escape(of.title)}: none.</p>'
    words = ' class="words"' if of.head[0] == WORDS else ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in of.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in of.rows
    )
    return (
        f'<div class="scroll"><table{words}><caption>{escape(of.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def folded(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def unfolding(texts: Mapping[str, str]) -> str:
    """Texts as they are, by heading."""
    return "".join(folded(name, f"<pre>{escape(text)}</pre>") for name, text in texts.items())


def code(text: str) -> str:
    """Text with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
