"""Measure how embeddings fill their space: pure functions of a second moment, in fp64.

The moment of a prefix is the leading block of the whole one, so one pass over the embeddings serves
every width. Figures of input that is not finite are NaN, not errors. Rows that are all equal are a
point, which fills no direction: its ranks are 0, all its coordinates dead, ratios of its variances
NaN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mic.errors import InputError
from mic.losses.spectral_isotropy import potential_sums
from mic.nested import paired_cosines, prefix, residual, unit

ROUNDING = 1e-12  # of the largest: what sums in fp64 leave of a direction without variance
TAIL = 1e-4  # eigenvalues below this share of the largest are no part of a power law
NEGLIGIBLE = 1e-8  # a variance of this share of the largest is rounding of fp32 embeddings
DEAD = 1e-4  # a variance of this share of a coordinate's mean square is none
QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99}

Square = Float[Tensor, "dim dim"]
Scalar = Float[Tensor, ""]


def covariance(embeddings: Float[Tensor, "rows dim"]) -> Square:
    """The covariance (population) of the coordinates."""
    if len(embeddings) < 2:
        raise InputError(f"{len(embeddings)} row: a covariance needs at least 2")
    rows = embeddings.double()
    centred = rows - rows.mean(0)
    return without_rounding(centred.T @ centred / len(rows), rows.square().mean(0))


def without_rounding(covariance: Square, squares: Float[Tensor, " dim"]) -> Square:
    """The covariance with coordinates that do not vary beside their mean `squares` put to 0.

    What sums leave of a constant is of any sign, and would correlate.
    """
    constant = covariance.diagonal() <= ROUNDING * squares
    return covariance.masked_fill(constant | constant[:, None], 0)


def spectrum(covariance: Square) -> Float[Tensor, " dim"]:
    """The eigenvalues, the largest first; those below 1e-12 of the largest, rounding, are 0."""
    if not covariance.isfinite().all():  # which LAPACK would refuse
        return covariance.new_full((len(covariance),), torch.nan, dtype=torch.double)
    ascending: Tensor = torch.linalg.eigvalsh(covariance.double())
    # a rank counts roots: of a rounding of 1e-16 a visible 1e-8 would be left
    return torch.where(ascending > ROUNDING * ascending[-1], ascending, 0).flip(0)


def entropy_rank(values: Float[Tensor, " dim"]) -> Scalar:
    """The exponential of the entropy of values as shares of their sum; 0 when all are 0."""
    total = values.sum()
    entropy: Tensor = torch.special.entr(values / total).sum()
    return torch.where(total == 0, 0.0, entropy.exp())


def effective_rank(covariance: Square) -> Scalar:
    """`exp(-sum_i p_i log p_i)`, p the eigenvalues' shares of the variance: between 1 and d.

    Source: Roy and Vetterli 2007, section 2, of the covariance. 0 for rows that are all equal.
    """
    return entropy_rank(spectrum(covariance))


def rank_me(second_moment: Square) -> Scalar:
    """RankMe: the same of the singular values of the embeddings, not centred: between 1 and d.

    They are the roots of the second moment's eigenvalues. Isotropic noise of 768 dimensions has
    125 at 128 rows, 673 at 1,024: compare at one number of rows. Source: Garrido et al. 2023,
    equation 1, with 0 log 0 = 0 in the place of its epsilon, which could lead above d.
    """
    return entropy_rank(spectrum(second_moment).sqrt())


def participation_ratio(covariance: Square) -> Scalar:
    """`(sum_i l_i)^2 / sum_i l_i^2` of the eigenvalues l, from trace and norm: between 1 and d.

    0 for rows that are all equal.
    """
    trace = covariance.trace()
    return torch.where(trace == 0, 0.0, trace.square() / covariance.square().sum())


def iso_score(covariance: Square) -> Scalar:
    """IsoScore: 0 when one direction has all the variance, 1 when all have the same.

    It is `(P - 1) / (d - 1)` with P the participation ratio, so that no eigenvalue is needed. For
    the eigenvalues l, the published isotropy defect is `|sqrt(d) l / |l| - 1| / sqrt(2 (d -
    sqrt(d)))`. Written out, the square of its numerator is `2 d - 2 sqrt(d) sum_i l_i / |l|`, and
    `sum_i l_i / |l|` is sqrt(P): `defect^2 (d - sqrt(d)) = d - sqrt(d P)`. The share of used
    dimensions, `(d - defect^2 (d - sqrt(d)))^2 / d^2`, then is P / d, and the score is `(d times
    that share - 1) / (d - 1)`. 1 for d = 1, and 0 for rows that are all equal.

    Source: Rudman et al. 2022.
    """
    ratio, others = participation_ratio(covariance), len(covariance) - 1
    return (ratio - 1).clamp_min(0) / others if others else ratio


def condition_number(eigenvalues: Float[Tensor, " dim"]) -> Scalar:
    """The largest over the smallest eigenvalue; infinite where a direction has no variance."""
    return eigenvalues[0] / eigenvalues[-1]


def top_share(eigenvalues: Float[Tensor, " dim"]) -> Scalar:
    """The share of the variance in the first principal direction."""
    return eigenvalues[0] / eigenvalues.sum()


def power_law_slope(eigenvalues: Float[Tensor, " dim"]) -> Scalar:
    """alpha of `l_i ~ i^-alpha`: least squares of log l_i on log i.

    Of the eigenvalues of at least 1e-4 of the largest; 0 is isotropic. NaN with fewer than two.
    Source: Agrawal et al. 2022 (alpha-ReQ), who fit a middle range, which narrow prefixes lack.
    """
    head = eigenvalues[eigenvalues >= TAIL * eigenvalues[0]]
    if len(head) < 2:
        return eigenvalues.new_full((), torch.nan)
    x = torch.arange(1, len(head) + 1, dtype=head.dtype, device=head.device).log()
    x = x - x.mean()
    return -(x * head.log()).sum() / x.square().sum()


def variance_cv(covariance: Square) -> Scalar:
    """The coefficient of variation of the coordinates' variances, L_cv of SIR."""
    variances = covariance.diagonal()
    return variances.std(correction=0) / variances.mean()


def dead_share(covariance: Square, second_moment: Square) -> Scalar:
    """The share of coordinates whose variance is at most 1e-4 of the mean square of a coordinate.

    So one that is constant is dead, and all are once every text has the same embedding, be it 0.
    """
    if not second_moment.isfinite().all():
        return second_moment.new_full((), torch.nan)
    dead = covariance.diagonal() <= DEAD * second_moment.diagonal().mean()
    return dead.to(second_moment.dtype).mean()


def prefix_measures(covariance: Square, second_moment: Square, rows: int) -> dict[str, float]:
    """Every measure of one prefix, from its blocks of both matrices.

    `effective_rank_share` is of the most that so many rows can have, min(d, rows - 1).
    """
    eigenvalues = spectrum(covariance)
    rank = entropy_rank(eigenvalues)
    values = {
        "effective_rank": rank,
        "effective_rank_share": rank / max(1, min(len(covariance), rows - 1)),
        "rank_me": rank_me(second_moment),
        "participation_ratio": participation_ratio(covariance),
        "iso_score": iso_score(covariance),
        "condition_number": condition_number(eigenvalues),
        "top1_share": top_share(eigenvalues),
        "power_law_slope": power_law_slope(eigenvalues),
        "variance_cv": variance_cv(covariance),
        "dead_share": dead_share(covariance, second_moment),
    }
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def uniformity(embeddings: Float[Tensor, "rows dim"], t: float = 2.0) -> Scalar:
    """`log mean_{i != j} exp(-t |x_i - x_j|^2)` of the rows at length 1: 0 when all are one.

    Source: Wang and Isola 2020, section 4.1.2.
    """
    rows, width = embeddings.double(), embeddings.shape[1]
    positions = torch.arange(len(rows), device=rows.device)
    sums = potential_sums(rows, rows, positions, [width], t)
    return (sums[0] / (len(rows) * (len(rows) - 1))).log()


def alignment(a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"]) -> Scalar:
    """The mean squared distance of row i of `a` from row i of `b`, at length 1: 0 when they agree.

    A row of zeros is at right angles to all. Source: Wang and Isola 2020, section 4.1.1, alpha = 2.
    """
    width = a.shape[1]
    return (2 - 2 * paired_cosines(a.double(), b.double(), [width])[width]).mean()


def mean_cosine(embeddings: Float[Tensor, "rows dim"]) -> Scalar:
    """The mean cosine of two different rows, from the sum of the rows at length 1."""
    rows = unit(embeddings.double())
    return different_rows_product(rows.sum(0), rows.square().sum(), len(rows))


def different_rows_product(
    total: Float[Tensor, " dim"], squares: Scalar, rows: Scalar | int
) -> Scalar:
    """The mean inner product of two different rows, of the rows' sum and squared lengths' sum."""
    return (total.square().sum() - squares) / (rows * (rows - 1))


def linear_cka(joint: Square, width: int) -> Scalar:
    """How far two embeddings of the same rows have one geometry, whatever their widths: 0 to 1.

    `joint` is the covariance of both beside each other, `width` that of the first:
    `|C_xy|^2 / (|C_xx| |C_yy|)` in Frobenius norms. Source: Kornblith et al. 2019, equation 4.
    """
    first, cross, second = joint[:width, :width], joint[:width, width:], joint[width:, width:]
    return cross.square().sum() / (first.square().sum() * second.square().sum()).sqrt()


def cross_correlation(covariance: Square, dim: int) -> Float[Tensor, "prefix residual"]:
    """Correlations of the first `dim` coordinates with the others, each between -1 and 1.

    Independent coordinates over n rows still show an rms of 1 / sqrt(n - 1).

    A coordinate whose variance is at most 1e-8 of the largest has correlation 0. Its deviation, at
    most 1e-4 of the largest, may be rounding alone: an fp32 coordinate has errors of 1e-7 of the
    row's length, which is many times the deviations where rows share a mean, and a matrix product
    adds up D of them. Such a coordinate (the last principal component of layer-normalised states,
    for example) would correlate differently with every CPU's kernels.
    """
    variances = covariance.diagonal()
    negligible = variances <= NEGLIGIBLE * variances.max()
    deviations = variances.sqrt().masked_fill(negligible, torch.inf)
    correlation = covariance / deviations[:, None] / deviations
    return residual(prefix(correlation.T, dim).T, dim)


def correlation_summary(covariance: Square, dim: int, rows: int) -> dict[str, float]:
    """Root of the mean square, largest and quantiles of |correlation| of prefix and residual.

    `excess` is the mean square less 1 / (rows - 1), what independent coordinates of so many
    independent rows have; below 0 is chance.
    """
    magnitudes = cross_correlation(covariance, dim).abs().flatten()
    if not magnitudes.isfinite().all():  # sorting would leave numbers among the quantiles
        return dict.fromkeys(("rms", "max", *QUANTILES, "excess"), float("nan"))
    square = magnitudes.square().mean()
    # torch.quantile refuses more than 2^24 values
    ordered = magnitudes.sort().values
    places = {name: int(share * (len(ordered) - 1)) for name, share in QUANTILES.items()}
    return {
        "rms": float(square.sqrt()),
        "max": float(ordered[-1]),
        **{name: float(ordered[place]) for name, place in places.items()},
        "excess": float(square) - 1 / max(1, rows - 1),
    }


def rms(x: Float[Tensor, "*shape"]) -> float:
    """The root of the mean square."""
    return float(torch.sqrt(x.square().mean()))
