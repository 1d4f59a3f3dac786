"""Evaluate the terms of the objective, each from a rank's rows to the values of the joined batch.

A term is a generator: it yields the sums over its rank's rows, is sent those of all ranks, and
returns its values {name: {width: scalar}}. So every term reads from top to bottom, while
`exchange_sums` adds up the sums of all terms in one collective.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mic.collectives import total_together
from mic.config.schema import ObjectiveConfig
from mic.losses.contrastive import infonce_sums
from mic.losses.distillation import regression_sums, relational_sums
from mic.losses.ese import compression
from mic.losses.false_negatives import nearer_than_positive, sharing_ids
from mic.losses.gor import spread, spread_sums
from mic.losses.mipic import RelationSums, relation_terms
from mic.losses.precision import PerWidth
from mic.losses.sigreg import epps_pulley, sketch_sums
from mic.losses.soft_collapse import CollapseSums, collapse_sums, collapse_terms
from mic.losses.spectral_isotropy import potential_sums, spectral_variation, uniformity_from_sums
from mic.losses.vicreg import vicreg_terms
from mic.nested import prefix
from mic.objective.statistics import Key, Sums

Values = dict[str, PerWidth]
Term = Generator[list[Tensor], list[Tensor], Values]


class RankBatch(NamedTuple):
    """The rows of one rank and those of all; `positions` are the former's indices in the latter."""

    local: Mapping[Key, Tensor]
    gathered: Mapping[Key, Tensor]
    sums: Mapping[Key, Sums]
    positions: Int[Tensor, " rows"]

    @property
    def size(self) -> int:
        """The rows of the joined batch."""
        return len(self.gathered["pooled", 0])


class FalseNegatives(NamedTuple):
    """Pairs that are no negatives: the rank's queries x all keys, its positives x all queries."""

    keys: Bool[Tensor, "rows keys"] | None
    queries: Bool[Tensor, "rows all_rows"] | None


def exchange_sums(terms: Sequence[Term]) -> list[Values]:
    """The values of the terms, whose sums are added up over the ranks in one collective."""
    sums = [next(term) for term in terms]
    totals = iter(total_together([value for values in sums for value in values]))
    evaluated = []
    for term, values in zip(terms, sums, strict=True):
        try:
            term.send([next(totals) for _ in values])
        except StopIteration as finished:
            evaluated.append(finished.value)
    return evaluated


def contrastive_term(
    batch: RankBatch,
    columns: Sequence[Key],
    dims: Sequence[int],
    config: ObjectiveConfig,
    false: FalseNegatives,
    name: str = "contrastive",
) -> Term:
    """Nested InfoNCE of the rows of some columns: queries, positives, then hard negatives."""
    query, positive = columns[:2]
    keys = torch.cat([batch.gathered[column] for column in columns[1:]])
    rows = batch.local[query]
    sums = infonce_sums(rows, keys, batch.positions, dims, config.temperature, false.keys)
    if config.symmetric:
        rows, queries = batch.local[positive], batch.gathered[query]
        back = infonce_sums(rows, queries, batch.positions, dims, config.temperature, false.queries)
        sums = (sums + back) / 2
    (sums,) = yield [sums]
    return {name: per_width(dims, sums / batch.size)}


def find_false_negatives(batch: RankBatch, columns: int, config: ObjectiveConfig) -> FalseNegatives:
    """The pairs of a batch of text columns that the config does not count as negatives."""
    false = FalseNegatives(None, None)
    if config.mask_equal and ("ids",) in batch.local:
        local = batch.local["ids",]
        same = sharing_ids(local, batch.gathered["ids",])
        hard = batch.gathered.get(("negative ids",))
        equal = [] if hard is None else [sharing_ids(local, column[:, None]) for column in hard.T]
        false = FalseNegatives(torch.cat([same, *equal], dim=1), same)
    if config.teacher_margin is not None:
        teacher = [batch.gathered["teacher", column] for column in range(columns)]
        query, positive = batch.local["teacher", 0], batch.local["teacher", 1]
        keys = nearer_than_positive(
            query, torch.cat(teacher[1:]), batch.positions, config.teacher_margin
        )
        queries = nearer_than_positive(positive, teacher[0], batch.positions, config.teacher_margin)
        if false.keys is not None and false.queries is not None:
            keys, queries = keys | false.keys, queries | false.queries
        false = FalseNegatives(keys, queries)
    return false


def negatives_term(batch: RankBatch, excluded: Bool[Tensor, "rows keys"]) -> Term:
    """The mean number of negatives of a query."""
    negatives = ~excluded.scatter(1, batch.positions[:, None], True)
    (total,) = yield [negatives.sum().to(batch.local["pooled", 0].dtype)]
    return {"negatives": {0: total / batch.size}}


def collapse_term(
    batch: RankBatch, view: int, layer: int | str, dims: Sequence[int], config: ObjectiveConfig
) -> Term:
    """SCR of the tokens of a layer; at the output the whole batch is one sequence."""
    if isinstance(layer, int):
        sums = CollapseSums(*(yield list(batch.sums["collapse", view, layer])))
    else:
        yield []
        rows = batch.gathered["pooled", view]
        whole = torch.ones(1, len(rows), dtype=torch.bool, device=rows.device)
        sums = collapse_sums(rows[None], whole)
    return collapse_terms(
        sums, dims, threshold=config.threshold, variance_floor=config.variance_floor
    )


def isotropy_term(
    batch: RankBatch, rows: Key, dims: Sequence[int], config: ObjectiveConfig
) -> Term:
    """SIR of the rows of a layer."""
    all_rows = batch.gathered[rows]
    (sums,) = yield [potential_sums(batch.local[rows], all_rows, batch.positions, dims, config.t)]
    return {
        "cv": spectral_variation(all_rows, dims, config.isotropy),
        "uniformity": uniformity_from_sums(sums, batch.size, dims),
    }


def vicreg_term(batch: RankBatch, rows: Key, dims: Sequence[int]) -> Term:
    """VICReg's regularizers of the rows of a layer."""
    yield []
    return vicreg_terms(batch.gathered[rows], dims)


def gor_term(batch: RankBatch, rows: Key, dims: Sequence[int]) -> Term:
    """GOR of the rows of a layer."""
    (sums,) = yield [spread_sums(batch.local[rows], batch.gathered[rows], batch.positions, dims)]
    return {"gor": spread(sums, batch.size, dims)}


def sigreg_term(batch: RankBatch, rows: Key, dims: Sequence[int], step: int) -> Term:
    """SIGReg of the rows of a layer, on directions that change from step to step."""
    (sums,) = yield [sketch_sums(batch.local[rows], dims, step)]
    return {"sigreg": epps_pulley(sums, batch.size, dims)}


def distillation_term(
    batch: RankBatch, view: int, dims: Sequence[int], config: ObjectiveConfig
) -> Term:
    """Relational distillation of a column."""
    temperatures = config.student_temperature, config.teacher_temperature
    student, teacher = ("pooled", view), ("teacher", view)
    (sums,) = yield [
        relational_sums(
            batch.local[student],
            batch.gathered[student],
            batch.local[teacher],
            batch.gathered[teacher],
            batch.positions,
            dims,
            *temperatures,
        )
    ]
    return {"distillation": per_width(dims, sums / batch.size)}


def regression_term(batch: RankBatch, view: int, dims: Sequence[int]) -> Term:
    """Regression of a column's prefixes on the teacher's."""
    (sums,) = yield [
        regression_sums(batch.local["pooled", view], batch.local["teacher", view], dims)
    ]
    return {"regression": per_width(dims, sums / batch.size)}


def compression_term(batch: RankBatch, rows: Key, dims: Sequence[int]) -> Term:
    """ESE's compression of the rows of a layer."""
    yield []
    return {"compress": compression(batch.gathered[rows], dims)}


def relations_term(batch: RankBatch, view: int, layer: int, dims: Sequence[int]) -> Term:
    """MIPIC's relations between the tokens of a layer."""
    sums = RelationSums(*(yield list(batch.sums["relations", view, layer])))
    return relation_terms(sums, dims)


def chain_term(
    batch: RankBatch,
    view: int,
    links: Sequence[tuple[int, int]],
    heads: Iterable[nn.Module],
    temperature: float,
) -> Term:
    """MIPIC's chain: a head predicts the next width, at the next layer, from each (layer, width).

    `L(i) = InfoNCE(head_i(z_i), z_{i+1})` with z_{i+1} detached (arXiv 2604.24374, equation 16).
    """
    sums = []
    for head, (layer, dim), (above, wider) in zip(heads, links, links[1:], strict=False):
        predicted = head(prefix(batch.local["layer", view, layer], dim))
        wanted = prefix(batch.gathered["layer", view, above], wider).detach()
        sums.append(infonce_sums(predicted, wanted, batch.positions, [wider], temperature))
    (totals,) = yield [torch.cat(sums)]
    return {"chain": per_width([dim for _, dim in links[:-1]], totals / batch.size)}


def scaled_term(term: Term, weight: float) -> Term:
    """A term with all its values times a weight."""
    values = yield from term
    return {
        name: {dim: weight * value for dim, value in widths.items()}
        for name, widths in values.items()
    }


def per_width(dims: Sequence[int], values: Tensor) -> PerWidth:
    return dict(zip(dims, values, strict=True))
