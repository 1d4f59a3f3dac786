"""What a student learns from its teacher equals its formulas, and nothing flows back."""

import math
from functools import partial

import jaxtyping
import pytest
import torch
from references import DEGENERATE, WIDTH, _dot, _mean, _unit, cloud, gaussian, rotation
from torch import Tensor

from mic.losses import prefix_regression, relational_distillation
from mic.losses.distillation import regression_sums, relational_sums

DIMS = [1, 2, 5, WIDTH]
ROWS = 6
STUDENT, WIDER = cloud(ROWS), gaussian(ROWS, 11, seed=3)
LOSSES = {
    "relational": lambda student, teacher: relational_distillation(student, teacher, DIMS),
    "regression": lambda student, teacher: prefix_regression(student, teacher[:, :WIDTH], DIMS),
}

every_loss = pytest.mark.parametrize("name", LOSSES)


def neighbourhood(rows: list[list[float]], i: int, temperature: float) -> dict[int, float]:
    """softmax over j != i of cos(row i, row j) / temperature."""
    units = [_unit(row) for row in rows]
    scores = {j: _dot(units[i], units[j]) / temperature for j in range(len(rows)) if j != i}
    top = max(scores.values())
    whole = sum(math.exp(score - top) for score in scores.values())
    return {j: math.exp(score - top) / whole for j, score in scores.items()}


def divergence(
    student: Tensor, teacher: Tensor, d: int, student_t: float, teacher_t: float
) -> float:
    """mean over i of sum over j != i of p_ij log(p_ij / q_ij), p the teacher's, q the prefix's."""
    cut, whole = [row[:d] for row in student.tolist()], teacher.tolist()
    values = []
    for i in range(len(cut)):
        q, p = neighbourhood(cut, i, student_t), neighbourhood(whole, i, teacher_t)
        values.append(sum(p[j] * math.log(p[j] / q[j]) for j in p))
    return _mean(values)


def assert_same(
    found: dict[int, Tensor], expected: dict[int, float], tolerance: float = 1e-9
) -> None:
    assert list(found) == list(expected)
    for d, value in expected.items():
        assert found[d].item() == pytest.approx(value, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("temperatures", [(0.05, 0.05), (0.1, 0.3), (1.0, 0.05)])
@pytest.mark.parametrize("teacher", [WIDER, cloud(ROWS, seed=7)], ids=["wider", "as wide"])
def test_distillation_is_the_divergence_of_neighbourhoods(teacher, temperatures):
    student_t, teacher_t = temperatures
    options = {"student_temperature": student_t, "teacher_temperature": teacher_t}
    found = relational_distillation(STUDENT, teacher, DIMS, **options)
    assert_same(found, {d: divergence(STUDENT, teacher, d, *temperatures) for d in DIMS})


def test_the_temperatures_are_a_twentieth_unless_given():
    expected = {d: divergence(STUDENT, WIDER, d, 0.05, 0.05) for d in DIMS}
    assert_same(relational_distillation(STUDENT, WIDER, DIMS), expected)


def test_regression_is_one_less_the_cosine_of_the_prefixes():
    teacher = cloud(ROWS, seed=7)
    expected = {}
    for d in DIMS:
        pairs = zip(STUDENT.tolist(), teacher.tolist(), strict=True)
        expected[d] = _mean([1 - _dot(_unit(z[:d]), _unit(t[:d])) for z, t in pairs])
    assert_same(prefix_regression(STUDENT, teacher, DIMS), expected)


@every_loss
def test_a_student_that_is_its_teacher_has_nothing_to_learn_at_full_width(name):
    found = LOSSES[name](STUDENT, STUDENT)
    assert found[WIDTH].item() == pytest.approx(0, abs=1e-12)
    if name == "relational":
        assert found[2] > 1e-3


def test_neighbourhoods_do_not_see_the_teachers_axes_nor_any_length():
    turned = cloud(ROWS, seed=7) @ rotation(WIDTH) * torch.arange(1, ROWS + 1)[:, None]
    plain = relational_distillation(STUDENT, cloud(ROWS, seed=7), DIMS)
    found = relational_distillation(3 * STUDENT, turned, DIMS)
    assert_same(found, {d: value.item() for d, value in plain.items()})


@every_loss
def test_the_teacher_has_no_gradient_and_the_student_that_of_finite_differences(name):
    student, teacher = STUDENT.clone().requires_grad_(), WIDER.clone().requires_grad_()
    sum(LOSSES[name](student, teacher).values()).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    loss = lambda x: tuple(LOSSES[name](x, WIDER).values())  # noqa: E731
    assert torch.autograd.gradcheck(loss, [student])


@every_loss
@pytest.mark.parametrize("parts", [(6,), (2, 4), (3, 1, 2)])
def test_parts_of_the_rows_add_up_to_the_whole(name, parts):
    def whole(x: Tensor) -> Tensor:
        return torch.stack(list(LOSSES[name](x, WIDER).values()))

    def split(x: Tensor) -> Tensor:
        sums = []
        for places in torch.split(torch.arange(ROWS), parts):
            if name == "regression":
                sums.append(regression_sums(x[places], WIDER[places, :WIDTH], DIMS))
            else:
                rows = (x[places], x, WIDER[places], WIDER, places)
                sums.append(relational_sums(*rows, DIMS, 0.05, 0.05))
        return torch.stack(sums).sum(0) / ROWS

    found, expected = (torch.autograd.functional.jacobian(f, STUDENT) for f in (split, whole))
    torch.testing.assert_close(split(STUDENT), whole(STUDENT), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@every_loss
@pytest.mark.parametrize("spoil", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_rows_give_finite_values_and_gradients(name, spoil):
    student = spoil(STUDENT).clone().requires_grad_()
    values = LOSSES[name](student, spoil(WIDER))
    sum(values.values()).backward()
    assert all(value.isfinite() for value in values.values())
    assert student.grad.isfinite().all()


@every_loss
def test_under_autocast_and_from_half_precision_it_is_computed_in_single(name):
    student, teacher = STUDENT.bfloat16(), WIDER.bfloat16()
    expected = LOSSES[name](student.float(), teacher.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LOSSES[name](student, teacher)
    assert {d: value.item() for d, value in found.items()} == {
        d: value.item() for d, value in expected.items()
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(relational_distillation, STUDENT, WIDER, [2, 9]), "width 9 is above .*8"),
        (partial(relational_distillation, STUDENT[:2], WIDER[:2], DIMS), "2 rows: .*at least 3"),
        (partial(relational_distillation, STUDENT, WIDER[:4], DIMS), "4 rows of the teacher for 6"),
        (
            partial(prefix_regression, STUDENT, WIDER, DIMS),
            "teacher of width 11 for a student of 8",
        ),
        (partial(prefix_regression, STUDENT, STUDENT, [5, 2]), r"\[5, 2\]: widths must increase"),
    ],
)
def test_bad_input_is_named_with_its_cure(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    with pytest.raises(ValueError, match=message):
        call()
