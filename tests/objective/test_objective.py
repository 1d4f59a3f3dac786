"""The assembly of the objective equals the loops of its design, section 4."""

from dataclasses import replace

import pytest
import torch
from references import MASKS, WIDTH, cloud, tokens

from mic.config.schema import ObjectiveConfig, TermConfig
from mic.losses import nested_infonce, soft_collapse, spectral_isotropy
from mic.nested import Encoded
from mic.objective.objective import Objective

REGULARIZERS = ("correlation", "variance", "cv", "uniformity")
LAYERS = (0, 1, 2)
CONFIG = ObjectiveConfig(dims=[2, 3, 5], align_layers=[1], threshold=0.05)


def view(seed, mask="holes", width=WIDTH, dtype=torch.float64):
    """An encoded column: an embedding of any width over hidden states of WIDTH."""
    pooled = torch.cat([cloud(4, seed=seed), cloud(4, seed=seed + 50)], dim=1)[:, :width]
    hidden = {layer: tokens(4, seed=seed + 10 * layer).to(dtype) for layer in LAYERS}
    return Encoded(pooled.to(dtype), hidden, MASKS[mask])


def two_views(**options):
    return [view(1, **options), view(2, mask="three short", **options)]


MASKS = {**MASKS, "three short": MASKS["short sequences"][[4, 3, 3, 1]]}


def loss_of(config, views=None, step=0):
    return Objective(config)(views or two_views(), step)


def regularizer(config, views):
    """The mean over views, layers and widths of L_SCR + L_SIR, as the design writes it."""
    values = []
    for encoded in views if config.regularize_views == "both" else views[:1]:
        for layer in config.align_layers:
            if layer == "output":  # the batch is one sequence of embeddings
                pooled = encoded.pooled
                hidden, mask = pooled[None], torch.ones(1, len(pooled), dtype=torch.bool)
            else:
                hidden, mask = encoded.hidden[layer], encoded.mask
                pooled = torch.stack(
                    [states[valid].mean(0) for states, valid in zip(hidden, mask, strict=True)]
                )
            full = hidden.shape[2]
            for d in [*(d for d in config.dims if d < full), full]:
                value = spectral_isotropy(pooled, [d], t=config.t, isotropy=config.isotropy)[d]
                if d < full:  # no residual at the full width
                    value = (
                        value
                        + soft_collapse(
                            hidden,
                            mask,
                            [d],
                            threshold=config.threshold,
                            variance_weight=config.variance.weight,
                            variance_floor=config.variance_floor,
                        )[d]
                    )
                values.append(value)
    return sum(values) / len(values)


def contrast(config, views):
    q, keys = views[0].pooled, torch.cat([encoded.pooled for encoded in views[1:]])
    dims = sorted({*config.dims, q.shape[1]})
    values = [nested_infonce(q, keys, [d], temperature=config.temperature)[d] for d in dims]
    return sum(values) / (len(dims) if config.normalize_dim_weights else 1)


def assert_is_the_design(config, views):
    actual = loss_of(config, views)
    expected = contrast(config, views) + config.gamma * regularizer(config, views)
    assert actual.total.item() == pytest.approx(expected.item(), rel=0, abs=1e-10)


def assert_same(actual, expected, scale=1.0):
    assert list(actual) == list(expected)
    for d, value in expected.items():
        assert actual[d].item() == pytest.approx(scale * value.item(), abs=1e-12)


# The assembly


@pytest.mark.parametrize("layers", [[1], [0, 2], [2], ["output"], [0, 1, "output"]], ids=str)
@pytest.mark.parametrize("views", ["first", "both"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("gamma", "lambda_var"), [(0.1, 0.1), (1.0, 0.0), (0.5, 2.0)])
def test_the_total_is_that_of_loops_over_views_layers_and_widths(
    layers, views, normalize, gamma, lambda_var
):
    config = replace(
        CONFIG,
        align_layers=layers,
        regularize_views=views,
        normalize_dim_weights=normalize,
        gamma=gamma,
        variance=TermConfig(lambda_var),
    )
    assert_is_the_design(config, two_views())


@pytest.mark.parametrize("dims", [[], [1], [WIDTH], [2, WIDTH], list(range(1, WIDTH))], ids=str)
def test_it_is_so_for_every_nesting(dims):
    assert_is_the_design(replace(CONFIG, dims=dims), two_views())


@pytest.mark.parametrize("options", [{"isotropy": "eigen", "t": 0.5}, {"temperature": 1.0}])
@pytest.mark.parametrize("floor", ["mean", "per_dim"])
def test_it_is_so_for_every_switch_of_the_losses(options, floor):
    assert_is_the_design(replace(CONFIG, variance_floor=floor, **options), two_views())


@pytest.mark.parametrize(
    ("width", "dims"), [(5, [2, 3]), (5, [2, 5]), (12, [2, 5]), (12, [2, 8, 10]), (12, [9, 12])]
)
def test_hidden_states_of_another_width_take_the_widths_below_theirs_and_their_own(width, dims):
    config, views = replace(CONFIG, dims=dims), two_views(width=width)
    assert_is_the_design(config, views)
    actual = loss_of(config, views).terms
    assert list(actual["contrastive"]) == sorted({*dims, width})
    assert list(actual["uniformity"]) == sorted({d for d in dims if d < WIDTH} | {WIDTH})


@pytest.mark.parametrize("layers", [[1, "output"], ["output", 0, 1]], ids=str)
@pytest.mark.parametrize("width", [5, 12])
def test_beside_the_output_every_layer_counts_at_the_widths_that_it_has(layers, width):
    config, views = replace(CONFIG, align_layers=layers), two_views(width=width)
    apart = [loss_of(replace(config, align_layers=[layer]), views).terms for layer in layers]
    together = loss_of(config, views).terms
    for name in REGULARIZERS:
        widths = sorted({d for terms in apart for d in terms[name]})
        means = {
            d: torch.stack([terms[name][d] for terms in apart if d in terms[name]]).mean()
            for d in widths
        }
        assert_same(together[name], means)


def test_hard_negatives_are_keys_and_never_regularised():
    columns = [*two_views(), view(3)._replace(hidden={})]
    actual, without = loss_of(CONFIG, columns), loss_of(CONFIG, columns[:2])
    assert_same({0: actual.weighted["contrastive"]}, {0: contrast(CONFIG, columns)})
    assert actual.weighted["contrastive"] > without.weighted["contrastive"]
    for name in REGULARIZERS:
        assert_same(actual.terms[name], without.terms[name])


# Terms, weights and schedules


@pytest.mark.parametrize("step", [0, 7])
def test_the_parts_sum_to_the_total(step):
    config = replace(CONFIG, cv=TermConfig(3.0, 5), variance=TermConfig(-1.0))
    actual = loss_of(config, step=step)
    assert list(actual.weighted) == list(actual.terms) == ["contrastive", *REGULARIZERS]
    assert sum(actual.weighted.values()).item() == pytest.approx(actual.total.item(), abs=1e-12)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_weight_scales_its_part_and_leaves_the_terms_raw(name):
    plain = loss_of(CONFIG)
    weight = getattr(CONFIG, name).weight
    heavy = loss_of(replace(CONFIG, gamma=0.3, **{name: TermConfig(4 * weight)}))
    for other in ("contrastive", *REGULARIZERS):
        assert_same(heavy.terms[other], plain.terms[other])
        gamma = 1 if other == "contrastive" else 0.3 / CONFIG.gamma
        scale = gamma * (4 if other == name else 1)
        assert heavy.weighted[other].item() == pytest.approx(scale * plain.weighted[other].item())


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_warm_up_raises_one_weight_linearly_and_then_holds_it(name):
    full = loss_of(CONFIG).weighted
    config = replace(CONFIG, **{name: TermConfig(getattr(CONFIG, name).weight, warmup_steps=4)})
    for step, share in [(0, 1 / 4), (1, 2 / 4), (2, 3 / 4), (3, 1), (4, 1), (1000, 1)]:
        parts = loss_of(config, step=step).weighted
        for other, value in full.items():
            scale = share if other == name else 1
            assert parts[other].item() == pytest.approx(scale * value.item())


def test_without_gamma_there_is_only_the_contrastive_term_and_no_layer_is_asked_for():
    config = replace(CONFIG, gamma=0.0)
    assert [Objective(config).layers(column) for column in range(3)] == [[], [], []]
    actual = loss_of(config, [encoded._replace(hidden={}) for encoded in two_views()])
    assert list(actual.terms) == list(actual.weighted) == ["contrastive"]
    assert actual.total.item() == pytest.approx(contrast(config, two_views()).item(), abs=1e-12)


@pytest.mark.parametrize(
    ("views", "asked"), [("first", [[0, 2], [], []]), ("both", [[0, 2], [0, 2], []])]
)
def test_layers_are_asked_of_the_regularised_columns_only_and_never_the_output(views, asked):
    config = replace(CONFIG, align_layers=[0, 2, "output"], regularize_views=views)
    assert [Objective(config).layers(column) for column in range(3)] == asked


# Gradients and precision


@pytest.mark.parametrize("views", ["first", "both"])
def test_the_gradient_reaches_the_embeddings_and_the_valid_tokens_of_the_align_layers(views):
    columns = two_views()
    leaves = [
        [leaf.requires_grad_() for leaf in (encoded.pooled, *encoded.hidden.values())]
        for encoded in columns
    ]
    config = replace(CONFIG, align_layers=[0, 2, "output"], regularize_views=views)
    loss_of(config, columns).total.backward()
    for index, (encoded, (pooled, *hidden)) in enumerate(zip(columns, leaves, strict=True)):
        assert pooled.grad.isfinite().all()
        assert pooled.grad.any(dim=1).all()
        assert hidden[1].grad is None
        for states in (hidden[0], hidden[2]):
            if views == "first" and index == 1:
                assert states.grad is None
            else:
                assert states.grad.isfinite().all()
                assert torch.equal(states.grad.any(dim=2), encoded.mask)


def test_under_autocast_the_values_are_those_of_single_precision():
    config = replace(CONFIG, align_layers=[0, 2, "output"])
    views = two_views(dtype=torch.float32)
    plain = loss_of(config, views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss_of(config, views)
    assert actual.total.dtype == torch.float32
    assert actual.total.item() == plain.total.item()
    for name, values in plain.terms.items():
        assert {d: v.item() for d, v in actual.terms[name].items()} == {
            d: v.item() for d, v in values.items()
        }
