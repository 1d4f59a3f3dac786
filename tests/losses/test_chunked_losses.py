"""Losses over all pairs in chunks of rows are those of all pairs at once, in less memory."""

from functools import partial

import pytest
import torch
from references import cloud

from mic import nested
from mic.losses.contrastive import infonce_sums
from mic.losses.distillation import relational_sums
from mic.losses.gor import spread_sums
from mic.losses.spectral_isotropy import potential_sums

DIMS = (2, 5, 8)
ROWS, KEYS = 7, 9
POSITIONS = torch.tensor([1, 0, 3, 8, 5, 2, 7])
EXCLUDED = torch.rand(ROWS, KEYS, generator=torch.Generator().manual_seed(0)) < 0.3
TEACHER = cloud(KEYS, seed=5)[:, :6]


def distilled(rows, all_rows):
    teachers = TEACHER[POSITIONS[: len(rows)]], TEACHER[: len(all_rows)]
    return relational_sums(rows, all_rows, *teachers, POSITIONS[: len(rows)], DIMS, 0.1, 0.2)


LOSSES = {
    "infonce": lambda a, b: infonce_sums(a, b, POSITIONS, DIMS, 0.05),
    "infonce without some": lambda a, b: infonce_sums(a, b, POSITIONS, DIMS, 0.05, EXCLUDED),
    "uniformity": lambda a, b: potential_sums(a, b, POSITIONS, DIMS, 2.0),
    "distillation": distilled,
    "spread": lambda a, b: spread_sums(a, b, POSITIONS, DIMS).sum(1),
}

every_loss = pytest.mark.parametrize("name", LOSSES)


def values_and_gradients(loss):
    leaves = cloud(ROWS).requires_grad_(), cloud(KEYS, seed=1).requires_grad_()
    values = loss(*leaves)
    weights = torch.arange(1, len(DIMS) + 1, dtype=values.dtype)  # every width asks differently
    return values, *torch.autograd.grad((values * weights).sum(), leaves)


@every_loss
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_chunks_change_neither_values_nor_gradients(name, rows, monkeypatch):
    whole = values_and_gradients(LOSSES[name])
    monkeypatch.setattr(nested, "MAX_SIMILARITIES", rows * KEYS * len(DIMS))
    chunked = values_and_gradients(LOSSES[name])
    for actual, expected in zip(chunked, whole, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scores", [1, 2**22])
def test_gradients_in_chunks_are_those_of_finite_differences(scores, monkeypatch):
    monkeypatch.setattr(nested, "MAX_SIMILARITIES", scores)
    leaves = [cloud(ROWS)[:, :3].requires_grad_(), cloud(KEYS, seed=1)[:, :3].requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda a, b: infonce_sums(a, b, POSITIONS, (1, 3), 0.05, EXCLUDED), leaves
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, positions: infonce_sums(x, x, positions, DIMS, 0.05),
        lambda x, positions: potential_sums(x, x, positions, DIMS, 2.0),
        lambda x, positions: relational_sums(x, x, x, x, positions, DIMS, 0.1, 0.2),
    ],
    ids=["infonce", "uniformity", "distillation"],
)
@pytest.mark.parametrize("rows", [64, 128])
def test_what_is_kept_for_the_backward_pass_grows_with_the_rows_not_their_pairs(
    loss, rows, monkeypatch
):
    monkeypatch.setattr(nested, "MAX_SIMILARITIES", 2**10)
    saved = {}

    def save(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    x = cloud(rows).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(save, partial(lambda x: x)):
        value = loss(x, torch.arange(rows)).sum()
    assert sum(saved.values()) < 40 * rows < rows * rows
    assert torch.autograd.grad(value, x)[0].isfinite().all()
