"""The terms of the objective, each told from one's own rows to the values of the joined batch.

A term is a generator: it yields the sums of its rank's own part, is sent those of all ranks, and
returns its values {name: {width: scalar}}. So every term reads from top to bottom, while `exchange`
adds the sums of all terms up in one collective.
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
from mic.losses.false_negatives import nearer, shared
from mic.losses.gor import spread, spread_sums
from mic.losses.mipic import RelationSums, relation_terms
from mic.losses.precision import PerWidth
from mic.losses.sigreg import epps_pulley, sketch_sums
from mic.losses.soft_collapse import CollapseSums, collapse_sums, collapse_terms
from mic.losses.spectral_isotropy import potential_sums, spectral_variation, uniformity
from mic.losses.vicreg import vicreg_terms
from mic.nested import prefix
from mic.objective.statistics import Key, Sums

Values = dict[str, PerWidth]
Term = Generator[list[Tensor], list[Tensor], Values]


class Part(NamedTuple):
    """One rank's part of a batch beside the rows of all; `places` says where its rows stand."""

    own: Mapping[Key, Tensor]
    everyone: Mapping[Key, Tensor]
    sums: Mapping[Key, Sums]
    places: Int[Tensor, " rows"]

    @property
    def size(self) -> int:
        """The rows of the joined batch."""
        return len(self.everyone["pooled", 0])


class FalseNegatives(NamedTuple):
    """Pairs that are no negatives: own queries x all keys, own positives x all queries."""

    keys: Bool[Tensor, "rows keys"] | None
    queries: Bool[Tensor, "rows all_rows"] | None


def exchange(terms: Sequence[Term]) -> list[Values]:
    """Run the terms side by side; their sums cross the ranks together."""
    own = [next(term) for term in terms]
    totals = iter(total_together([value for values in own for value in values]))
    found = []
    for term, values in zip(terms, own, strict=True):
        try:
            term.send([next(totals) for _ in values])
        except StopIteration as finished:
            found.append(finished.value)
    return found


def contrast(
    part: Part,
    columns: Sequence[Key],
    dims: Sequence[int],
    config: ObjectiveConfig,
    false: FalseNegatives,
    name: str = "contrastive",
) -> Term:
    """Nested InfoNCE of the rows of some columns: queries, positives, then hard negatives."""
    query, positive = columns[:2]
    keys = torch.cat([part.everyone[column] for column in columns[1:]])
    rows = part.own[query]
    sums = infonce_sums(rows, keys, part.places, dims, config.temperature, false.keys)
    if config.symmetric:
        rows, queries = part.own[positive], part.everyone[query]
        back = infonce_sums(rows, queries, part.places, dims, config.temperature, false.queries)
        sums = (sums + back) / 2
    (sums,) = yield [sums]
    return {name: per_width(dims, sums / part.size)}


def false_negatives(part: Part, columns: int, config: ObjectiveConfig) -> FalseNegatives:
    """The pairs of a batch of some text columns that the config does not count as negatives."""
    found = FalseNegatives(None, None)
    if config.mask_equal and ("ids",) in part.own:
        own, everyone = part.own["ids",], part.everyone["ids",]
        same = shared(own, everyone)
        hard = part.everyone.get(("negative ids",))
        equal = [] if hard is None else [shared(own, column[:, None]) for column in hard.T]
        found = FalseNegatives(torch.cat([same, *equal], dim=1), same)
    if config.teacher_margin is not None:
        taught = [part.everyone["teacher", column] for column in range(columns)]
        query, positive = part.own["teacher", 0], part.own["teacher", 1]
        keys = nearer(query, torch.cat(taught[1:]), part.places, config.teacher_margin)
        queries = nearer(positive, taught[0], part.places, config.teacher_margin)
        if found.keys is not None and found.queries is not None:
            keys, queries = keys | found.keys, queries | found.queries
        found = FalseNegatives(keys, queries)
    return found


def count_negatives(part: Part, excluded: Bool[Tensor, "rows keys"]) -> Term:
    """How many keys beside its own a query is held against, on average."""
    kept = ~excluded.scatter(1, part.places[:, None], True)
    (total,) = yield [kept.sum().to(part.own["pooled", 0].dtype)]
    return {"negatives": {0: total / part.size}}


def collapse(
    part: Part, view: int, layer: int | str, dims: Sequence[int], config: ObjectiveConfig
) -> Term:
    """SCR of the tokens of a layer; at the output the whole batch is one sequence."""
    if isinstance(layer, int):
        sums = CollapseSums(*(yield list(part.sums["collapse", view, layer])))
    else:
        yield []
        rows = part.everyone["pooled", view]
        whole = torch.ones(1, len(rows), dtype=torch.bool, device=rows.device)
        sums = collapse_sums(rows[None], whole)
    return collapse_terms(
        sums, dims, threshold=config.threshold, variance_floor=config.variance_floor
    )


def isotropy(part: Part, rows: Key, dims: Sequence[int], config: ObjectiveConfig) -> Term:
    """SIR of the rows of a layer."""
    everyone = part.everyone[rows]
    (sums,) = yield [potential_sums(part.own[rows], everyone, part.places, dims, config.t)]
    return {
        "cv": spectral_variation(everyone, dims, config.isotropy),
        "uniformity": uniformity(sums, part.size, dims),
    }


def variance_covariance(part: Part, rows: Key, dims: Sequence[int]) -> Term:
    """VICReg's regularizers of the rows of a layer."""
    yield []
    return vicreg_terms(part.everyone[rows], dims)


def spread_out(part: Part, rows: Key, dims: Sequence[int]) -> Term:
    """GOR of the rows of a layer."""
    (sums,) = yield [spread_sums(part.own[rows], part.everyone[rows], part.places, dims)]
    return {"gor": spread(sums, part.size, dims)}


def gaussian(part: Part, rows: Key, dims: Sequence[int], step: int) -> Term:
    """SIGReg of the rows of a layer, on directions that change from step to step."""
    (sums,) = yield [sketch_sums(part.own[rows], dims, step)]
    return {"sigreg": epps_pulley(sums, part.size, dims)}


def distil(part: Part, view: int, dims: Sequence[int], config: ObjectiveConfig) -> Term:
    """Relational distillation of a column."""
    temperatures = config.student_temperature, config.teacher_temperature
    student, teacher = ("pooled", view), ("teacher", view)
    (sums,) = yield [
        relational_sums(
            part.own[student],
            part.everyone[student],
            part.own[teacher],
            part.everyone[teacher],
            part.places,
            dims,
            *temperatures,
        )
    ]
    return {"distillation": per_width(dims, sums / part.size)}


def regress(part: Part, view: int, dims: Sequence[int]) -> Term:
    """Regression of a column's prefixes on the teacher's."""
    (sums,) = yield [regression_sums(part.own["pooled", view], part.own["teacher", view], dims)]
    return {"regression": per_width(dims, sums / part.size)}


def compress(part: Part, rows: Key, dims: Sequence[int]) -> Term:
    """ESE's compression of the rows of a layer."""
    yield []
    return {"compress": compression(part.everyone[rows], dims)}


def relate(part: Part, view: int, layer: int, dims: Sequence[int]) -> Term:
    """MIPIC's relations between the tokens of a layer."""
    sums = RelationSums(*(yield list(part.sums["relations", view, layer])))
    return relation_terms(sums, dims)


def chain(
    part: Part,
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
        predicted = head(prefix(part.own["layer", view, layer], dim))
        wanted = prefix(part.everyone["layer", view, above], wider).detach()
        sums.append(infonce_sums(predicted, wanted, part.places, [wider], temperature))
    (totals,) = yield [torch.cat(sums)]
    return {"chain": per_width([dim for _, dim in links[:-1]], totals / part.size)}


def scaled(term: Term, weight: float) -> Term:
    """A term with all its values times a weight."""
    values = yield from term
    return {
        name: {dim: weight * value for dim, value in widths.items()}
        for name, widths in values.items()
    }


def per_width(dims: Sequence[int], values: Tensor) -> PerWidth:
    return dict(zip(dims, values, strict=True))
