"""Evaluations of tests write their figures without drawing them; those of fixtures are drawn."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def undrawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of a small `mic evaluate` is spent on drawing its figure.

    Fixtures of a module run before this one, so that what they evaluate has a drawn figure.
    """

    def touch(figure: Figure, file: Path) -> None:
        file.touch()

    monkeypatch.setattr("mic.report.figures.save", touch)
