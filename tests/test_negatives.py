"""What counts as a negative, and both directions of InfoNCE."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import WIDTH, _dot, _mean, _unit, cloud, infonce
from torch import Tensor

from mic.losses import nested_infonce
from mic.losses.negatives import nearer, shared

DIMS = [1, 3, WIDTH]
QUERIES, KEYS = cloud(4), cloud(6, seed=1)
EXCLUDED = torch.tensor(
    [[1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1], [0, 1, 0, 0, 0, 1]]
).bool()


def masked_infonce(queries: Tensor, keys: Tensor, excluded: Tensor, d: int) -> float:
    """InfoNCE whose sums leave out the excluded keys, but never the own."""
    q, k = ([_unit(row[:d]) for row in rows.tolist()] for rows in (queries, keys))
    losses = []
    for i, query in enumerate(q):
        kept = [n for n in range(len(k)) if n == i or not excluded[i, n]]
        scores = {n: _dot(query, k[n]) / 0.05 for n in kept}
        top = max(scores.values())
        losses.append(top + math.log(sum(math.exp(s - top) for s in scores.values())) - scores[i])
    return _mean(losses)


def assert_same(found: dict[int, Tensor], expected: dict[int, float]) -> None:
    assert list(found) == list(expected)
    for d, value in expected.items():
        assert found[d].item() == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_excluded_pairs_are_left_out_but_never_the_positive():
    expected = {d: masked_infonce(QUERIES, KEYS, EXCLUDED, d) for d in DIMS}
    assert EXCLUDED[0, 0]
    assert_same(nested_infonce(QUERIES, KEYS, DIMS, excluded=EXCLUDED), expected)
    nothing = torch.zeros_like(EXCLUDED)
    plain = {d: infonce(QUERIES, KEYS, d, 0.05) for d in DIMS}
    assert_same(nested_infonce(QUERIES, KEYS, DIMS, excluded=nothing), plain)


def test_a_query_with_no_negative_left_has_no_loss():
    found = nested_infonce(QUERIES, KEYS, DIMS, excluded=torch.ones(4, 6, dtype=torch.bool))
    assert_same(found, dict.fromkeys(DIMS, 0.0))


@pytest.mark.parametrize("excluded", [None, EXCLUDED])
def test_symmetric_is_the_mean_with_positives_that_seek_their_queries(excluded):
    there = torch.zeros(4, 6, dtype=torch.bool) if excluded is None else excluded
    expected = {
        d: (
            masked_infonce(QUERIES, KEYS, there, d)
            + masked_infonce(KEYS[:4], QUERIES, there[:, :4].T, d)
        )
        / 2
        for d in DIMS
    }
    found = nested_infonce(QUERIES, KEYS, DIMS, symmetric=True, excluded=excluded)
    assert_same(found, expected)


def test_no_gradient_passes_through_an_excluded_pair():
    keys = KEYS.clone().requires_grad_()
    excluded = torch.zeros(4, 6, dtype=torch.bool)
    excluded[:, 5] = True
    sum(nested_infonce(QUERIES, keys, DIMS, excluded=excluded).values()).backward()
    assert (keys.grad[5] == 0).all()
    assert keys.grad[:5].any(dim=1).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_gradient_is_that_of_finite_differences(symmetric):
    leaves = [QUERIES.clone().requires_grad_(), KEYS.clone().requires_grad_()]

    def loss(queries: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
        options = {"symmetric": symmetric, "excluded": EXCLUDED}
        return tuple(nested_infonce(queries, keys, DIMS, **options).values())

    assert torch.autograd.gradcheck(loss, leaves)


def test_excluded_of_another_shape_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    with pytest.raises(ValueError, match=r"shape \(4, 4\) for 4 queries and 6 keys"):
        nested_infonce(QUERIES, KEYS, DIMS, excluded=EXCLUDED[:, :4])


numbers = st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=1, max_size=7)


@given(numbers, numbers)
def test_rows_are_shared_when_their_sets_meet(a, b):
    found = shared(torch.tensor(a), torch.tensor(b))
    assert found.tolist() == [[bool(set(x) & set(y)) for y in b] for x in a]


@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.3])
def test_keys_are_nearer_than_the_positive_less_the_margin(margin):
    places = torch.tensor([2, 0, 5, 1])
    q, k = ([_unit(row) for row in rows.tolist()] for rows in (QUERIES, KEYS))
    expected = [
        [_dot(x, key) > _dot(x, k[own]) - margin for key in k]
        for x, own in zip(q, places.tolist(), strict=True)
    ]
    found = nearer(QUERIES, KEYS, places, margin)
    # to the last bit, the positive is as near as itself
    for i, own in enumerate(places.tolist()):
        expected[i][own] = margin > 0
    assert found.tolist() == expected
    assert 0 < found.sum() < found.numel()
