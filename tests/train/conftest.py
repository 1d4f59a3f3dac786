"""Runs of these tests draw no figures; the run whose figures are looked at is made before."""

import pytest


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, which takes a third of a tiny run's time."""
    monkeypatch.setattr("mic.train.run.draw_figures", lambda *_: None)
