"""What is no negative: InfoNCE leaves excluded pairs out, masks mark those they say they mark."""

from math import exp, log, sqrt

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import WIDTH, cloud, gaussian

from mic.losses import nested_infonce
from mic.losses.contrastive import infonce_sums
from mic.losses.false_negatives import nearer_than_positive, sharing_ids

DIMS = [1, 3, WIDTH]
COUNTS = [(1, 1), (2, 2), (4, 4), (4, 9)]  # queries, keys: with and without hard negatives

every_count = pytest.mark.parametrize(("n", "k"), COUNTS)
every_direction = pytest.mark.parametrize("symmetric", [False, True])


def infonce(queries, keys, d, temperature, excluded=None, symmetric=False):
    """Mean over i of -log(exp(s_ii) / sum_j exp(s_ij)), s_ij = cos(q_i, k_j) / temperature.

    The sum is over j = i and those j for which (i, j) is not excluded. Symmetric: the mean of this
    and of -log(exp(s_ii) / sum_j exp(s_ji)), j over the queries.
    """
    q, k = ([row[:d] for row in x.tolist()] for x in (queries, keys))
    n = len(q)
    s = [[cosine(a, b) / temperature for b in k] for a in q]
    out = [[False] * len(k)] * n if excluded is None else excluded.tolist()
    forth, back = [], []
    for i in range(n):
        forth.append(surprise(s[i][i], [s[i][j] for j in range(len(k)) if j == i or not out[i][j]]))
        back.append(surprise(s[i][i], [s[j][i] for j in range(n) if j == i or not out[j][i]]))
    return (
        sum(a + b for a, b in zip(forth, back, strict=True)) / 2 / n
        if symmetric
        else sum(forth) / n
    )


def surprise(positive, scores):
    top = max(scores)
    return top + log(sum(exp(score - top) for score in scores)) - positive


def cosine(a, b):
    return dot(a, b) / sqrt(dot(a, a) * dot(b, b))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def pairs(n, k):
    return cloud(n), cloud(k, seed=1)


def some(n, k, share=0.5, seed=0):
    """Pairs marked at random, positives too."""
    return torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) < share


def all_but_positives(n, k):
    return ~torch.eye(n, k, dtype=torch.bool)


def assert_same(actual, expected, tolerance=1e-9):
    assert list(actual) == list(expected)
    assert all(value.shape == () for value in actual.values())
    for d, value in expected.items():
        assert actual[d].item() == pytest.approx(float(value), abs=tolerance, rel=0), f"width {d}"


def total(values):
    weights = torch.arange(1, len(values) + 1)  # every width asks differently
    return (torch.stack(list(values.values())) * weights).sum()


# InfoNCE with some pairs left out, and in both directions


@every_count
@every_direction
@pytest.mark.parametrize("share", [None, 0.3, 0.7])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_infonce_equals_its_formula(n, k, symmetric, share, temperature):
    for seed in range(5):
        q, keys = cloud(n, seed=seed), cloud(k, seed=seed + 100)
        excluded = None if share is None else some(n, k, share, seed)
        options = {"temperature": temperature, "excluded": excluded, "symmetric": symmetric}
        expected = {d: infonce(q, keys, d, **options) for d in DIMS}
        assert_same(nested_infonce(q, keys, DIMS, **options), expected)


@every_count
@every_direction
def test_a_marked_positive_stays(n, k, symmetric):
    excluded = some(n, k)
    marked = excluded | torch.eye(n, k, dtype=torch.bool)
    actual, expected = (
        nested_infonce(*pairs(n, k), DIMS, excluded=mask, symmetric=symmetric)
        for mask in (marked, marked & all_but_positives(n, k))
    )
    assert_same(actual, expected, 0.0)


@every_count
@every_direction
@pytest.mark.parametrize("mask", [all_but_positives, lambda n, k: torch.ones(n, k) > 0])
def test_positives_alone_give_exactly_0_and_no_gradient(n, k, symmetric, mask):
    leaves = [x.requires_grad_() for x in pairs(n, k)]
    values = nested_infonce(*leaves, DIMS, excluded=mask(n, k), symmetric=symmetric)
    assert values == dict.fromkeys(DIMS, 0.0)
    assert not any(gradient.any() for gradient in torch.autograd.grad(total(values), leaves))


@every_count
@every_direction
def test_nothing_excluded_is_no_mask(n, k, symmetric):
    nothing = torch.zeros(n, k, dtype=torch.bool)
    values = nested_infonce(*pairs(n, k), DIMS, excluded=nothing, symmetric=symmetric)
    assert_same(values, nested_infonce(*pairs(n, k), DIMS, symmetric=symmetric), 0.0)


def test_one_direction_and_no_mask_are_the_defaults():
    asked = {"symmetric": False, "excluded": None}
    values = nested_infonce(*pairs(4, 9), DIMS)
    assert_same(values, nested_infonce(*pairs(4, 9), DIMS, **asked), 0.0)


def test_both_directions_are_one_loss_of_either_side():
    (q, k), excluded = pairs(5, 5), some(5, 5)
    there = nested_infonce(q, k, DIMS, excluded=excluded, symmetric=True)
    assert_same(nested_infonce(k, q, DIMS, excluded=excluded.T, symmetric=True), there, 1e-12)


def test_hard_negatives_ask_nothing():
    q, k = pairs(4, 9)
    forth = nested_infonce(q, k, DIMS)
    back = nested_infonce(k[:4], q, DIMS)
    both = nested_infonce(q, k, DIMS, symmetric=True)
    assert_same(both, {d: (forth[d] + back[d]) / 2 for d in DIMS}, 1e-12)


@every_direction
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_gradients_are_those_of_finite_differences(symmetric, share):
    leaves = [x.requires_grad_() for x in pairs(3, 5)]
    options = {"excluded": some(3, 5, share), "symmetric": symmetric, "temperature": 0.3}
    loss = lambda q, k: tuple(nested_infonce(q, k, DIMS, **options).values())  # noqa: E731
    assert torch.autograd.gradcheck(loss, leaves)


@every_direction
def test_a_key_excluded_for_every_query_gets_no_gradient_and_may_be_anything(symmetric):
    q, k = pairs(4, 9)
    excluded = torch.zeros(4, 9, dtype=torch.bool)
    excluded[:, 6] = True
    values = nested_infonce(q, k.requires_grad_(), DIMS, excluded=excluded, symmetric=symmetric)
    (gradient,) = torch.autograd.grad(total(values), k)
    assert gradient.any(1).tolist() == [j != 6 for j in range(9)]
    others = nested_infonce(
        q, k.index_fill(0, torch.tensor([6]), 9.0), DIMS, excluded=excluded, symmetric=symmetric
    )
    assert_same(others, values, 0.0)


@every_direction
def test_only_the_excluded_pair_loses_its_gradient(symmetric):
    # query 0 sees key 1 no more, in either direction; key 0 and query 1 still see each other
    q, k = pairs(2, 2)
    excluded = torch.tensor([[False, True], [False, False]])
    options = {"excluded": excluded, "symmetric": symmetric}
    moved = q.clone()
    moved[0] = -moved[0]  # changes the losses of key 0 alone, by row 0's positive pair or not
    q.requires_grad_(), k.requires_grad_()
    to_q, to_k = torch.autograd.grad(total(nested_infonce(q, k, DIMS, **options)), (q, k))
    # query 0 has its positive alone, so that without the way back nothing pulls at it
    assert bool(to_q[0].any()) is symmetric
    assert to_q[1].any()
    assert to_k.any(1).tolist() == [True, True]
    backward = nested_infonce(q[1:], k.flip(0), DIMS)
    actual = nested_infonce(moved, k, DIMS, excluded=excluded)
    assert_same(actual, {d: backward[d] / 2 for d in DIMS}, 1e-12)


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3, 4]], [[3, 0], [4], [1, 2]]], ids=str)
def test_the_sums_of_parts_are_the_loss_of_the_whole(parts):
    (q, k), excluded = pairs(5, 8), some(5, 8)
    leaves = q.requires_grad_(), k.requires_grad_()
    whole = torch.stack(list(nested_infonce(q, k, DIMS, excluded=excluded).values()))
    sums = [infonce_sums(q[p], k, p, DIMS, 0.05, excluded[p]) for p in map(torch.tensor, parts)]
    actual = torch.stack(sums).sum(0) / 5
    torch.testing.assert_close(actual, whole, rtol=1e-12, atol=1e-12)
    weights = torch.arange(1, len(DIMS) + 1)
    for mine, expected in zip(
        torch.autograd.grad((actual * weights).sum(), leaves),
        torch.autograd.grad((whole * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@every_direction
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_leave_the_arithmetic_in_single(symmetric, dtype):
    q, k = (x.to(dtype) for x in pairs(4, 9))
    options = {"symmetric": symmetric, "excluded": some(4, 9)}
    expected = nested_infonce(q.float(), k.float(), DIMS, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(nested_infonce(q, k, DIMS, **options), expected, 0.0)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((4, 8), r"\(4, 8\) for 4 queries and 9 keys: expected \(4, 9\)"),
        ((9, 4), r"\(9, 4\) .*expected \(4, 9\)"),
        ((4, 4), r"\(4, 4\) .*expected \(4, 9\)"),
        ((1, 9), r"\(1, 9\) .*expected \(4, 9\)"),  # would broadcast
        ((9,), r"\(9,\) .*expected \(4, 9\)"),
    ],
    ids=str,
)
def test_a_mask_of_another_shape_is_refused(shape, says, monkeypatch):
    # as a user meets it: without the tests' own type checker, which would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        nested_infonce(*pairs(4, 9), DIMS, excluded=torch.zeros(shape, dtype=torch.bool))


def test_keys_of_another_width_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"keys of width 6 for queries of width 8"):
        nested_infonce(cloud(4), cloud(4)[:, :6], [3])


# Rows that share a number


def table(rows, columns):
    row = st.lists(st.integers(-2, 4), min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


tables = st.tuples(st.integers(1, 5), st.integers(1, 3)).flatmap(lambda size: table(*size))


@given(tables, tables)
def test_shared_is_whether_two_rows_have_a_number_in_common(a, b):
    expected = [[bool(set(row) & set(other)) for other in b] for row in a]
    assert sharing_ids(torch.tensor(a), torch.tensor(b)).tolist() == expected


@given(tables)
def test_a_row_shares_with_itself_and_sharing_is_mutual(a):
    actual = sharing_ids(torch.tensor(a), torch.tensor(a))
    assert actual.diagonal().all()
    assert torch.equal(actual, actual.T)


def test_shared_compares_all_64_bits():
    a = torch.tensor([[1, 2**62], [-(2**63), 2**63 - 1]])
    b = torch.tensor([[1 + 2**32, 2**62 + 1], [2**63 - 1, 0], [2**31, -(2**63) + 1]])
    assert sharing_ids(a, b).tolist() == [[False, False, False], [False, True, False]]


def test_rows_without_columns_share_nothing():
    nothing = torch.zeros(2, 0, dtype=torch.long)
    assert sharing_ids(nothing, torch.tensor([[1], [0], [2]])).tolist() == [[False] * 3] * 2


# Keys that a teacher finds too near


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.1, 0.5, 2.5])
@pytest.mark.parametrize(("n", "k", "width"), [(1, 1, 8), (4, 4, 8), (4, 9, 3), (30, 50, 8)])
def test_nearer_equals_its_formula(n, k, width, margin):
    queries, keys = gaussian(n, width), gaussian(k, width, seed=1)
    positives = torch.randperm(k, generator=torch.Generator().manual_seed(2))[:n]
    q, ks = queries.tolist(), keys.tolist()
    expected = [
        [cosine(q[i], ks[j]) > cosine(q[i], ks[positives[i]]) - margin for j in range(k)]
        for i in range(n)
    ]
    if margin == 0:  # a positive ties with itself, up to the rounding of the loop above
        assert not any(expected[i][positives[i]] for i in range(n))
    assert nearer_than_positive(queries, keys, positives, margin).tolist() == expected


@pytest.mark.parametrize(
    ("margin", "marked"),
    [
        # cosines 0.5 (the positive), 0.5 (its double), 1, 0, -0.5: all exact
        (0.0, [False, False, True, False, False]),  # ties are negatives
        (1e-6, [True, True, True, False, False]),
        (-1e-6, [False, False, True, False, False]),
        (-0.5, [False, False, False, False, False]),
        (0.5, [True, True, True, False, False]),  # as near as allowed is a negative
        (0.5 + 1e-6, [True, True, True, True, False]),
        (1.0, [True, True, True, True, False]),
        (1.0 + 1e-6, [True, True, True, True, True]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_margin_at_its_edges(margin, marked, dtype):
    query = torch.tensor([[2.0, 0, 0, 0]], dtype=dtype)
    half, whole, none = [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 3, 0]
    keys = torch.tensor([half, half, whole, none, [-1, 1, 1, 1]], dtype=dtype)
    assert nearer_than_positive(query, keys, torch.tensor([0]), margin).tolist() == [marked]


def test_a_teacher_takes_away_the_unlabelled_answer_and_leaves_the_hard_negative():
    # GISTEmbed: the guide finds key 1 nearer to query 0 than its own key, and key 2 less near
    guide_queries = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    guide_keys = torch.tensor([[0.8, 0.2, 0.3], [0.9, 1, 0], [0.5, 0, 1]])
    guide_keys[1] = torch.tensor([0.99, 0.1, 0])
    positives = torch.arange(3)
    false = nearer_than_positive(guide_queries, guide_keys, positives, 0.0)
    assert false.tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, False],
    ]
    q, k = pairs(3, 3)
    values = nested_infonce(q, k, [WIDTH], excluded=false)
    scores = (torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(k).T / 0.05).exp()
    p0 = scores[0, 0] / (scores[0, 0] + scores[0, 2])
    p1 = scores[1, 1] / (scores[1, 1] + scores[1, 2])
    p2 = scores[2, 2] / scores[2].sum()
    assert_same(values, {WIDTH: -(p0 * p1 * p2).log() / 3})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_is_compared_in_single(dtype):
    queries, keys = gaussian(30, 8).to(dtype), gaussian(50, 8, seed=1).to(dtype)
    positives = torch.arange(30)
    expected = nearer_than_positive(queries.float(), keys.float(), positives, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearer_than_positive(queries, keys, positives, 0.05), expected)


def test_the_length_of_a_teachers_rows_says_nothing():
    queries, keys, positives = gaussian(10, 8), gaussian(20, 8, seed=1), torch.arange(10)
    expected = nearer_than_positive(queries, keys, positives, 0.05)
    lengths = torch.logspace(-2, 2, 20, dtype=torch.float64)[:, None]
    assert torch.equal(
        nearer_than_positive(queries * lengths[:10], keys * lengths, positives, 0.05), expected
    )
