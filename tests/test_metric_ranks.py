"""Two and three ranks with different, unequal rows have the figures of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from metric_ranks import DIMS, figures

SCRIPT = Path(__file__).with_name("metric_ranks.py")


@pytest.mark.parametrize("world", [2, 3])
def test_every_figure_is_that_of_one_process(world, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
    ranks = [
        subprocess.Popen([sys.executable, SCRIPT, str(r), str(world), tmp_path], env=environment)
        for r in range(world)
    ]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0] * world
    finally:
        for process in ranks:
            process.kill()
    expected = figures(0, 1)
    assert len(expected) == len(DIMS) * (11 + 3 + 1 + 6)
    for rank in range(world):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
