"""Rows of known geometry, and rows without any order."""

import math

import torch
from references import gaussian
from torch import Tensor

ROWS, FULL = 64, 12
DIMS = (2, 5, FULL)


def cloud(*variances: float, turned: bool = False, mean: float = 0.0) -> Tensor:
    """Rows whose covariance is exactly diag(variances), or a rotation of it."""
    centred = gaussian(ROWS, len(variances)) - gaussian(ROWS, len(variances)).mean(0)
    basis = torch.linalg.qr(centred).Q * math.sqrt(ROWS)
    rows = basis * torch.tensor(variances, dtype=torch.double).sqrt()
    if turned:
        rows = rows @ torch.linalg.qr(gaussian(len(variances), len(variances), seed=5)).Q
    return rows + mean


def messy() -> Tensor:
    """Correlated, off centre, of unequal variances."""
    mixed = gaussian(ROWS, FULL) @ gaussian(FULL, FULL, seed=1)
    return mixed * torch.linspace(0.1, 2, FULL, dtype=torch.double) + 0.7


def second(rows: Tensor) -> Tensor:
    """The second moment, not centred."""
    return rows.T @ rows / len(rows)
