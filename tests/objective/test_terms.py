"""The assembly of what mic is compared with: each objective is the sum that its source writes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from references import MASKS, WIDTH, cloud, tokens
from torch import Tensor
from torch.nn import functional

from mic.config.loading import load
from mic.config.schema import ObjectiveConfig, TermConfig
from mic.errors import InputError
from mic.losses import (
    compression,
    nested_infonce,
    prefix_regression,
    relational_distillation,
    sigreg,
    soft_collapse,
    spectral_isotropy,
    spread_out,
    vicreg_terms,
)
from mic.losses.mipic import relation_sums, relation_terms
from mic.nested import Encoded
from mic.objective.objective import Loss, Objective

CONFIGS = Path(__file__).parents[2] / "configs" / "objective"
SIZE = ("dims=[2,3,5]", "objective.align_layers=[1,2]", "objective.express_layers=[1,2]")
DIMS = [2, 3, 5, WIDTH]
ROWS = 4
NO_NESTING = ObjectiveConfig(dims=[2, 3, 5], gamma=0.0, normalize_dim_weights=False)


def shipped(name: str, *overrides: str) -> ObjectiveConfig:
    """A shipped objective at the size of these tests."""
    small = [*SIZE, "objective.chain_layers=[0,1,2,3]", *overrides]
    return load(CONFIGS / f"{name}.yaml", *small).objective


def view(seed: int) -> Encoded:
    hidden = {layer: tokens(ROWS, seed=seed + 10 * layer) for layer in range(4)}
    return Encoded(cloud(ROWS, seed=seed), hidden, MASKS["holes"])


VIEWS = [view(1), view(2)]
TEACHER = [cloud(ROWS, seed=70)[:, :6], cloud(ROWS, seed=71)[:, :6]]


def loss_of(config: ObjectiveConfig, step: int = 0, **options: object) -> Loss:
    return Objective(config, WIDTH).double()(VIEWS, step, **options)


def pooled(encoded: Encoded, layer: int) -> Tensor:
    """The mean of the valid tokens of a layer."""
    states = zip(encoded.hidden[layer], encoded.mask, strict=True)
    return torch.stack([hidden[valid].mean(0) for hidden, valid in states])


def total(values: dict[int, Tensor]) -> Tensor:
    return sum(values.values())


def contrast(dims: list[int] = DIMS, layer: int | None = None) -> dict[int, Tensor]:
    rows = [encoded.pooled if layer is None else pooled(encoded, layer) for encoded in VIEWS]
    return nested_infonce(*rows, dims)


def assert_value(actual: Tensor, expected: Tensor) -> None:
    assert actual.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


# The shipped objectives


def test_simcse_is_infonce_at_the_full_width() -> None:
    assert_value(loss_of(shipped("simcse")).total, contrast([WIDTH])[WIDTH])


def test_mrl_is_the_mean_of_infonce_over_the_widths() -> None:
    assert_value(loss_of(shipped("mrl")).total, total(contrast()) / 4)


@pytest.mark.parametrize(
    ("name", "share"), [("mic", 1 / 4), ("mic_paper", 1), ("mic_distill", 1 / 4)]
)
def test_mic_adds_the_mean_of_scr_and_sir(name: str, share: float) -> None:
    config = shipped(name)
    teacher = TEACHER if name == "mic_distill" else ()
    values = []
    for encoded in VIEWS:
        for layer in (1, 2):
            scr = soft_collapse(encoded.hidden[layer], encoded.mask, DIMS)
            sir = spectral_isotropy(pooled(encoded, layer), DIMS)
            values.append((total(scr) + total(sir)) / 4)
    expected = share * total(contrast()) + 0.1 * sum(values) / 4
    if name == "mic_distill":
        expected = expected + sum(
            total(relational_distillation(encoded.pooled, taught, DIMS)) / 4 / 2
            for encoded, taught in zip(VIEWS, TEACHER, strict=True)
        )
    assert_value(loss_of(config, teacher=teacher).total, expected)


def test_ese_trains_every_layer_and_compresses_each() -> None:
    shallow = {1: 1.0, 2: 1 / (1 + math.log(2))}
    expected = total(contrast())
    expected = expected + sum(w * total(contrast(layer=i)) for i, w in shallow.items()) / 2
    for encoded in VIEWS:
        squeezed = total(compression(encoded.pooled, [2, 3, 5]))
        layers = [w * total(compression(pooled(encoded, i), [2, 3, 5])) for i, w in shallow.items()]
        expected = expected + (squeezed + sum(layers) / 2) / 2
    assert_value(loss_of(shipped("ese")).total, expected)


@pytest.mark.parametrize("step", range(6))
def test_ese_light_weighs_widths_by_the_logarithm_and_adds_one_layer(step: int) -> None:
    logs = torch.arange(1, 5, dtype=torch.float64).log()
    weights = dict(zip(DIMS, 1 / (1 + logs), strict=True))

    def weighted(values: dict[int, Tensor]) -> Tensor:
        return sum(weights[d] * value for d, value in values.items())

    depths = {1: 1 / (1 + math.log(2)), 2: 1.0}  # ln(3 - layer)
    choices = [weighted(contrast()) + w * weighted(contrast(layer=i)) for i, w in depths.items()]
    actual = loss_of(shipped("ese_light"), step).total.item()
    assert min(abs(actual - choice.item()) for choice in choices) < 1e-12


def test_ese_light_draws_every_layer_in_time_and_the_same_on_every_rank() -> None:
    config = shipped("ese_light")
    actual = {round(loss_of(config, step).total.item(), 12) for step in range(20)}
    assert len(actual) == 2
    torch.manual_seed(5)
    again = loss_of(config, 7).total
    torch.manual_seed(6)
    assert loss_of(config, 7).total == again


def test_mipic_adds_token_relations_and_a_chain() -> None:
    config = shipped("mipic")
    objective = Objective(config, WIDTH).double()
    with torch.no_grad():
        for lift in objective.lifts:
            lift.add_(0.1 * cloud(len(lift)))
    expected = total(contrast())
    for encoded in VIEWS:
        for layer in (1, 2):
            sums = relation_sums(
                encoded.hidden[layer], encoded.mask, list(objective.lifts), [2, 3, 5]
            )
            terms = relation_terms(sums, [2, 3, 5])
            # a mean over 4 widths and 2 layers at weight 36 = 6 layers x 6 widths of the paper
            both = total(terms["attention"]) + total(terms["cka"])
            expected = expected + 1.5 * 36 * both / 4 / 2 / 2
        links = [(0, 2), (1, 3), (2, 5), (3, WIDTH)]
        for head, (layer, d), (above, wide) in zip(objective.heads, links, links[1:], strict=False):
            predicted = functional.normalize(head(pooled(encoded, layer)[:, :d]))
            wanted = functional.normalize(pooled(encoded, above)[:, :wide])
            scores = predicted @ wanted.T / 0.05
            expected = expected + 1.5 * functional.cross_entropy(scores, torch.arange(ROWS)) / 2
    assert_value(objective(VIEWS, 0).total, expected)


@pytest.mark.parametrize("layer", ["output", 1])
@pytest.mark.parametrize("name", ["vicreg", "gor", "sigreg"])
def test_a_generic_regularizer_takes_the_place_of_scr_and_sir(name: str, layer: str | int) -> None:
    config = replace(shipped(name), align_layers=[layer])
    values = []
    for encoded in VIEWS:
        rows = encoded.pooled if layer == "output" else pooled(encoded, int(layer))
        if name == "vicreg":
            terms = vicreg_terms(rows, DIMS)
            variance, covariance = terms["vicreg_variance"], terms["vicreg_covariance"]
            values.append(total(variance) + 0.04 * total(covariance))
        else:
            values.append(
                total(spread_out(rows, DIMS) if name == "gor" else sigreg(rows, DIMS, seed=3))
            )
    expected = total(contrast()) / 4 + 0.1 * sum(values) / 2 / 4
    assert_value(loss_of(config, step=3).total, expected)


# The paper's ablations, as configs/objective/mic_paper.yaml writes them


@pytest.mark.parametrize(
    ("overrides", "gone"),
    [
        (["correlation.weight=0", "variance.weight=0"], {"correlation", "variance"}),
        (["cv.weight=0", "uniformity.weight=0"], {"cv", "uniformity"}),
        (["variance.weight=0"], {"variance"}),
    ],
)
def test_an_ablation_takes_its_terms_out_of_the_loss_and_no_other(overrides, gone) -> None:
    whole = loss_of(shipped("mic_paper"))
    actual = loss_of(shipped("mic_paper", *(f"objective.{override}" for override in overrides)))
    left = sum(part for name, part in whole.weighted.items() if name not in gone)
    assert_value(actual.total, left)


def test_tau_of_zero_the_last_layer_and_eigenvalues_are_switches() -> None:
    whole = loss_of(shipped("mic_paper"))
    strict = loss_of(shipped("mic_paper", "objective.threshold=0"))
    assert strict.weighted["correlation"] > whole.weighted["correlation"]
    last = loss_of(shipped("mic_paper", "objective.align_layers=[3]"))
    assert Objective(shipped("mic_paper", "objective.align_layers=[3]")).layers(0) == [3]
    assert last.weighted["cv"] != whole.weighted["cv"]
    eigen = loss_of(shipped("mic_paper", "objective.isotropy=eigen"))
    assert eigen.weighted["cv"] != whole.weighted["cv"]
    assert eigen.weighted["uniformity"] == whole.weighted["uniformity"]


# What a teacher adds


@pytest.mark.parametrize("views", ["first", "both"])
@pytest.mark.parametrize("normalize", [True, False])
def test_distillation_and_regression_are_means_over_the_columns_seen(views, normalize) -> None:
    config = replace(
        NO_NESTING,
        normalize_dim_weights=normalize,
        regularize_views=views,
        student_temperature=0.1,
        teacher_temperature=0.2,
        contrastive=TermConfig(0.0),
        distillation=TermConfig(2.0),
        regression=TermConfig(0.5, warmup_steps=2),
    )
    teacher = [cloud(ROWS, seed=80), cloud(ROWS, seed=81)]
    expected = []
    for encoded, taught in zip(VIEWS, teacher, strict=True):
        options = {"student_temperature": 0.1, "teacher_temperature": 0.2}
        distilled = total(relational_distillation(encoded.pooled, taught, DIMS, **options))
        regressed = total(prefix_regression(encoded.pooled, taught, DIMS))
        expected.append((2 * distilled + 0.25 * regressed) / (4 if normalize else 1))
    seen = expected if views == "both" else expected[:1]
    actual = loss_of(config, teacher=teacher)
    assert set(actual.weighted) == {"distillation", "regression"}
    assert_value(actual.total, sum(seen) / len(seen))


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = [rows.clone().requires_grad_() for rows in TEACHER]
    config = replace(NO_NESTING, distillation=TermConfig(1.0), teacher_margin=0.1)
    students = [
        encoded._replace(pooled=encoded.pooled.clone().requires_grad_()) for encoded in VIEWS
    ]
    Objective(config)(students, 0, teacher=teacher).total.backward()
    assert [rows.grad for rows in teacher] == [None, None]
    assert all(encoded.pooled.grad.abs().sum() > 0 for encoded in students)


def test_the_chain_pulls_the_lower_layer_up_and_never_the_upper_down() -> None:
    weights = {name: TermConfig(0.0) for name in ("correlation", "variance", "cv", "uniformity")}
    config = ObjectiveConfig(
        dims=[3], gamma=1.0, chain_layers=[0, 2], contrastive=TermConfig(0.0), **weights
    )
    config = replace(config, chain=TermConfig(1.0), regularize_views="first")
    hidden = {layer: VIEWS[0].hidden[layer].clone().requires_grad_() for layer in (0, 2)}
    views = [VIEWS[0]._replace(hidden=hidden), VIEWS[1]]
    Objective(config, WIDTH).double()(views, 0).total.backward()
    assert hidden[2].grad is None or not hidden[2].grad.any()
    assert hidden[0].grad[..., :3].any()


# False negatives


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def test_rows_that_share_a_text_or_a_group_are_no_negatives() -> None:
    marks = ids([1, 10], [2, 20], [1, 30], [4, 20])  # rows 0 and 2 ask the same, 1 and 3 answer so
    groups = torch.tensor([7, 8, 9, 7])  # rows 0 and 3 are of one group
    excluded = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    actual = loss_of(NO_NESTING, ids=marks, groups=groups)
    rows = [encoded.pooled for encoded in VIEWS]
    assert_value(actual.total, total(nested_infonce(*rows, DIMS, excluded=excluded)))
    assert actual.negatives.item() == (1 + 2 + 2 + 1) / 4
    unmasked = loss_of(replace(NO_NESTING, mask_equal=False), ids=marks, groups=groups)
    assert_value(unmasked.total, total(contrast()))
    assert unmasked.negatives.item() == 3


def test_a_hard_negative_that_is_an_own_text_is_none() -> None:
    columns = [*VIEWS, view(3)]
    marks = ids(
        [1, 10, 20], [2, 20, 2], [3, 30, 33], [4, 40, 44]
    )  # 20 is row 1's answer, 2 its query
    excluded = torch.zeros(4, 8, dtype=torch.bool)
    excluded[1, 4] = excluded[1, 5] = True
    actual = Objective(NO_NESTING)(columns, 0, ids=marks)
    keys = torch.cat([columns[1].pooled, columns[2].pooled])
    expected = nested_infonce(columns[0].pooled, keys, DIMS, excluded=excluded)
    assert_value(actual.total, total(expected))
    assert actual.negatives.item() == (7 + 5 + 7 + 7) / 4


def test_both_directions_are_averaged_and_masked_alike() -> None:
    marks = ids([1, 10], [2, 20], [1, 30], [4, 40])
    excluded = torch.zeros(4, 4, dtype=torch.bool)
    excluded[0, 2] = excluded[2, 0] = True
    actual = loss_of(replace(NO_NESTING, symmetric=True), ids=marks)
    rows = [encoded.pooled for encoded in VIEWS]
    expected = nested_infonce(*rows, DIMS, excluded=excluded, symmetric=True)
    assert_value(actual.total, total(expected))


def test_keys_that_a_teacher_finds_nearer_than_the_positive_are_left_out_each_way() -> None:
    config = replace(NO_NESTING, symmetric=True, teacher_margin=0.05)
    similarity = functional.normalize(TEACHER[0]) @ functional.normalize(TEACHER[1]).T
    local = similarity.diagonal()
    rows = [encoded.pooled for encoded in VIEWS]
    there = nested_infonce(*rows, DIMS, excluded=similarity > local[:, None] - 0.05)
    back = nested_infonce(*rows[::-1], DIMS, excluded=(local[:, None] - 0.05 < similarity.T))
    actual = loss_of(config, teacher=TEACHER)
    assert_value(actual.total, (total(there) + total(back)) / 2)
    assert actual.negatives < 3


# What an objective asks for


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("simcse", [[], [], []]),
        ("mic", [[1, 2], [1, 2], []]),
        ("ese", [[1, 2], [1, 2], [1, 2]]),
        ("mipic", [[0, 1, 2, 3], [0, 1, 2, 3], []]),
        ("vicreg", [[1, 2], [1, 2], []]),
    ],
)
def test_only_layers_that_a_term_uses_are_asked_for(name: str, layers: list[list[int]]) -> None:
    objective = Objective(shipped(name), WIDTH)
    assert [objective.layers(column) for column in range(3)] == layers


def test_teachers_are_asked_for_the_columns_that_learn_or_mask() -> None:
    def asked(**options: object) -> list[bool]:
        return [Objective(replace(NO_NESTING, **options)).taught(view) for view in range(3)]

    assert asked() == [False] * 3
    assert asked(distillation=TermConfig(1.0)) == [True, True, False]
    assert asked(distillation=TermConfig(1.0), regularize_views="first") == [True, False, False]
    assert asked(teacher_margin=0.0) == [True] * 3


def test_a_chain_that_does_not_fit_the_widths_is_refused() -> None:
    with pytest.raises(InputError, match=r"chain_layers \[1, 2\]: 2 layers for the 4 widths"):
        Objective(replace(NO_NESTING, gamma=1.0, chain=TermConfig(1.0), chain_layers=[1, 2]), WIDTH)
