"""What the baselines' losses claim: their formulas, the same from parts, and their invariances."""

import math
from fractions import Fraction
from functools import partial

import jaxtyping
import pytest
import references_baselines as references
import torch
from references import DEGENERATE, MASKS, WIDTH, cloud, gaussian, rotation, simplex, tokens
from references_baselines import LONG_MASKS, lifts, sentences

from mic.losses.ese import (
    components,
    compression,
    layer_weight,
    light_layer_weight,
    light_width_weights,
)
from mic.losses.gor import spread, spread_out, spread_sums
from mic.losses.mipic import RelationSums, relation_sums, relation_terms, token_share
from mic.losses.sigreg import SKETCHES, directions, epps_pulley, quadrature, sigreg, sketch_sums
from mic.losses.vicreg import vicreg_terms

DIMS = [1, 2, 3, 5, WIDTH]
BELOW = DIMS[:-1]
NESTINGS = [[1], [WIDTH], [3, 5], DIMS, list(range(1, WIDTH + 1))]
HOLES = LONG_MASKS["holes and short ones"]


def vicreg(name, pooled, dims):
    return vicreg_terms(pooled, dims)[f"vicreg_{name}"]


def relations(name, hidden, dims, mask=HOLES, lifted=lifts):
    below = [d for d in dims if d < WIDTH]
    return relation_terms(relation_sums(hidden, mask, lifted(below), below), below)[name]


ROWS = {
    "vicreg-variance": partial(vicreg, "variance"),
    "vicreg-covariance": partial(vicreg, "covariance"),
    "spread": spread_out,
    "sigreg": sigreg,
    "compression": compression,
}
TOKENS = {
    "attention": partial(relations, "attention"),
    "cka": partial(relations, "cka"),
}
LOSSES = ROWS | TOKENS

every_nesting = pytest.mark.parametrize("dims", NESTINGS, ids=str)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_loss_of_rows = pytest.mark.parametrize("name", ROWS)
every_loss_of_tokens = pytest.mark.parametrize("name", TOKENS)
every_long_mask = pytest.mark.parametrize("mask", LONG_MASKS.values(), ids=LONG_MASKS)


def data(name):
    return cloud(6) if name in ROWS else sentences(*HOLES.shape)


def centred(batch, length):
    """Hidden states of which many score below 0, the score of a padding of zeros."""
    return gaussian(batch, length, WIDTH, seed=3)


def assert_same(actual, expected, rtol=1e-9, atol=1e-11):
    assert list(actual) == list(expected)
    assert all(value.shape == () for value in actual.values())
    for d, value in expected.items():
        assert actual[d].item() == pytest.approx(float(value), rel=rtol, abs=atol), f"width {d}"


# Formulas


@every_nesting
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_vicreg_equals_its_formula(dims, batch):
    pooled = cloud(batch)
    terms = vicreg_terms(pooled, dims)
    assert list(terms) == ["vicreg_variance", "vicreg_covariance"]
    for name, values in terms.items():
        assert_same(values, {d: getattr(references, name)(pooled, d) for d in dims})


@every_nesting
@pytest.mark.parametrize(
    "pooled",
    [cloud(2), cloud(7), simplex(WIDTH) @ rotation(WIDTH)],
    ids=["2 rows", "7 rows", "a simplex"],
)
def test_spread_out_equals_its_formula(dims, pooled):
    assert_same(spread_out(pooled, dims), {d: references.spread_out(pooled, d) for d in dims})


@every_nesting
@pytest.mark.parametrize(("batch", "seed"), [(1, 0), (4, 3)])
def test_sigreg_equals_its_formula(dims, batch, seed):
    pooled = cloud(batch)
    expected = {d: references.sigreg(pooled, d, directions(seed, d, pooled)) for d in dims}
    assert_same(sigreg(pooled, dims, seed=seed), expected)


@every_nesting
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_compression_equals_its_formula(dims, batch):
    pooled = cloud(batch)
    expected = {d: references.compression(pooled, d) for d in dims if d < WIDTH}
    assert_same(compression(pooled, dims), expected)


@every_nesting
@pytest.mark.parametrize("mask", [*MASKS.values(), *LONG_MASKS.values()], ids=[*MASKS, *LONG_MASKS])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
@pytest.mark.parametrize("states", [sentences, centred], ids=["with a mean", "without"])
def test_relations_equal_their_formulas(mask, dims, dtype, states):
    hidden, dims = states(*mask.shape), [d for d in dims if d < WIDTH] or [4]
    terms = relation_terms(relation_sums(hidden, mask.to(dtype), lifts(dims), dims), dims)
    assert list(terms) == ["attention", "cka"]
    pairs = list(zip(dims, lifts(dims), strict=True))
    expected = {d: references.attention(hidden, mask, lift, d) for d, lift in pairs}
    assert_same(terms["attention"], expected)
    n = len(dims)
    expected = {d: references.cka(hidden, mask, d, i, n) for i, d in enumerate(dims)}
    assert_same(terms["cka"], expected)


def test_weights_of_layers_and_widths_are_the_published_ones():
    assert [layer_weight(n) for n in (1, 2, 12)] == [1 / (1 + math.log(n)) for n in (1, 2, 12)]
    assert [light_layer_weight(n, 6) for n in (1, 5)] == [1 / (1 + math.log(n)) for n in (5, 1)]
    assert light_width_weights(4) == [1 / (1 + math.log(n)) for n in (1, 2, 3, 4)]


# Parts: what ranks add up is the whole, gradients included


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 4, 2]], ids=str)
def test_spread_and_its_gradient_are_the_same_from_parts(sizes):
    whole, parts = cloud(7).requires_grad_(), cloud(7).requires_grad_()
    values = spread_out(whole, DIMS)
    sums = sum(
        spread_sums(parts[places], parts, places, DIMS) for places in torch.arange(7).split(sizes)
    )
    summed = spread(sums, 7, DIMS)
    assert_same(summed, values, rtol=1e-12)
    assert_same_gradient(parts, summed, whole, values)


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 4, 2]], ids=str)
def test_sigreg_and_its_gradient_are_the_same_from_parts(sizes):
    whole, parts = cloud(7).requires_grad_(), cloud(7).requires_grad_()
    values = sigreg(whole, DIMS, seed=2)
    summed = epps_pulley(sum(sketch_sums(part, DIMS, 2) for part in parts.split(sizes)), 7, DIMS)
    assert_same(summed, values, rtol=1e-12)
    assert_same_gradient(parts, summed, whole, values)


@every_long_mask
def test_relations_and_their_gradient_are_the_same_from_parts(mask):
    whole, parts = (sentences(*mask.shape).requires_grad_() for _ in range(2))
    values = relation_terms(relation_sums(whole, mask, lifts(BELOW), BELOW), BELOW)
    sizes = [1, len(mask) - 1]
    actual = [
        relation_sums(hidden, valid, lifts(BELOW), BELOW)
        for hidden, valid in zip(parts.split(sizes), mask.split(sizes), strict=True)
    ]
    summed = relation_terms(RelationSums(*map(sum, zip(*actual, strict=True))), BELOW)
    for name, expected in values.items():
        assert_same(summed[name], expected, rtol=1e-12)
        assert_same_gradient(parts, summed[name], whole, expected)


def assert_same_gradient(left, left_values, right, right_values):
    gradients = [
        torch.autograd.grad(sum(values.values()), x, retain_graph=True)[0]
        for x, values in [(left, left_values), (right, right_values)]
    ]
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)
    assert gradients[0].any()


# Gradients and precision


@pytest.mark.parametrize("name", ["vicreg-variance", "vicreg-covariance", "spread", "sigreg"])
def test_gradients_are_those_of_finite_differences(name):
    pooled = cloud(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(LOSSES[name](x, [2, WIDTH]).values()), pooled)


def test_spread_differentiates_both_its_rows_and_everyone():
    everyone, places = cloud(5), torch.tensor([3, 1])
    leaves = [everyone[places].requires_grad_(), everyone.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, y: spread_sums(x, y, places, DIMS), leaves)


def test_compression_moves_the_prefix_and_not_its_target():
    pooled = cloud(5).requires_grad_()
    target = (pooled @ components(pooled)).detach()

    def held(x):
        return [
            torch.nn.functional.mse_loss(x[:, :d], target[:, :d])
            + torch.nn.functional.kl_div(
                x[:, :d].log_softmax(1), target[:, :d].softmax(1), reduction="batchmean"
            )
            for d in BELOW
        ]

    expected = torch.autograd.grad(sum(held(pooled)), pooled)[0]
    actual = torch.autograd.grad(sum(compression(pooled, DIMS).values()), pooled)[0]
    assert torch.allclose(actual, expected, rtol=1e-12, atol=1e-14)
    assert actual[:, : BELOW[-1]].all()
    assert not actual[:, BELOW[-1] :].any()


@every_loss_of_tokens
def test_the_full_width_side_has_no_gradient(name):
    hidden = sentences(*HOLES.shape).requires_grad_()
    sum(TOKENS[name](hidden, DIMS).values()).backward()
    assert not hidden.grad[..., BELOW[-1] :].any()
    # the student's side has: of kept sequences alone
    long_enough = HOLES.sum(1) >= 3
    assert hidden.grad[long_enough].flatten(1).any(1).all()
    assert not hidden.grad[~HOLES].any()
    assert not hidden.grad[~long_enough].any()


@every_loss_of_tokens
def test_gradients_of_relations_are_those_of_finite_differences_of_the_student(name):
    d, mask = 3, HOLES[:1]
    teacher = sentences(*mask.shape)[:1]
    student = teacher.clone().requires_grad_()
    actual = torch.autograd.grad(LOSSES[name](student, [d], mask=mask)[d], student)[0][..., :d]

    def value(prefix):
        """The loss with the teacher's side held: for each formula written over once more."""
        valid, full = prefix[0][mask[0]], teacher[0][mask[0]]
        scores = full @ full[0] / math.sqrt(WIDTH)
        if name == "attention":
            mine = (valid @ lifts([d])[0] @ full[0] / math.sqrt(WIDTH)).log_softmax(0)
            return (mine.exp() * (mine - scores.log_softmax(0))).sum()
        top = scores.topk(8).indices
        x, y = (rows[top] - rows[top].mean(0) for rows in (valid, full))
        return 1 - (x.T @ y).norm() ** 2 / (x.T @ x).norm() / (y.T @ y).norm()

    leaf = teacher[..., :d].clone().requires_grad_()
    assert value(leaf).item() == pytest.approx(LOSSES[name](teacher, [d], mask=mask)[d].item())
    assert torch.autograd.gradcheck(value, leaf)
    assert torch.allclose(actual, torch.autograd.grad(value(leaf), leaf)[0], rtol=1e-9, atol=1e-12)


def test_attention_teaches_the_lifts():
    dims = [2, 5]
    leaves = [lift.requires_grad_() for lift in lifts(dims)]
    hidden = sentences(*HOLES.shape)

    def value(*lifted):
        return relation_sums(hidden, HOLES, lifted, dims).attention

    assert torch.autograd.gradcheck(value, leaves)
    assert all(x.any() for x in torch.autograd.grad(value(*leaves).sum(), leaves))


@every_loss
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_single_precision_agrees_with_double_even_far_from_zero(name, offset):
    if offset and name in ("compression", "attention", "sigreg"):
        pytest.skip("a softmax or a wave of numbers in the thousands has no precision to keep")
    single = data(name).float() + offset
    double = LOSSES[name](single.double(), DIMS)
    assert_same(LOSSES[name](single, DIMS), double, rtol=1e-4, atol=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_and_autocast_leave_the_arithmetic_in_single(name, dtype, autocast):
    rounded = data(name).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = LOSSES[name](rounded, DIMS)
    assert all(value.dtype == torch.float32 for value in values.values())
    assert_same(values, LOSSES[name](rounded.float(), DIMS), rtol=1e-6, atol=1e-7)


@every_loss
@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_inputs_give_finite_values_and_gradients(name, degenerate, dtype):
    leaf = DEGENERATE[degenerate](data(name)).to(dtype).requires_grad_()
    values = LOSSES[name](leaf, DIMS)
    assert all(value.isfinite() for value in values.values())
    sum(values.values()).backward()
    assert leaf.grad.isfinite().all()


@every_loss_of_tokens
@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_tokens_teach_nothing_that_rounding_could(name, scale, dtype):
    hidden = (scale * gaussian(6, 1, WIDTH).expand(6, 30, WIDTH)).to(dtype).requires_grad_()
    values = LOSSES[name](hidden, DIMS)
    if name == "cka":
        assert_same(values, dict.fromkeys(BELOW, 1.0))
        sum(values.values()).backward()
        assert not hidden.grad.any()
    else:
        assert_same(values, dict.fromkeys(BELOW, 0.0), atol=1e-4)


def test_cka_takes_a_spread_far_below_single_precision_for_none():
    hidden = 1 + 1e-7 * sentences(*HOLES.shape)
    hidden.requires_grad_()
    values = relations("cka", hidden, DIMS)
    assert values == dict.fromkeys(BELOW, 1.0)
    sum(values.values()).backward()
    assert not hidden.grad.any()


def test_shares_of_tokens_are_rounded_up_exactly():
    for n in range(1, 8):
        for i in range(n):
            gamma = Fraction(1, 5) + (Fraction(i, 2 * (n - 1)) if i else 0)
            expected = [math.ceil(gamma * m) for m in range(513)]
            assert token_share(torch.arange(513)[:, None], i, n).flatten().tolist() == expected


@every_loss_of_tokens
@pytest.mark.parametrize("garbage", [1e3, math.inf, math.nan])
def test_relations_see_no_padding_whatever_it_holds(name, garbage):
    for mask in [*MASKS.values(), *LONG_MASKS.values()]:
        clean = sentences(*mask.shape)
        dirty = clean.masked_fill(~mask[..., None], garbage).requires_grad_()
        values = LOSSES[name](dirty, DIMS, mask=mask)
        assert_same(values, LOSSES[name](clean, DIMS, mask=mask), rtol=1e-12)
        sum(values.values()).backward()
        assert dirty.grad.isfinite().all()
        assert not dirty.grad[~mask].any()


@every_loss_of_tokens
def test_a_batch_of_short_sequences_has_no_relations_and_no_gradient(name):
    hidden = tokens(3).requires_grad_()
    values = LOSSES[name](hidden, DIMS, mask=MASKS["only short ones"])
    assert values == dict.fromkeys(BELOW, 0.0)
    sum(values.values()).backward()
    assert not hidden.grad.any()


# Invariances and known values


@every_loss
def test_a_width_depends_not_on_other_widths(name):
    nested = LOSSES[name](data(name), DIMS)
    if name != "cka":  # whose share of tokens rises from the first width to the last
        assert_same({d: LOSSES[name](data(name), [d])[d] for d in nested}, nested)
    assert set(nested) == set(DIMS if name in ROWS and name != "compression" else BELOW)


@pytest.mark.parametrize("name", ["vicreg-variance", "vicreg-covariance", "spread", "sigreg"])
@pytest.mark.parametrize("d", DIMS)
def test_a_prefix_loss_is_the_loss_of_the_truncated_and_ignores_the_residual(name, d):
    nested = {d: LOSSES[name](data(name), DIMS)[d]}
    assert_same(LOSSES[name](data(name)[:, :d], [d]), nested)
    turn = torch.block_diag(torch.eye(d), rotation(WIDTH - d)).double()
    assert_same(LOSSES[name](data(name) @ turn, [d]), nested)


def test_vicreg_is_zero_for_uncorrelated_coordinates_of_deviation_one():
    whitened = torch.linalg.qr(gaussian(12, WIDTH) - gaussian(12, WIDTH).mean(0)).Q * math.sqrt(11)
    for rows in (whitened, 3 * whitened + 5):
        terms = vicreg_terms(rows, DIMS)
        assert_same(terms["vicreg_variance"], dict.fromkeys(DIMS, 0.0))
        assert_same(terms["vicreg_covariance"], dict.fromkeys(DIMS, 0.0))


def test_vicreg_of_one_point_and_of_copies_of_a_coordinate():
    still = vicreg_terms(torch.ones(4, WIDTH), DIMS)
    assert_same(still["vicreg_variance"], dict.fromkeys(DIMS, 0.99), rtol=1e-6)
    column = gaussian(9, 1)
    copies = vicreg_terms(2 * column.expand(9, WIDTH) / column.std(), DIMS)
    expected = {d: (d - 1) * 2.0**4 for d in DIMS}
    assert_same(copies["vicreg_covariance"], expected)


@pytest.mark.parametrize("d", [2, 3, WIDTH])
def test_spread_is_zero_where_cosines_have_the_moments_of_random_directions(d):
    axes = torch.eye(d, dtype=torch.float64)
    assert_same(spread_out(axes, [d]), {d: 0.0})
    ends = torch.cat([axes, -axes])  # M1 = -1 / (2 d - 1), and M2 = 1 / (2 d - 1) is below 1 / d
    assert_same(spread_out(ends, [d]), {d: 1 / (2 * d - 1) ** 2})
    assert spread_out(gaussian(600, d), [d])[d].item() < 0.01


@pytest.mark.parametrize("d", DIMS)
def test_spread_of_one_direction_is_two_less_one_part_in_d(d):
    lengths = gaussian(6, 1).exp()
    assert_same(spread_out(lengths * gaussian(1, WIDTH), [d]), {d: 2 - 1 / d})


@pytest.mark.parametrize("d", DIMS)
def test_spread_ignores_rotations_of_the_prefix_and_the_length_of_rows(d):
    turn = torch.block_diag(rotation(d), rotation(WIDTH - d))
    turned = cloud(6) @ turn * gaussian(6, 1, seed=3).exp()
    assert_same(spread_out(turned, [d]), spread_out(cloud(6), [d]))


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("seed", [0, 4])
def test_sigreg_of_rows_at_the_origin_is_a_known_integral(n, seed):
    expected = dict.fromkeys(DIMS, n * references.gaussian_at_origin())
    origin = torch.zeros(n, WIDTH, dtype=torch.float64)
    assert_same(sigreg(origin, DIMS, seed=seed), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 32])
def test_sigreg_of_gaussian_rows_has_a_known_mean_whatever_their_number(n):
    draws = [sigreg(gaussian(n, WIDTH, seed=s), DIMS, seed=s) for s in range(300)]
    expected = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    for d in DIMS:
        values = torch.stack([draw[d] for draw in draws])
        error = values.std() / math.sqrt(len(values))
        assert (values.mean() - expected).abs() < 3.5 * error
        assert error < 0.1 * expected


def test_sigreg_tells_a_gaussian_from_a_line_a_shift_and_a_scale():
    rows = gaussian(256, WIDTH)
    for other in (gaussian(256, 1).expand(-1, WIDTH), rows + 0.5, 2 * rows, rows / 2):
        assert sigreg(other, [WIDTH])[WIDTH] > 3 * sigreg(rows, [WIDTH])[WIDTH]


def test_directions_are_unit_vectors_drawn_anew_for_every_seed_and_width():
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    for d in (1, 2, 300):
        drawn = directions(0, d, double)
        assert drawn.shape == (SKETCHES, d)
        assert torch.allclose(drawn.norm(dim=1), torch.ones(SKETCHES, dtype=torch.float64))
        assert drawn.unique(dim=0).shape[0] == (2 if d == 1 else SKETCHES)
        assert torch.allclose(directions(0, d, single).double(), drawn, atol=1e-6)
        assert drawn.sum(0).norm() < 3 * math.sqrt(SKETCHES)
    keys = [(seed, d) for seed in (0, 1, 2, 2**32, 2**40) for d in (16, 17)]
    distinct = {directions(*key, double)[:, :2].sum().item() for key in keys}
    assert len(distinct) == len(keys)
    narrow, wide = directions(0, 16, double)[0], directions(0, 17, double)[0, :16]
    assert (narrow @ wide / wide.norm()).abs() < 0.9


def test_the_trapezoid_rule_weighs_the_whole_of_minus_five_to_five():
    points, weights = quadrature(torch.zeros(1, dtype=torch.float64))
    assert points.tolist() == [0.625 * k for k in range(9)]
    assert weights.sum().item() == pytest.approx(10)


def test_directions_leave_the_global_random_state_and_ignore_it():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = directions(3, 5, torch.zeros(1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(directions(3, 5, torch.zeros(1)), first)
    assert SKETCHES == 256


def test_components_are_nested_singular_vectors_of_the_softmaxed_products():
    pooled = cloud(5)
    dependencies = (pooled.T @ pooled / math.sqrt(WIDTH)).softmax(1)
    actual = components(pooled)
    values = torch.linalg.svdvals(dependencies)
    assert torch.allclose(actual.norm(dim=0), values)
    assert torch.allclose(actual @ actual.T, dependencies @ dependencies.T)
    assert (actual.gather(0, actual.abs().argmax(0, keepdim=True)) > 0).all()


def test_components_do_not_depend_on_the_signs_that_a_solver_gives(monkeypatch):
    expected = components(cloud(5))
    solve = torch.linalg.svd

    def flipped(matrix):
        left, values, right = solve(matrix)
        signs = gaussian(len(values)).sign()
        assert (signs < 0).any()
        return left * signs, values, signs[:, None] * right

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    assert torch.allclose(components(cloud(5)), expected, rtol=1e-12)


def test_compression_takes_one_decomposition_and_none_without_a_narrower_width(monkeypatch):
    calls = []
    solve = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda x: calls.append(x.requires_grad) or solve(x))
    assert compression(cloud(4), [WIDTH]) == {}
    compression(cloud(4).requires_grad_(), DIMS)
    assert calls == [False]


def test_compression_ignores_the_order_of_rows_and_not_of_coordinates():
    pooled, order = cloud(6), [3, 1, 5, 0, 2, 4]
    assert_same(compression(pooled[order], DIMS), compression(pooled, DIMS))
    assert compression(pooled[:, list(range(7, -1, -1))], [3])[3] != compression(pooled, [3])[3]


@every_long_mask
def test_attention_is_zero_where_lifts_restore_the_full_states(mask):
    # states in the span of their first three coordinates, which determine the others
    restore = torch.cat([torch.eye(3).double(), gaussian(3, WIDTH - 3)], dim=1)
    hidden = sentences(*mask.shape)[..., :3] @ restore
    values = relations("attention", hidden, [3], mask=mask, lifted=lambda _: [restore])
    assert_same(values, {3: 0.0})
    wrong = relations("attention", hidden, [3], mask=mask, lifted=lambda _: [2 * restore])
    assert wrong[3] > 0.01


def test_attention_with_lifts_of_zero_is_the_divergence_of_a_uniform_one():
    hidden, mask = sentences(1, 6), MASKS["full"][:1]
    scores = (hidden[0] @ hidden[0, 0] / math.sqrt(WIDTH)).log_softmax(0)
    zero = relations("attention", hidden, [3], mask, lambda _: [torch.zeros(3, WIDTH)])
    assert_same(zero, {3: -math.log(6) - scores.mean()})


@every_long_mask
def test_cka_is_zero_where_the_residual_is_a_turned_and_scaled_copy_of_the_prefix(mask):
    half = sentences(*mask.shape)[..., :4]
    copied = torch.cat([half, 3 * half @ rotation(4) + 7], dim=-1)
    assert_same(relations("cka", copied, [4], mask=mask), {4: 0.0}, atol=1e-9)
    silent = torch.cat([half, torch.ones_like(half)], dim=-1)
    assert_same(relations("cka", silent, [4], mask=mask), {4: 0.0}, atol=1e-9)
    stretched = torch.cat([half, 3 * half * torch.tensor([5.0, 1, 1, 1])], dim=-1)
    assert relations("cka", stretched, [4], mask=mask)[4] > 0.01


def test_cka_ignores_scales_and_shifts_that_keep_the_ranking_of_tokens():
    hidden = sentences(*MASKS["holes"].shape)  # too short for any token to be left out
    cka = partial(relations, "cka", dims=DIMS, mask=MASKS["holes"])
    shifted = hidden + 10 * gaussian(4, 1, WIDTH, seed=3)
    assert_same(cka(3 * shifted), cka(hidden))


def test_cka_looks_at_the_tokens_that_the_first_one_attends_to_alone():
    mask, clean = torch.ones(1, 40, dtype=torch.bool), sentences(1, 40)
    clean[0, :, 4] += 100 * (torch.arange(40) < 8)  # the eight that the first token attends to
    moved = clean.clone()
    moved[0, 8:, :3] += gaussian(32, 3, seed=4)
    moved[0, 8:, 5:] = 0
    first, second = (relations("cka", x, [3], mask=mask)[3].item() for x in (clean, moved))
    assert first == pytest.approx(second, rel=1e-9)
    last = [relations("cka", x, [2, 3], mask=mask)[3].item() for x in (clean, moved)]
    assert last[0] != pytest.approx(last[1], rel=1e-3)


@every_loss_of_tokens
def test_relations_ignore_the_order_of_later_tokens_and_of_sequences(name):
    hidden, order = sentences(*HOLES.shape), [4, 2, 0, 5, 1, 3]
    values = LOSSES[name](hidden, DIMS)
    assert_same(LOSSES[name](hidden[order], DIMS, mask=HOLES[order]), values)
    back = torch.cat([torch.tensor([0, 1]), torch.arange(29, 1, -1)])
    starts = HOLES[:, :2].any(1)
    assert starts.any()
    hidden, mask = hidden[starts], HOLES[starts]
    turned = LOSSES[name](hidden[:, back], DIMS, mask=mask[:, back])
    assert_same(turned, LOSSES[name](hidden, DIMS, mask=mask))


# Errors name the value and the cure


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ([6, 3], r"dims \[6, 3\]: widths must increase; did you mean \[3, 6\]\?"),
        ([0, 3], r"\[0, 3\].* width 0 .*1"),
        ([3, 9], r"\[3, 9\].* width 9 .*8"),
        ([], r"dims \[\]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [*ROWS, "spread-sums", "sketch-sums", "relation-sums"])
def test_impossible_widths_are_refused(name, dims, says):
    sums = {
        "spread-sums": lambda x, dims: spread_sums(x, x, torch.arange(len(x)), dims),
        "sketch-sums": lambda x, dims: sketch_sums(x, dims, 0),
        "relation-sums": lambda x, dims: relation_sums(x[None], torch.ones(1, 6).bool(), [], dims),
    }
    with pytest.raises(ValueError, match=says):
        (ROWS | sums)[name](cloud(6), dims)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: vicreg_terms(cloud(1), DIMS), "1 row.* 2"),
        (lambda: spread_out(cloud(1), DIMS), "1 row.* 2"),
        (lambda: sigreg(cloud(0), DIMS), "0 rows.* 1"),
        (lambda: layer_weight(0), "layer 0: .*1"),
        (lambda: light_layer_weight(6, 6), "layer 6 of 6: .*1 to 5"),
        (lambda: light_layer_weight(0, 6), "layer 0 of 6: .*1 to 5"),
        (lambda: relation_sums(tokens(4), MASKS["holes"], lifts(DIMS), DIMS), "8 is the layer's"),
        (lambda: relation_sums(tokens(4), MASKS["holes"], lifts([2]), [2, 3]), r"\(2, 8\).*2, 3"),
        (lambda: relation_sums(tokens(4), MASKS["holes"], lifts([3]), [2]), r"\(3, 8\).*\[2\]"),
        (
            lambda: relation_sums(tokens(4), MASKS["holes"], [gaussian(2, 7)], [2]),
            r"\(2, 7\).*\(dim, 8\)",
        ),
    ],
)
def test_impossible_batches_layers_and_lifts_are_refused(call, says, monkeypatch):
    # as a user meets them: without the tests' own type checker, which would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        call()
