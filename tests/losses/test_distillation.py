"""What the distillation losses claim: they equal their formulas and leave the teacher alone."""

from math import exp, log, sqrt

import jaxtyping
import pytest
import torch
from references import DEGENERATE, WIDTH, cloud, rotation, simplex

from mic.losses.distillation import (
    prefix_regression,
    regression_sums,
    relational_distillation,
    relational_sums,
)

DIMS = [1, 2, 3, 5, WIDTH]
NESTINGS = [[1], [WIDTH], [3, 5], DIMS, list(range(1, WIDTH + 1))]
# The student's and the teacher's: equal, and either the sharper
TEMPERATURES = [(0.05, 0.05), (0.1, 0.7), (2.0, 0.05)]
PARTS = {
    "halves": [[0, 1, 2], [3, 4, 5]],
    "unequal": [[0, 1, 2, 3, 4], [5]],
    "three, out of order": [[4, 0], [2], [5, 1, 3]],
}
LOSSES = {"distillation": relational_distillation, "regression": prefix_regression}

every_nesting = pytest.mark.parametrize("dims", NESTINGS, ids=str)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_split = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)


def divergence(student, teacher, d, student_temperature, teacher_temperature):
    """Mean over rows i of sum_{j != i} p_ij log(p_ij / q_ij), p the teacher's and q the student's.

    p_ij = exp(cos(t_i, t_j) / tau_T) / sum_{k != i} exp(cos(t_i, t_k) / tau_T), and so q with the
    first d coordinates of z and tau_S.
    """
    z, t = [row[:d] for row in student.tolist()], teacher.tolist()
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_p = log_softmax([cosine(t[i], t[j]) / teacher_temperature for j in others])
        log_q = log_softmax([cosine(z[i], z[j]) / student_temperature for j in others])
        total += sum(exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))
    return total / len(z)


def misdirection(student, teacher, d):
    """Mean over rows i of 1 - cos(z_i, t_i), both cut to d."""
    rows = list(zip(student.tolist(), teacher.tolist(), strict=True))
    return sum(1 - cosine(z[:d], t[:d]) for z, t in rows) / len(rows)


def log_softmax(logits):
    top = max(logits)
    return [x - top - log(sum(exp(y - top) for y in logits)) for x in logits]


def cosine(a, b):
    dot, aa, bb = (
        sum(x * y for x, y in zip(u, v, strict=True)) for u, v in [(a, b), (a, a), (b, b)]
    )
    return dot / sqrt(aa) / sqrt(bb)


def inputs(rows=6):
    return cloud(rows), cloud(rows, seed=1)


def assert_same(actual, expected, tolerance=1e-9):
    assert list(actual) == list(expected)
    assert all(value.shape == () for value in actual.values())
    for d, value in expected.items():
        assert actual[d].item() == pytest.approx(float(value), abs=tolerance, rel=0), f"width {d}"


def gradients(values, *leaves):
    weights = torch.arange(1, len(values) + 1)  # every width asks differently
    return torch.autograd.grad((values * weights).sum(), leaves)


def stacked(values):
    return torch.stack(list(values.values()))


# Formulas


@every_nesting
@pytest.mark.parametrize(("student_temperature", "teacher_temperature"), TEMPERATURES)
@pytest.mark.parametrize(("rows", "width"), [(3, WIDTH), (6, WIDTH), (5, 3), (5, 11)])
def test_distillation_equals_its_formula(
    dims, student_temperature, teacher_temperature, rows, width
):
    student, teacher = cloud(rows), torch.cat([cloud(rows, seed=1), cloud(rows, seed=2)], 1)
    teacher = teacher[:, :width]
    taus = student_temperature, teacher_temperature
    expected = {d: divergence(student, teacher, d, *taus) for d in dims}
    actual = relational_distillation(
        student,
        teacher,
        dims,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )
    assert_same(actual, expected)


@every_nesting
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_regression_equals_its_formula(dims, rows):
    student, teacher = inputs(rows)
    expected = {d: misdirection(student, teacher, d) for d in dims}
    assert_same(prefix_regression(student, teacher, dims), expected)


def test_both_default_temperatures_are_those_of_the_contrastive_term():
    asked = {"student_temperature": 0.05, "teacher_temperature": 0.05}
    assert_same(
        relational_distillation(*inputs(), DIMS), relational_distillation(*inputs(), DIMS, **asked)
    )


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(temperature):
    x = cloud(6).requires_grad_()
    taus = {"student_temperature": temperature, "teacher_temperature": temperature}
    for value in (
        relational_distillation(x, x.detach(), [WIDTH], **taus)[WIDTH],
        prefix_regression(x, x.detach(), [WIDTH])[WIDTH],
    ):
        assert value.item() == pytest.approx(0, abs=1e-12)
        torch.testing.assert_close(*torch.autograd.grad(value, x), torch.zeros_like(x))


def test_neighbourhoods_without_a_nearest_are_equal_at_any_temperature():
    # the angles differ: between a simplex's corners, and between equal rows
    taus = {"student_temperature": 0.3, "teacher_temperature": 0.01}
    same = cloud(1).expand(WIDTH + 1, WIDTH)
    assert_same(relational_distillation(same, simplex(WIDTH), [WIDTH], **taus), {WIDTH: 0.0})
    assert_same(relational_distillation(simplex(WIDTH), same, [WIDTH], **taus), {WIDTH: 0.0})


def test_regression_runs_from_0_to_2():
    x = cloud(6)
    assert_same(prefix_regression(x, 3 * x, DIMS), dict.fromkeys(DIMS, 0.0))
    assert_same(prefix_regression(x, -x, DIMS), dict.fromkeys(DIMS, 2.0))


# Gradients and precision


@every_loss
def test_gradients_are_those_of_finite_differences(name):
    student, teacher = inputs()
    loss = lambda x: tuple(LOSSES[name](x, teacher, DIMS).values())  # noqa: E731
    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_teacher_gets_no_gradient(name, dtype):
    student, teacher = (x.to(dtype).requires_grad_() for x in inputs())
    stacked(LOSSES[name](student, teacher, DIMS)).sum().backward()
    assert teacher.grad is None
    assert student.grad.dtype == dtype
    assert student.grad.any()


@every_loss
def test_a_student_that_teaches_itself_learns_as_from_another(name):
    x = cloud(6).requires_grad_()
    (alone,) = gradients(stacked(LOSSES[name](x @ x.T @ x, x, DIMS)), x)
    (taught,) = gradients(stacked(LOSSES[name](x @ x.T @ x, cloud(6), DIMS)), x)
    assert taught.any()
    torch.testing.assert_close(alone, taught, rtol=1e-12, atol=1e-12)


@every_split
def test_the_sums_give_teachers_no_gradient(parts):
    student, teacher = (x.requires_grad_() for x in inputs())
    for places in map(torch.tensor, parts):
        inputs_of_rank = student[places], student, teacher[places], teacher
        values = relational_sums(*inputs_of_rank, places, DIMS, 0.05, 0.05)
        values = values + regression_sums(student[places], teacher[places], DIMS)
        assert torch.autograd.grad(values.sum(), teacher, allow_unused=True) == (None,)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_and_autocast_leave_the_arithmetic_in_single(name, dtype, autocast):
    rounded = [x.to(dtype) for x in inputs()]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = LOSSES[name](*rounded, DIMS)
    assert all(value.dtype == torch.float32 for value in values.values())
    assert_same(values, LOSSES[name](*[x.float() for x in rounded], DIMS), 0.0)
    assert_same(values, LOSSES[name](*[x.double() for x in rounded], DIMS), 1e-4)


@every_loss
@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("who", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_rows_give_finite_values_and_gradients(name, degenerate, who, dtype):
    student, teacher = (x.to(dtype) for x in inputs())
    student = student if who == "teacher" else DEGENERATE[degenerate](student)
    teacher = teacher if who == "student" else DEGENERATE[degenerate](teacher)
    for taus in [{}] if name == "regression" else [(0.01, 0.01), (0.01, 1.0), (1.0, 0.01)]:
        if taus:
            taus = dict(zip(("student_temperature", "teacher_temperature"), taus, strict=True))
        leaf = student.clone().requires_grad_()
        values = stacked(LOSSES[name](leaf, teacher, DIMS, **taus))
        assert values.isfinite().all()
        (gradient,) = gradients(values, leaf)
        assert gradient.isfinite().all()


# Invariances


@every_loss
def test_the_length_of_rows_says_nothing(name):
    student, teacher = inputs()
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    expected = LOSSES[name](student, teacher, DIMS)
    assert_same(LOSSES[name](student * lengths, teacher, DIMS), expected)
    assert_same(LOSSES[name](student, teacher * lengths.flip(0), DIMS), expected)


@pytest.mark.parametrize("width", [2, 3, WIDTH])
def test_distillation_sees_angles_among_the_teachers_rows_and_not_where_they_point(width):
    student, teacher = inputs()
    teacher = teacher[:, :width]
    expected = relational_distillation(student, teacher, DIMS)
    assert_same(relational_distillation(student, teacher @ rotation(width), DIMS), expected)
    padded = torch.nn.functional.pad(teacher, (0, 4))
    assert_same(relational_distillation(student, padded, DIMS), expected)


def test_regression_follows_the_teachers_directions():
    student, teacher = inputs()
    turn = rotation(WIDTH)
    expected = prefix_regression(student, teacher, [WIDTH])
    assert_same(prefix_regression(student @ turn, teacher @ turn, [WIDTH]), expected)
    alone = prefix_regression(student, teacher @ turn, [WIDTH])[WIDTH]
    assert (alone - expected[WIDTH]).abs() > 0.1


@every_loss
@pytest.mark.parametrize("d", DIMS)
def test_a_width_depends_neither_on_others_nor_on_the_order_of_rows(name, d):
    student, teacher = inputs()
    nested = {d: LOSSES[name](student, teacher, DIMS)[d]}
    order = [3, 0, 5, 1, 4, 2]
    assert_same(LOSSES[name](student[order], teacher[order], [d]), nested)
    student[:, d:] = 7.0
    assert_same(LOSSES[name](student, teacher, [d]), nested)


# Parts of a batch, as ranks hold them


@every_split
@pytest.mark.parametrize("width", [3, WIDTH])
@pytest.mark.parametrize("taus", TEMPERATURES, ids=str)
def test_the_sums_of_parts_are_the_distillation_of_the_whole(parts, width, taus):
    student, teacher = inputs()
    student, teacher = student.requires_grad_(), teacher[:, :width]
    names = "student_temperature", "teacher_temperature"
    actual = relational_distillation(student, teacher, DIMS, **dict(zip(names, taus, strict=True)))
    sums = [
        relational_sums(student[p], student, teacher[p], teacher, p, DIMS, *taus)
        for p in map(torch.tensor, parts)
    ]
    assert_parts(stacked(actual), sums, student)


@every_split
def test_the_sums_of_parts_are_the_regression_of_the_whole(parts):
    student, teacher = inputs()
    student.requires_grad_()
    actual = prefix_regression(student, teacher, DIMS)
    assert_parts(
        stacked(actual), [regression_sums(student[p], teacher[p], DIMS) for p in parts], student
    )


def assert_parts(whole, sums, student):
    parts = torch.stack(sums).sum(0) / len(student)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(parts, student), gradients(whole, student), rtol=1e-12, atol=1e-12
    )


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
@every_loss
def test_impossible_widths_are_refused(name, dims, says):
    with pytest.raises(ValueError, match=says):
        LOSSES[name](*inputs(), dims)


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "says"),
    [
        ("distillation", (2, 8), (2, 8), "2 rows: .*at least 3"),
        ("distillation", (1, 8), (1, 5), "1 rows: .*at least 3"),
        ("distillation", (5, 8), (4, 8), "4 rows of the teacher for 5 of the student"),
        ("distillation", (4, 8), (5, 8), "5 rows of the teacher for 4 of the student"),
        ("regression", (5, 8), (5, 6), "teacher of width 6 for a student of 8.*weight=0"),
        ("regression", (5, 6), (5, 8), "teacher of width 8 for a student of 6.*weight=0"),
    ],
)
def test_rows_that_no_teacher_fits_are_refused(loss, student, teacher, says, monkeypatch):
    # as a user meets them: without the tests' own type checker, which would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        LOSSES[loss](torch.ones(student), torch.ones(teacher), [2, 6])
