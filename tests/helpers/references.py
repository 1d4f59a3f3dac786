"""The losses as their formulas read: loops over Python floats (fp64), slow on purpose.

Nothing here imports `mic`. Each function takes one width `d`; a formula's symbols keep their names.
At the end: the data that the losses are tried on, seeded and in fp64.
"""

from math import exp, log, sqrt

import torch
from torch import Tensor

WIDTH = 8
# Standard deviations around the floor of 1, and one small enough to feel the eps below.
SCALES = torch.tensor([0.3, 2.5, 0.01, 1.2, 0.7, 3.0, 0.05, 0.9], dtype=torch.float64)
EPS = 1e-10  # inside the square root that standardises a token's coordinates


def infonce(queries: Tensor, keys: Tensor, d: int, temperature: float) -> float:
    """Mean over rows i of -log softmax(cos(q_i, k_n) / temperature) at n = i."""
    q, k = ([_unit(row[:d]) for row in rows.tolist()] for rows in (queries, keys))
    losses = []
    for i, query in enumerate(q):
        logits = [_dot(query, key) / temperature for key in k]
        top = max(logits)
        losses.append(top + log(sum(exp(logit - top) for logit in logits)) - logits[i])
    return _mean(losses)


def correlation(hidden: Tensor, mask: Tensor, d: int, threshold: float) -> float:
    """Mean over prefix u and residual v of max(0, |C_uv| - threshold)^2."""
    sequences = [_standardised(tokens) for tokens in _kept(hidden, mask)]
    if not sequences:
        return 0.0
    penalties = []
    for u in range(d):
        for v in range(d, hidden.shape[-1]):
            c_uv = _mean([_mean([token[u] * token[v] for token in x]) for x in sequences])
            penalties.append(max(0.0, abs(c_uv) - threshold) ** 2)
    return _mean(penalties)


def variance(hidden: Tensor, mask: Tensor, d: int, floor: str) -> float:
    """How far the within-sequence standard deviation falls below 1: prefix + half the residual."""
    sequences = _kept(hidden, mask)
    if not sequences:
        return 0.0
    s = [
        _mean([sqrt(_variance([token[v] for token in tokens])) for tokens in sequences])
        for v in range(hidden.shape[-1])
    ]
    if floor == "mean":
        return max(0.0, 1 - _mean(s[:d])) + 0.5 * max(0.0, 1 - _mean(s[d:]))
    hinges = [max(0.0, 1 - s_v) for s_v in s]
    return _mean(hinges[:d]) + 0.5 * _mean(hinges[d:])


def coordinate_cv(pooled: Tensor, d: int) -> float:
    """Population standard deviation over coordinates of their variances, over the mean variance."""
    v = [_variance(column) for column in pooled[:, :d].T.tolist()]
    return sqrt(_variance(v)) / _mean(v)


def eigen_cv(pooled: Tensor, d: int) -> float:
    """d ||Sigma||_F^2 / tr(Sigma)^2 - 1, minus what isotropic Gaussian rows give on average.

    With n = B - 1 and S ~ Wishart(n, I_d): E tr(S^2) = n d (n + d + 1), E tr(S)^2 = n d (n d + 2),
    and the ratio is independent of the trace, so E[d tr(S^2) / tr(S)^2] - 1 is exactly
    d (n + d + 1) / (n d + 2) - 1 = (d - 1)(d + 2) / (d n + 2).
    """
    columns = [_centred(column) for column in pooled[:, :d].T.tolist()]
    sigma = [[_dot(a, b) / len(a) for b in columns] for a in columns]
    trace = sum(sigma[j][j] for j in range(d))
    frobenius = sum(entry**2 for row in sigma for entry in row)
    return d * frobenius / trace**2 - 1 - (d - 1) * (d + 2) / (d * (len(pooled) - 1) + 2)


def uniformity(pooled: Tensor, d: int, t: float) -> float:
    """log of the mean over ordered pairs i != j of exp(-2 t (1 - cos_ij))."""
    z = [_unit(row[:d]) for row in pooled.tolist()]
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
    return log(_mean([exp(-2 * t * (1 - _dot(z[i], z[j]))) for i, j in pairs]))


def correlation_excess(rows: Tensor, d: int) -> float:
    """Mean over prefix u and residual v of r_uv^2, less 1 / (n - 1) of independent coordinates.

    r_uv is 0 where the variance of u or v is at most 1e-8 of the largest.
    """
    columns = [_centred(column) for column in rows.T.tolist()]
    variances = [_dot(column, column) for column in columns]
    squares = []
    for u in range(d):
        for v in range(d, len(columns)):
            counts = min(variances[u], variances[v]) > 1e-8 * max(variances)
            product = _dot(columns[u], columns[v])
            squares.append(product**2 / variances[u] / variances[v] if counts else 0.0)
    return _mean(squares) - 1 / (len(rows) - 1)


def _kept(hidden: Tensor, mask: Tensor) -> list[list[list[float]]]:
    """The valid tokens of every sequence that has at least three of them."""
    sequences = [
        [token for token, valid in zip(tokens, row, strict=True) if valid]
        for tokens, row in zip(hidden.tolist(), mask.tolist(), strict=True)
    ]
    return [tokens for tokens in sequences if len(tokens) >= 3]


def _standardised(tokens: list[list[float]]) -> list[list[float]]:
    columns = [list(column) for column in zip(*tokens, strict=True)]
    scaled = [[x / sqrt(_variance(c) + EPS) for x in _centred(c)] for c in columns]
    return [list(token) for token in zip(*scaled, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _centred(values: list[float]) -> list[float]:
    mean = _mean(values)
    return [value - mean for value in values]


def _variance(values: list[float]) -> float:
    return _mean([value**2 for value in _centred(values)])


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _unit(values: list[float]) -> list[float]:
    norm = sqrt(_dot(values, values))
    return [value / norm for value in values]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(gaussian(size, size, seed=seed)).Q


def simplex(d: int) -> Tensor:
    """The d + 1 corners of a regular simplex around the origin of R^d, as rows."""
    corners = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    return corners @ torch.linalg.svd(corners).Vh[:d].T


def tokens(batch: int, length: int = 6, seed: int = 0) -> Tensor:
    """Correlated hidden states with unequal scales and a mean away from zero."""
    mixing = torch.eye(WIDTH) + 0.3 * gaussian(WIDTH, WIDTH, seed=8)
    return gaussian(batch, length, WIDTH, seed=seed) @ mixing * SCALES + gaussian(WIDTH, seed=9)


def cloud(batch: int, seed: int = 0) -> Tensor:
    """Pooled embeddings: an anisotropic cone."""
    return gaussian(batch, WIDTH, seed=seed) * SCALES.sqrt() + 0.4


def masked(rows: list[str]) -> Tensor:
    """["110", "100"] as a boolean mask."""
    return torch.tensor([[token == "1" for token in row] for row in rows])


MASKS = {
    "full": masked(["111111", "111111"]),
    "one sequence": masked(["110111"]),
    "right padding": masked(["111111", "111100", "111000"]),
    "left padding": masked(["000111", "011111"]),
    "holes": masked(["101101", "110011", "010101", "111111"]),
    "short sequences": masked(["000000", "010000", "100001", "111111", "011101"]),
    "only short ones": masked(["000000", "010000", "100001"]),
}
DEGENERATE = {
    "a zero row": lambda x: x.index_fill(-2, torch.tensor([1]), 0.0),
    "a zero coordinate": lambda x: x.index_fill(-1, torch.tensor([0]), 0.0),
    "a constant coordinate": lambda x: x.index_fill(-1, torch.tensor([2]), 0.7),
    "all rows equal": lambda x: x[..., :1, :].expand_as(x).clone(),
    "nothing but zeros": torch.zeros_like,
}
