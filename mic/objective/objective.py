"""Weigh the losses of a batch: weights, schedules and widths around the pure losses.

`L_total = sum_d w_d L_contrastive(d) + gamma * mean over layers and widths of the regularizers`,
plus the terms of a teacher, ESE and MIPIC. The statistics of chunks or of ranks are computed first,
then joined: every value is that of the whole batch. A step has two collectives, a gather of rows
and a sum.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mic.collectives import counts, gather_columns, rank
from mic.config.schema import ObjectiveConfig, TermConfig
from mic.errors import InputError
from mic.losses.ese import light_width_weights
from mic.losses.mipic import relation_sums
from mic.losses.precision import PerWidth
from mic.losses.soft_collapse import collapse_sums
from mic.nested import Encoded, mean_pool
from mic.objective import active_terms, terms
from mic.objective.active_terms import ALIGNED, RELATIONS, SCR
from mic.objective.statistics import BatchStatistics, Key, Sums
from mic.objective.terms import RankBatch, Values

HEAD_WIDTH = 256  # hidden units of the heads of MIPIC's chain


class Loss(NamedTuple):
    """The value to minimise and the terms it is the sum of.

    `terms` maps a term's name to its raw value per width (means over align layers and views);
    `weighted` maps it to its weighted share of the total: they sum to `total`. `negatives` is the
    mean number of negatives of a query.
    """

    total: Tensor
    terms: dict[str, PerWidth]
    weighted: dict[str, Tensor]
    negatives: Tensor


class Objective(nn.Module):
    """Weigh the losses of one batch as `config` says.

    Only MIPIC's terms have parameters, which need the `hidden_width` of the backbone. Raises
    InputError for a chain that does not fit the widths.
    """

    def __init__(self, config: ObjectiveConfig, hidden_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.lifts, self.heads = nn.ParameterList(), nn.ModuleList()
        chained = active_terms.is_active(config, "chain")
        if not chained and not active_terms.is_active(config, *RELATIONS):
            return
        if hidden_width is None:
            raise InputError("objective.attention, .cka, .chain: they need the backbone's width")
        dims = active_terms.nested_widths(config, hidden_width)
        if chained and (wrong := active_terms.check_chain(config, dims)):
            raise InputError(wrong)
        if chained:
            self.heads.extend(head(narrow, wide) for narrow, wide in pairwise(dims))
        if active_terms.is_active(config, *RELATIONS):
            self.lifts.extend(nn.Parameter(torch.eye(dim, hidden_width)) for dim in dims[:-1])

    def layers(self, view: int) -> list[int]:
        """The backbone layers whose hidden states the objective wants of a column."""
        return active_terms.wanted_layers(self.config, view)

    def taught(self, view: int) -> bool:
        """Whether the objective wants the teacher's embeddings of a column."""
        return active_terms.needs_teacher(self.config, view)

    def forward(
        self,
        views: Sequence[Encoded],
        step: int,
        *,
        teacher: Sequence[Tensor | None] = (),
        ids: Int[Tensor, "batch columns"] | None = None,
        groups: Int[Tensor, " batch"] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Loss:
        """The loss of a batch of encoded columns: queries, positives, then any hard negatives.

        `step` counts optimiser steps from 0 and drives the warm-up of the weights. `teacher` holds
        the teacher's embeddings [batch, _] of the columns that are `taught`. Rows with equal `ids`,
        numbers of their texts, or equal `groups` are no negatives of each other. `sizes` are the
        ranks' numbers of rows; without it they are summed over the ranks first.
        """
        statistics = self.summarise(views, teacher=teacher, ids=ids, groups=groups)
        return self.finish(statistics, step, sizes)

    def summarise(
        self,
        views: Sequence[Encoded],
        *,
        teacher: Sequence[Tensor | None] = (),
        ids: Int[Tensor, "batch columns"] | None = None,
        groups: Int[Tensor, " batch"] | None = None,
    ) -> BatchStatistics:
        """The statistics of a batch or of a chunk of it; `statistics.join` joins chunks."""
        rows: dict[Key, Tensor] = {}
        sums: dict[Key, Sums] = {}
        lifts = list(self.lifts)
        for view, encoded in enumerate(views):
            rows["pooled", view] = full(encoded.pooled)
            for layer in self.layers(view):
                rows["layer", view, layer] = mean_pool(encoded.hidden[layer], encoded.mask)
        for view in range(active_terms.regularized_views(self.config)):
            for layer in active_terms.aligned_layers(self.config):
                hidden, mask = views[view].hidden[layer], views[view].mask
                if active_terms.is_active(self.config, *SCR):
                    sums["collapse", view, layer] = collapse_sums(hidden, mask)
                if active_terms.is_active(self.config, *RELATIONS):
                    dims = active_terms.nested_widths(self.config, hidden.shape[2])[:-1]
                    sums["relations", view, layer] = relation_sums(hidden, mask, lifts, dims)
        for view, embeddings in enumerate(teacher):
            if embeddings is not None:
                rows["teacher", view] = embeddings.detach().to(rows["pooled", 0].dtype)
        if ids is not None:
            marks = [ids[:, :2]] if groups is None else [ids[:, :2], groups[:, None]]
            rows["ids",] = torch.cat(marks, dim=1)
            if ids.shape[1] > 2:
                rows["negative ids",] = ids[:, 2:]
        return BatchStatistics(rows, sums)

    def finish(
        self, statistics: BatchStatistics, step: int, sizes: Sequence[int] | None = None
    ) -> Loss:
        """The loss of the joined batch of all ranks from the statistics of this rank's rows."""
        rows, config = statistics.rows, self.config
        count, device = len(rows["pooled", 0]), rows["pooled", 0].device
        sizes = sizes or counts(count, device)
        first = sum(sizes[: rank()])
        batch = RankBatch(
            rows,
            dict(zip(rows, gather_columns(list(rows.values()), sizes), strict=True)),
            statistics.sums,
            torch.arange(first, first + count, device=device),
        )
        columns = sum(key[0] == "pooled" for key in rows)
        false = terms.find_false_negatives(batch, columns, config)
        active = active_terms.build_terms(batch, columns, config, step, false, self.heads)
        if false.keys is not None:
            active.append(terms.negatives_term(batch, false.keys))
        values = average_terms(terms.exchange_sums(active))
        every_key = torch.full((), batch.size * (columns - 1) - 1.0, device=device)
        negatives = values.pop("negatives", {0: every_key})[0]
        weighted = self.weigh(
            values,
            rows["pooled", 0].shape[1],
            active_terms.count_nested_widths(batch, config),
            step,
        )
        return Loss(sum_scalars(weighted.values()), values, weighted, negatives)

    def weigh(self, values: Values, width: int, nesting: int, step: int) -> dict[str, Tensor]:
        """Each term's weighted sum over its widths.

        `width` is that of the embedding, `nesting` the number of widths of the align layers: the
        regularizers' mean runs over all of them, also those where a term is undefined.
        """
        config, weighted = self.config, {}
        for name, widths in values.items():
            weight = term_weight(active_terms.term_config(config, name), step)
            if name in ALIGNED:
                shares = dict.fromkeys(widths, config.gamma / nesting)
            elif name == "chain":
                shares = dict.fromkeys(widths, config.gamma)
            else:
                shares = {dim: dim_weight(config, dim, width) for dim in widths}
            weighted[name] = weight * sum_scalars(
                shares[dim] * value for dim, value in widths.items()
            )
        return weighted


def head(narrow: int, wide: int) -> nn.Module:
    """The head of MIPIC's chain, which predicts the wider representation from the narrower."""
    return nn.Sequential(nn.Linear(narrow, HEAD_WIDTH), nn.GELU(), nn.Linear(HEAD_WIDTH, wide))


def dim_weight(config: ObjectiveConfig, dim: int, full: int) -> float:
    """The weight of a width in a nested sum, for an embedding of the `full` width."""

    if config.dim_weights == "equal":
        weights = [1.0] * (len(config.dims) + 1)
    else:
        weights = light_width_weights(len(config.dims) + 1)
    places = [bisect_left(config.dims, width) for width in active_terms.nested_widths(config, full)]
    whole = sum(weights[place] for place in places) if config.normalize_dim_weights else 1
    return weights[bisect_left(config.dims, dim)] / whole


def average_terms(evaluated: Sequence[Values]) -> Values:
    """Each term's mean over layers and views, at each width over those that have it."""
    names = dict.fromkeys(name for values in evaluated for name in values)
    terms = {name: [values[name] for values in evaluated if name in values] for name in names}
    widths = {name: sorted(set().union(*values)) for name, values in terms.items()}
    return {
        name: {dim: mean_scalar(term[dim] for term in terms[name] if dim in term) for dim in dims}
        for name, dims in widths.items()
        if dims  # SCR at the full width alone: none
    }


def full(x: Tensor) -> Tensor:
    """The tensor in at least fp32, as all statistics are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def term_weight(term: TermConfig, step: int) -> float:
    """A term's weight at an optimiser step, rising linearly over its warm-up.

    >>> [term_weight(TermConfig(weight=1.0, warmup_steps=4), step) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    if step >= term.warmup_steps:
        return term.weight
    return term.weight * (step + 1) / term.warmup_steps


def sum_scalars(values: Iterable[Tensor]) -> Tensor:
    """The sum of scalars."""
    return torch.stack(list(values)).sum()


def mean_scalar(values: Iterable[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()
