"""Espresso (ESE): every prefix learns a compression of the full embedding."""

from collections.abc import Sequence
from math import log

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, prefix


@full_precision
def compression(pooled: Float[Tensor, "batch dim"], dims: Sequence[int]) -> PerWidth:
    """Learn to compress (ESE): a prefix as the leading components of the embedding.

    `L(d) = MSE(P, T) + mean_rows KL( softmax(T) || softmax(P) )` for every d < D, with P the
    prefix of the rows Z and T the first d columns of `Z U S` without gradient, where U and S are
    the left singular vectors and the singular values of `A = softmax(Z^T Z / sqrt(D))`, row by
    row. 0 means that the prefix is the compression; there is no upper limit. D itself is skipped.

    A function of all rows of all ranks. One exact SVD serves every width, singular vectors being
    nested; the published code's is randomised, so that ranks would differ.

    Source: Li et al. 2024 (ESE, arXiv 2402.14776, ICLR 2025), "learn to compress", with both of its
    weights and its temperature at 1 as in the published code.

    Raises ValueError for widths that do not increase or exceed D.
    """
    full = pooled.shape[1]
    nested = [dim for dim in check_dims(dims, full) if dim < full]
    if not nested:
        return {}
    targets = pooled.detach() @ components(pooled.detach())
    return {dim: distance(prefix(pooled, dim), prefix(targets, dim)) for dim in nested}


def components(pooled: Float[Tensor, "batch dim"]) -> Float[Tensor, "dim dim"]:
    """The columns `U S` of the dependencies between coordinates, the most important first."""
    dependencies = (pooled.T @ pooled / pooled.shape[1] ** 0.5).softmax(-1)
    vectors, values, _ = torch.linalg.svd(dependencies)
    # a singular vector's sign is arbitrary: left to the solver, targets would flip between steps
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    scaled: Tensor = vectors * largest.sign() * values
    return scaled


def distance(
    student: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"]
) -> Float[Tensor, ""]:
    """Mean squared error of the entries plus mean KL divergence of the rows' softmax."""
    divergence: Tensor = functional.kl_div(
        student.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return divergence + functional.mse_loss(student, target)


def layer_weight(layer: int) -> float:
    """The published weight of a layer, counted from 1: `1 / (1 + ln(layer))`.

    >>> [round(layer_weight(layer), 3) for layer in (1, 2, 12)]
    [1.0, 0.591, 0.287]
    """
    if layer < 1:
        raise InputError(f"layer {layer}: layers count from 1")
    return 1 / (1 + log(layer))


def light_layer_weight(layer: int, depth: int) -> float:
    """The weight of a layer below the last in the light variant: `1 / (1 + ln(depth - layer))`.

    Source: the ESE baseline of MIPIC's authors (arXiv 2604.24374), where layers near the last
    weigh most.

    >>> [round(light_layer_weight(layer, 12), 3) for layer in (1, 10, 11)]
    [0.294, 0.591, 1.0]
    """
    if not 1 <= layer < depth:
        raise InputError(f"layer {layer} of {depth}: choose a layer from 1 to {depth - 1}")
    return 1 / (1 + log(depth - layer))


def light_width_weights(widths: int) -> list[float]:
    """The weights of the nested widths in the light variant: `1 / (1 + ln(i + 1))`, i from 0.

    >>> [round(weight, 3) for weight in light_width_weights(3)]
    [1.0, 0.591, 0.477]
    """
    return [1 / (1 + log(index + 1)) for index in range(widths)]
