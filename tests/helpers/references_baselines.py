"""The baselines' losses as their formulas read: loops over Python floats (fp64), slow on purpose.

Nothing here imports `mic`. Each function takes one width `d`; a formula's symbols keep their names.
At the end: sequences long enough for the top-k of CKA to choose.
"""

from cmath import exp as complex_exp
from fractions import Fraction
from itertools import pairwise
from math import atan2, ceil, cos, exp, hypot, log, pi, sin, sqrt

from references import SCALES, WIDTH, _centred, _dot, _mean, _unit, gaussian, masked
from torch import Tensor

Rows = list[list[float]]


def vicreg_variance(pooled: Tensor, d: int) -> float:
    """Mean over coordinates of max(0, 1 - sqrt(Var + 1e-4)), Var divided by B - 1."""
    columns = [_centred(column) for column in pooled[:, :d].T.tolist()]
    return _mean([max(0.0, 1 - sqrt(_dot(c, c) / (len(c) - 1) + 1e-4)) for c in columns])


def vicreg_covariance(pooled: Tensor, d: int) -> float:
    """(1 / d) sum_{i != j} C_ij^2, C divided by B - 1."""
    z = [_centred(column) for column in pooled[:, :d].T.tolist()]
    pairs = [(i, j) for i in range(d) for j in range(d) if i != j]
    return sum((_dot(z[i], z[j]) / (len(pooled) - 1)) ** 2 for i, j in pairs) / d


def spread_out(pooled: Tensor, d: int) -> float:
    """M1^2 + max(0, M2 - 1 / d) over ordered pairs i != j."""
    z = [_unit(row[:d]) for row in pooled.tolist()]
    cosines = [_dot(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
    m1, m2 = _mean(cosines), _mean([cosine**2 for cosine in cosines])
    return m1**2 + max(0.0, m2 - 1 / d)


def sigreg(pooled: Tensor, d: int, directions: Tensor) -> float:
    """Mean over directions of N int |phi_N - phi|^2 phi dt: all 17 points of the trapezoid rule."""
    return _mean(
        [
            epps_pulley([_dot(row[:d], direction) for row in pooled.tolist()])
            for direction in directions.tolist()
        ]
    )


def epps_pulley(x: list[float]) -> float:
    """N times the trapezoid sum over t = -5, -4.375, ..., 5."""
    t = [-5 + 0.625 * k for k in range(17)]
    integrand = []
    for point in t:
        phi_n = sum(complex_exp(1j * point * x_n) for x_n in x) / len(x)
        integrand.append(abs(phi_n - exp(-(point**2) / 2)) ** 2 * exp(-(point**2) / 2))
    return len(x) * sum(0.625 * (a + b) / 2 for a, b in pairwise(integrand))


def compression(pooled: Tensor, d: int) -> float:
    """MSE and batch-mean KL from the prefix to the first d columns of Z U S."""
    z = pooled.tolist()
    size, columns = len(z[0]), pooled.T.tolist()
    a = [_softmax([_dot(p, q) / sqrt(size) for q in columns]) for p in columns]
    leading = _left_times_singular(a)[:d]
    targets = [[_dot(row, column) for column in leading] for row in z]
    squares, divergences = [], []
    for row, target in zip(z, targets, strict=True):
        squares += [(x - y) ** 2 for x, y in zip(row[:d], target, strict=True)]
        divergences.append(_divergence(_softmax(target), _softmax(row[:d])))
    return _mean(squares) + _mean(divergences)


def attention(hidden: Tensor, mask: Tensor, lift: Tensor, d: int) -> float:
    """Mean over sequences of KL(a_d || a_full), the lifted states written out."""
    return _mean_or_zero(
        [
            _divergence(_softmax(_scores(_lifted(h, lift.tolist(), d), h[0])), _attention(h))
            for h in _sequences(hidden, mask)
        ]
    )


def cka(hidden: Tensor, mask: Tensor, d: int, i: int, n: int) -> float:
    """Mean over sequences of 1 - |X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F), i-th of n widths, i from 0.

    X the centred prefixes and Y the centred full states of the tokens that attention ranks first.
    """
    gamma = Fraction(2, 10) + (Fraction(5, 10) * Fraction(i, n - 1) if n > 1 else 0)
    losses = []
    for h in _sequences(hidden, mask):
        a = _attention(h)
        k = min(len(h), max(8, ceil(gamma * len(h))))
        chosen = [h[j] for j in sorted(range(len(h)), key=lambda j: -a[j])[:k]]
        y = [_centred(list(column)) for column in zip(*chosen, strict=True)]
        x = y[:d]
        losses.append(1 - _cross(x, y) / sqrt(_cross(x, x) * _cross(y, y)))
    return _mean_or_zero(losses)


def _sequences(hidden: Tensor, mask: Tensor) -> list[Rows]:
    """The valid tokens of every sequence that has at least three of them."""
    sequences = [h[row.bool()].tolist() for h, row in zip(hidden, mask, strict=True)]
    return [h for h in sequences if len(h) >= 3]


def _scores(states: Rows, query: list[float]) -> list[float]:
    return [_dot(query, state) / sqrt(len(query)) for state in states]


def _attention(h: Rows) -> list[float]:
    return _softmax(_scores(h, h[0]))


def _lifted(h: Rows, lift: Rows, d: int) -> Rows:
    """lift^T h[:d] of every token."""
    columns = [list(column) for column in zip(*lift, strict=True)]
    return [[_dot(column, state[:d]) for column in columns] for state in h]


def _cross(x: Rows, y: Rows) -> float:
    """|X^T Y|_F^2 of matrices given by their columns."""
    return sum(_dot(p, q) ** 2 for p in x for q in y)


def _softmax(logits: list[float]) -> list[float]:
    powers = [exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def _divergence(p: list[float], q: list[float]) -> float:
    return sum(x * log(x / y) for x, y in zip(p, q, strict=True))


def _mean_or_zero(values: list[float]) -> float:
    return _mean(values) if values else 0.0


def _left_times_singular(a: Rows) -> Rows:
    """The columns of U S of a matrix, largest first, by one-sided Jacobi rotations (Hestenes).

    Rotating pairs of columns until all are orthogonal turns A into A V = U S. Every column's entry
    of largest magnitude is made positive.
    """
    columns = [list(column) for column in zip(*a, strict=True)]
    for _ in range(30):
        for p in range(len(columns)):
            for q in range(p):
                angle = _angle(columns[p], columns[q])
                columns[p], columns[q] = _turned(columns[p], columns[q], angle)
    columns.sort(key=lambda column: -hypot(*column))
    return [[x * (-1 if max(c, key=abs) < 0 else 1) for x in c] for c in columns]


def _angle(p: list[float], q: list[float]) -> float:
    """By how much to turn two columns to make them orthogonal."""
    return atan2(2 * _dot(p, q), _dot(p, p) - _dot(q, q)) / 2


def _turned(p: list[float], q: list[float], angle: float) -> tuple[list[float], list[float]]:
    pairs = list(zip(p, q, strict=True))
    return (
        [cos(angle) * x + sin(angle) * y for x, y in pairs],
        [cos(angle) * y - sin(angle) * x for x, y in pairs],
    )


def gaussian_at_origin() -> float:
    """The integral of (1 - exp(-t^2 / 2))^2 exp(-t^2 / 2) over all t."""
    return sqrt(2 * pi) * (1 - 2 / sqrt(2) + 1 / sqrt(3))


def lifts(dims: list[int], seed: int = 0) -> list[Tensor]:
    """A matrix [d, WIDTH] for every width."""
    return [gaussian(d, WIDTH, seed=seed + d) / sqrt(WIDTH) for d in dims]


def sentences(batch: int, length: int, seed: int = 0) -> Tensor:
    """Hidden states of unequal scales that share a mean."""
    return gaussian(batch, length, WIDTH, seed=seed) * SCALES.sqrt() + gaussian(WIDTH, seed=9)


LONG_MASKS = {
    "30 of 30 and 27 of 30": masked(["1" * 30, "0" + "1" * 27 + "00"]),
    "holes and short ones": masked(
        ["110" * 10, "0" * 30, "1" * 10 + "0" * 20, "0" * 28 + "11", "01" * 15, "1" * 29 + "0"]
    ),
}
