"""The objective: weights, schedules and widths around the pure losses of MIC.

`L_total = L_contrastive + gamma * mean over layers and widths of (L_SCR + L_SIR)`.

Over W ranks every value is that of one process on the joined batch. A step has one gather, of the
rows that InfoNCE and SIR compare, and one sum, of what the ranks' own rows and tokens add.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mic.collectives import counts, gather_columns, rank, total_together
from mic.losses.collapse import CollapseSums, collapse_sums, collapse_terms
from mic.losses.contrastive import infonce_sums
from mic.losses.isotropy import potential_sums, spectral_variation, uniformity
from mic.losses.precision import PerWidth
from mic.nested import Encoded, with_full
from mic.pooling import mean_pool
from mic.settings import ObjectiveConfig, TermConfig

OUTPUT = "output"  # the pooled embedding after any head, as an align layer


class Loss(NamedTuple):
    """The value to minimise and everything it was made of.

    `terms` maps a term's name to its raw value per width (means over align layers and views);
    `parts` maps it to its weighted share of the total: they sum to `total`. `negatives` is the
    number of keys beside its own that every query was held against.
    """

    total: Tensor
    terms: dict[str, PerWidth]
    parts: dict[str, Tensor]
    negatives: int


class Objective(nn.Module):
    """Weigh the losses of one batch as `config` says; has no parameters."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config

    def layers(self, view: int) -> list[int]:
        """The backbone layers whose hidden states the objective wants of a column."""
        if self.config.gamma == 0 or view >= self.regularized_views:
            return []
        return [layer for layer in self.config.align_layers if isinstance(layer, int)]

    @property
    def regularized_views(self) -> int:
        """How many columns SCR and SIR see; hard negatives never count."""
        return 2 if self.config.regularize_views == "both" else 1

    def forward(self, views: Sequence[Encoded], step: int) -> Loss:
        """The loss of a batch of encoded columns: queries, positives, then any hard negatives.

        `step` counts optimiser steps from 0 and drives the warm-up of the weights.
        """
        queries = full(views[0].pooled)
        columns = [full(view.pooled) for view in views[1:]]
        aligned = self.aligned(views)
        sizes = counts(len(queries), queries.device)
        gathered = gather_columns([*columns, *(one.rows for one in aligned)], sizes)
        keys, rows = torch.cat(gathered[: len(columns)]), gathered[len(columns) :]
        first = sum(sizes[: rank()])
        places = torch.arange(first, first + len(queries), device=queries.device)

        dims = with_full(self.config.dims, queries.shape[1])
        sums = [infonce_sums(queries, keys, places, dims, self.config.temperature)]
        for one, everyone in zip(aligned, rows, strict=True):
            sums.append(
                potential_sums(one.rows, everyone, places, self.widths(everyone), self.config.t)
            )
            if one.hidden is not None:
                sums += collapse_sums(one.hidden, one.mask)
        totals = iter(total_together(sums))

        count = sum(sizes)
        terms = {"contrastive": dict(zip(dims, next(totals) / count, strict=True))}
        if aligned:
            terms |= average(
                [
                    self.regularizers(everyone, next(totals), collapse_of(one, everyone, totals))
                    for one, everyone in zip(aligned, rows, strict=True)
                ]
            )
        return self.weigh(terms, len(keys) - 1, step)

    def aligned(self, views: Sequence[Encoded]) -> list["Aligned"]:
        """The layers that SCR and SIR see, of each view that they see."""
        if self.config.gamma == 0:
            return []
        return [
            align(view, layer)
            for view in views[: self.regularized_views]
            for layer in self.config.align_layers
        ]

    def widths(self, rows: Tensor) -> tuple[int, ...]:
        """The nested widths of an align layer, which may be narrower or wider than the output."""
        width = rows.shape[1]
        return with_full([dim for dim in self.config.dims if dim < width], width)

    def regularizers(
        self, rows: Tensor, potentials: Tensor, collapse: CollapseSums
    ) -> dict[str, PerWidth]:
        """The four terms of one layer of one view, from all ranks' rows and sums."""
        dims, config = self.widths(rows), self.config
        return {
            **collapse_terms(
                collapse, dims, threshold=config.threshold, variance_floor=config.variance_floor
            ),
            "cv": spectral_variation(rows, dims, config.isotropy),
            "uniformity": uniformity(potentials, len(rows), dims),
        }

    def weigh(self, terms: dict[str, PerWidth], negatives: int, step: int) -> Loss:
        """The weighted sum of all terms over all widths."""
        terms = {name: values for name, values in terms.items() if values}  # SCR at D alone: none
        widths = len(terms["contrastive"])
        shares = {"contrastive": 1 / widths if self.config.normalize_dim_weights else 1}
        for name in terms.keys() - shares.keys():
            weight = term_weight(getattr(self.config, name), step)
            # the mean runs over all widths, also those where a term is undefined
            shares[name] = self.config.gamma * weight / len(terms["uniformity"])
        parts = {name: shares[name] * total(values.values()) for name, values in terms.items()}
        return Loss(total(parts.values()), terms, parts, negatives)


class Aligned(NamedTuple):
    """A layer of a view: a row a sentence for SIR, and for SCR its tokens, where it has any."""

    rows: Tensor
    hidden: Tensor | None
    mask: Tensor


def align(view: Encoded, layer: int | str) -> Aligned:
    """The mean-pooled rows and the tokens of a layer; the output has rows alone."""
    if layer == OUTPUT:
        return Aligned(full(view.pooled), None, view.mask)
    hidden = view.hidden[int(layer)]
    return Aligned(mean_pool(hidden, view.mask), hidden, view.mask)


def collapse_of(one: Aligned, everyone: Tensor, totals: Iterator[Tensor]) -> CollapseSums:
    """SCR's sums over all ranks; at the output the whole batch is one sequence."""
    if one.hidden is not None:
        return CollapseSums(next(totals), next(totals), next(totals))
    whole = torch.ones(1, len(everyone), dtype=torch.bool, device=everyone.device)
    return collapse_sums(everyone[None], whole)


def average(found: Sequence[dict[str, PerWidth]]) -> dict[str, PerWidth]:
    """Each term's mean over layers and views, at each width over those that have it."""
    widths = {name: sorted({dim for one in found for dim in one[name]}) for name in found[0]}
    return {
        name: {dim: mean(one[name][dim] for one in found if dim in one[name]) for dim in dims}
        for name, dims in widths.items()
    }


def full(x: Tensor) -> Tensor:
    """In at least fp32, as all statistics are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def term_weight(term: TermConfig, step: int) -> float:
    """A term's weight at an optimiser step, rising linearly over its warm-up.

    >>> [term_weight(TermConfig(weight=1.0, warmup_steps=4), step) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    if step >= term.warmup_steps:
        return term.weight
    return term.weight * (step + 1) / term.warmup_steps


def total(values: Iterable[Tensor]) -> Tensor:
    """The sum of scalars."""
    return torch.stack(list(values)).sum()


def mean(values: Iterable[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()
