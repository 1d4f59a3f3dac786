"""What a test reads of a report: tables and pictures of a page, and SciPy's own interval."""

from base64 import b64decode
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
from scipy import stats


class Reader(HTMLParser):
    """Tables by caption, pictures, ids, and everything that an address stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.images: list[bytes] = []
        self.missing: list[str] = []
        self._into = ""
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        attributes = dict(attrs)
        self.addresses += [
            str(attributes[name]) for name in ("src", "href", "srcset") if name in attributes
        ]
        if tag == "img":
            self.images.append(b64decode(str(attributes["src"]).partition(",")[2]))
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        self._into = tag
        if tag == "p" and attributes.get("class") == "missing":
            self._into = "missing"

    def handle_endtag(self, tag: str) -> None:
        self._into = ""

    def handle_data(self, data: str) -> None:
        if self._into == "caption":
            self.tables[data] = self._rows
        elif self._into in ("td", "th"):
            self._rows[-1][-1] += data
        elif self._into == "missing":
            self.missing.append(data)


def rows_of(table: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in table[1:]}


def student(values: Sequence[float]) -> tuple[float, float]:
    """SciPy's own interval."""
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    return float(np.mean(values)), float(high - low) / 2
