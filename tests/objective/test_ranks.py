"""Ranks with different data in unequal parts train as one process on the joined batch would."""

from functools import cache

import pytest
import torch
from ranks import CHUNKED, OBJECTIVES, SIZES_KNOWN, steps

pytestmark = pytest.mark.processes
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@pytest.fixture(scope="module")
def ranks(fork, model_folder, tmp_path_factory):
    """Loss and gradients of every objective on every rank, by the number of ranks and the dtype."""
    done: dict[tuple[int, str], list] = {}

    def run(world: int, dtype: str) -> list:
        if (world, dtype) not in done:
            folder = tmp_path_factory.mktemp(f"{world}-{dtype}")
            options = (str(folder), str(model_folder), dtype)
            codes, output = fork(*options, ranks=world, module="ranks", checked=True)
            assert codes == [0] * world, output
            done[world, dtype] = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
        return done[world, dtype]

    return run


@cache
def one_process(model: str, dtype: str) -> dict[str, dict[str, torch.Tensor]]:
    return steps(0, 1, model, getattr(torch, dtype))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("world", "dtype"),
    [
        (2, "float64"),
        pytest.param(3, "float64", marks=pytest.mark.slow),
        pytest.param(2, "float32", marks=pytest.mark.slow),
    ],
)
def test_loss_and_every_gradient_are_those_of_one_process(
    ranks, model_folder, world, dtype, objective
):
    alone = one_process(str(model_folder), dtype)[objective]
    tolerance = TOLERANCE[dtype]
    for actual in ranks(world, dtype):
        together = actual[objective]
        assert together.keys() == alone.keys()
        # a key's bias has no gradient but rounding, which is relative to the other gradients
        least = 1e-3 * max(value.norm() for name, value in alone.items() if "." in name)
        for name in alone.keys() - {"collectives"}:
            scale = alone[name].norm().clamp_min(least if "." in name else 1e-6)
            error = (together[name] - alone[name]).norm() / scale
            assert error < tolerance, f"{name}: relative error {error:.1e}"


def test_a_step_has_one_gather_and_one_sum_each_way_beside_the_counting_of_rows(ranks):
    for actual in ranks(2, "float64"):
        for name, rank_results in actual.items():
            counting = name not in SIZES_KNOWN
            forward, backward = rank_results["collectives"].tolist()
            if name in CHUNKED:  # whose forward pass goes backward to the summaries
                forward, backward = forward - 2, backward + 2
            assert (forward, backward) == (2 + counting, 2), name


def test_one_process_needs_no_group(model_folder):
    actual = one_process(str(model_folder), "float64")
    assert {tuple(rank_results["collectives"].tolist()) for rank_results in actual.values()} == {
        (0, 0)
    }
