"""Distil a teacher into every prefix: its neighbourhoods (relational) or its directions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, chunked, cosines, paired_cosines, unit


@full_precision
def relational_distillation(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch teacher_dim"],
    dims: Sequence[int],
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 0.05,
) -> PerWidth:
    """Every prefix keeps the teacher's neighbourhoods; the two widths need not agree.

    `L(d) = mean_i KL( softmax_j(cos(t_i, t_j) / tau_T) || softmax_j(cos(z_i, z_j) / tau_S) )` over
    j != i, z truncated to d. 0 when both see the same neighbourhoods. The teacher gets no gradient.

    Source: relational knowledge distillation (Park et al. 2019) by the softmax of similarities
    (Passalis and Tefas 2018); not multiplied by the squared temperature.

    Raises ValueError for widths that do not increase or exceed D, for fewer than 3 rows, of which
    each has one neighbour alone, and when teacher and student have different numbers of rows.
    """
    dims = check_dims(dims, student.shape[1])
    positions = torch.arange(len(student), device=student.device)
    check_rows(len(student), len(teacher))
    temperatures = student_temperature, teacher_temperature
    sums = relational_sums(student, student, teacher, teacher, positions, dims, *temperatures)
    return dict(zip(dims, sums / len(student), strict=True))


def check_rows(student: int, teacher: int) -> None:
    if student != teacher:
        raise InputError(
            f"{teacher} rows of the teacher for {student} of the student: give each one"
        )
    if student < 3:
        raise InputError(f"{student} rows: neighbourhoods need at least 3; batch more")


@full_precision
def relational_sums(
    rows: Float[Tensor, "rows dim"],
    all_rows: Float[Tensor, "all_rows dim"],
    teacher_rows: Float[Tensor, "rows teacher_dim"],
    teacher_all_rows: Float[Tensor, "all_rows teacher_dim"],
    positions: Int[Tensor, " rows"],
    dims: Sequence[int],
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, " widths"]:
    """The divergence of every width summed over `rows`; ranks add these sums up.

    `positions` says where in `all_rows`, and in `teacher_all_rows`, the rows themselves stand.
    """
    teacher_all_rows = unit(teacher_all_rows.detach())

    def sums(rows: Tensor, teacher_rows: Tensor, positions: Tensor) -> Tensor:
        itself = positions[:, None]
        with torch.no_grad():
            wanted = unit(teacher_rows) @ teacher_all_rows.T / teacher_temperature
            logs = wanted.scatter_(1, itself, -torch.inf).log_softmax(1).scatter_(1, itself, 0)
            targets = logs.exp().scatter_(1, itself, 0)
            entropy = (targets * logs).sum()

        def divergence(scores: Tensor) -> Tensor:
            # 0 x -inf is NaN
            log_probabilities = (
                scores.scatter(1, itself, -torch.inf).log_softmax(1).scatter(1, itself, 0)
            )
            return entropy - (targets * log_probabilities).sum()

        scores = cosines(rows, all_rows, dims, scale=1 / student_temperature)
        return torch.stack([divergence(matrix) for _, matrix in scores])

    return chunked(sums, len(dims) * len(all_rows), rows, teacher_rows, positions)


@full_precision
def prefix_regression(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"], dims: Sequence[int]
) -> PerWidth:
    """Every prefix points where the teacher's prefix does: `mean_i 1 - cos(z_i, t_i)`.

    z and t are truncated alike, and t gets no gradient. Raises ValueError for widths that do not
    increase or exceed D, or a teacher of another width.
    """
    sums = regression_sums(student, teacher, dims)
    return dict(zip(dims, sums / len(student), strict=True))


@full_precision
def regression_sums(
    student: Float[Tensor, "rows dim"],
    teacher: Float[Tensor, "rows teacher_dim"],
    dims: Sequence[int],
) -> Float[Tensor, " widths"]:
    """`1 - cos` of every width summed over the rows; ranks add these sums up."""
    if student.shape[1] != teacher.shape[1]:
        raise InputError(
            f"a teacher of width {teacher.shape[1]} for a student of {student.shape[1]}: "
            "regression needs equal widths; set objective.regression.weight=0 (distillation "
            "takes any)"
        )
    dims = check_dims(dims, student.shape[1])
    agreement = paired_cosines(student, teacher.detach(), dims)
    return torch.stack([(1 - cosine).sum() for cosine in agreement.values()])
