"""How embeddings fill their space: pure functions of a second moment."""

import torch
from jaxtyping import Float
from torch import Tensor

from mic.errors import InputError
from mic.nested import prefix, residual

VARIANCE_FLOOR = 1e-20  # a constant coordinate correlates with nothing


def covariance(embeddings: Float[Tensor, "rows dim"]) -> Float[Tensor, "dim dim"]:
    """The covariance (population) of the coordinates, in fp64."""
    if len(embeddings) < 2:
        raise InputError(f"{len(embeddings)} row: a covariance needs at least 2")
    centred = embeddings.double() - embeddings.double().mean(0)
    return centred.T @ centred / len(embeddings)


def cross_correlation(
    covariance: Float[Tensor, "dim dim"], dim: int
) -> Float[Tensor, "prefix residual"]:
    """Correlations of the first `dim` coordinates with the others, each between -1 and 1.

    Independent coordinates over n rows still show an rms of 1 / sqrt(n - 1).
    """
    deviations = covariance.diagonal().clamp_min(VARIANCE_FLOOR).sqrt()
    correlation = covariance / deviations[:, None] / deviations
    return residual(prefix(correlation.T, dim).T, dim)


def rms(x: Float[Tensor, "*shape"]) -> float:
    """The root of the mean square."""
    return float(torch.sqrt(x.square().mean()))
