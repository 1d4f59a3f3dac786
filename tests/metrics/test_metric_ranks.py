"""Two and three ranks with different, unequal rows have the figures of one process."""

import json

import pytest
from metric_ranks import DIMS, figures, functions

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning"),
]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request, fork, tmp_path_factory):
    """What every rank of two and of three wrote."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    codes, output = fork(str(folder), ranks=world, module="metric_ranks")
    assert codes == [0] * world, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def test_every_figure_is_that_of_one_process(ranks):
    expected = figures(0, 1)
    assert len(expected) == len(DIMS) * (11 + 3 + 1 + 6)
    for rank in ranks:
        assert rank["metrics"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_function_waits_for_no_other_rank_and_counts_nothing_twice(ranks):
    expected = functions()
    assert ranks[-1]["functions"] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    alone = figures(0, 1)
    assert expected == pytest.approx({name: alone[name] for name in expected}, rel=1e-9, abs=1e-9)


def test_moments_travel_in_one_reduction(ranks):
    assert [rank["collectives"] for rank in ranks] == [["all_reduce"]] * len(ranks)
