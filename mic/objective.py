"""The objective: weights, schedules and widths around the pure losses of MIC.

`L_total = L_contrastive + gamma * mean over layers and widths of (L_SCR + L_SIR)`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mic import losses
from mic.losses import PerWidth
from mic.nested import Encoded, with_full
from mic.pooling import mean_pool
from mic.settings import ObjectiveConfig, TermConfig

OUTPUT = "output"  # the pooled embedding after any head, as an align layer


class Loss(NamedTuple):
    """The value to minimise and everything it was made of.

    `terms` maps a term's name to its raw value per width (means over align layers and views);
    `parts` maps it to its weighted share of the total: they sum to `total`.
    """

    total: Tensor
    terms: dict[str, PerWidth]
    parts: dict[str, Tensor]


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
        terms = {"contrastive": self.contrast(views)}
        shares = {"contrastive": 1 / self.contrastive_divisor(terms["contrastive"])}
        if self.config.gamma != 0:
            aligned = self.align(views[: self.regularized_views])
            for name, values in aligned.items():
                if not values:  # SCR, when the full width is the only one
                    continue
                weight = term_weight(getattr(self.config, name), step)
                # the mean runs over all widths, also those where a term is undefined
                shares[name] = self.config.gamma * weight / len(aligned["uniformity"])
                terms[name] = values
        parts = {name: shares[name] * total(values.values()) for name, values in terms.items()}
        return Loss(total(parts.values()), terms, parts)

    def contrast(self, views: Sequence[Encoded]) -> PerWidth:
        """The nested contrastive term: the first column asks, all the others are keys."""
        queries = views[0].pooled
        keys = torch.cat([view.pooled for view in views[1:]])
        dims = with_full(self.config.dims, queries.shape[1])
        return losses.nested_infonce(queries, keys, dims, temperature=self.config.temperature)

    def contrastive_divisor(self, values: PerWidth) -> int:
        """The number of widths when their weights sum to 1, else 1: the paper's plain sum."""
        return len(values) if self.config.normalize_dim_weights else 1

    def align(self, views: Sequence[Encoded]) -> dict[str, PerWidth]:
        """The four regularization terms at every width, averaged over align layers and views.

        Where a head makes the output's width another than the hidden states', a width averages
        over the layers that have it.
        """
        found = [
            self.regularize(*tokens(view, layer))
            for view in views
            for layer in self.config.align_layers
        ]
        widths = {name: sorted({dim for one in found for dim in one[name]}) for name in found[0]}
        return {
            name: {dim: mean(one[name][dim] for one in found if dim in one[name]) for dim in dims}
            for name, dims in widths.items()
        }

    def regularize(self, hidden: Tensor, mask: Tensor, pooled: Tensor) -> dict[str, PerWidth]:
        """SCR on the tokens and SIR on the mean-pooled rows of one layer of one view."""
        full = pooled.shape[1]
        dims = with_full([dim for dim in self.config.dims if dim < full], full)
        collapse = losses.soft_collapse_terms(
            hidden,
            mask,
            dims,
            threshold=self.config.threshold,
            variance_floor=self.config.variance_floor,
        )
        isotropy = losses.spectral_isotropy_terms(
            pooled, dims, t=self.config.t, isotropy=self.config.isotropy
        )
        return {**collapse, **isotropy}


def tokens(view: Encoded, layer: int | str) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens, their mask and their mean of a layer; the batch is one sequence at the output."""
    if layer == OUTPUT:
        rows = view.pooled[None]
        return rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device), view.pooled
    hidden = view.hidden[int(layer)]
    return hidden, view.mask, mean_pool(hidden, view.mask)


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
