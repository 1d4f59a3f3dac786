"""Which terms a config asks for, what they want of an encoder, and the list of them for a batch."""

from collections.abc import Sequence

import torch
from torch import nn

from mic.config.schema import ObjectiveConfig, TermConfig
from mic.losses.ese import layer_weight, light_layer_weight
from mic.nested import with_full
from mic.objective import terms
from mic.objective.statistics import Key
from mic.objective.terms import FalseNegatives, Part, Term

SCR, SIR, RELATIONS = ("correlation", "variance"), ("cv", "uniformity"), ("attention", "cka")
VICREG = ("vicreg_variance", "vicreg_covariance")
ALIGNED = (*SCR, *SIR, *RELATIONS, *VICREG, "gor", "sigreg")  # means over layers and widths
TAUGHT = ("distillation", "regression")


def term_config(config: ObjectiveConfig, name: str) -> TermConfig:
    found: TermConfig = getattr(config, name)
    return found


def active(config: ObjectiveConfig, *names: str) -> bool:
    """Whether any of these terms counts."""
    off = (*ALIGNED, "chain") if config.gamma == 0 else ()
    return any(term_config(config, name).weight != 0 and name not in off for name in names)


def regularized_views(config: ObjectiveConfig) -> int:
    """How many columns the regularizers and the teacher see; hard negatives never count."""
    return 2 if config.regularize_views == "both" else 1


def taught(config: ObjectiveConfig, view: int) -> bool:
    """Whether the teacher's embeddings of a column are wanted."""
    learnt = active(config, *TAUGHT) and view < regularized_views(config)
    return learnt or config.teacher_margin is not None


def layers(config: ObjectiveConfig, view: int) -> list[int]:
    """The backbone layers whose hidden states are wanted of a column."""
    found: set[int] = set()
    if active(config, "express"):
        found |= set(config.express_layers)
    if view < regularized_views(config):
        found |= set(aligned(config))
        if active(config, "compress"):
            found |= set(config.express_layers)
        if active(config, "chain"):
            found |= set(config.chain_layers)
    return sorted(found)


def aligned(config: ObjectiveConfig) -> list[int]:
    """The backbone layers that are regularised."""
    wanted = config.align_layers if active(config, *ALIGNED) else []
    return [layer for layer in wanted if isinstance(layer, int)]


def widths(config: ObjectiveConfig, full: int) -> tuple[int, ...]:
    """The nested widths of a layer, which may be narrower or wider than the output."""
    return with_full([dim for dim in config.dims if dim < full], full)


def plan(
    part: Part,
    columns: int,
    config: ObjectiveConfig,
    step: int,
    false: FalseNegatives,
    heads: nn.ModuleList,
) -> list[Term]:
    """The terms of a batch of some text columns."""
    found: list[Term] = []
    dims = widths(config, part.own["pooled", 0].shape[1])
    if active(config, "contrastive"):
        keys: list[Key] = [("pooled", column) for column in range(columns)]
        found.append(terms.contrast(part, keys, dims, config, false))
    shallow = expressed(config, step)
    if active(config, "express"):
        for layer, weight in shallow.items():
            keys = [("layer", column, layer) for column in range(columns)]
            term = terms.contrast(part, keys, of(part, keys[0], config), config, false, "express")
            found.append(terms.scaled(term, weight))
    for view in range(regularized_views(config)):
        if active(config, *ALIGNED):
            for place in config.align_layers:
                found += regularizers(part, view, place, config, step)
        if active(config, "chain"):
            ends = of(part, ("layer", view, config.chain_layers[0]), config)
            links = list(zip(config.chain_layers, ends, strict=True))
            found.append(terms.chain(part, view, links, heads, config.temperature))
        if active(config, "compress"):
            found += compressed(part, view, shallow, config)
        if active(config, "distillation"):
            found.append(terms.distil(part, view, dims, config))
        if active(config, "regression"):
            found.append(terms.regress(part, view, dims))
    return found


def nesting(part: Part, config: ObjectiveConfig) -> int:
    """How many nested widths the align layers have between them."""
    layers = config.align_layers if active(config, *ALIGNED) else []
    return len({dim for layer in layers for dim in of(part, rows_of(0, layer), config)})


def rows_of(view: int, layer: int | str) -> Key:
    """Where the rows of an align layer are kept."""
    return ("layer", view, layer) if isinstance(layer, int) else ("pooled", view)


def of(part: Part, rows: Key, config: ObjectiveConfig) -> tuple[int, ...]:
    """The nested widths of some rows."""
    return widths(config, part.own[rows].shape[1])


def regularizers(
    part: Part, view: int, layer: int | str, config: ObjectiveConfig, step: int
) -> list[Term]:
    """The regularizers of a layer of a column."""
    key, found = rows_of(view, layer), []
    dims = of(part, key, config)
    if active(config, *SCR):
        found.append(terms.collapse(part, view, layer, dims, config))
    if active(config, *SIR):
        found.append(terms.isotropy(part, key, dims, config))
    if active(config, *RELATIONS) and isinstance(layer, int):
        found.append(terms.relate(part, view, layer, dims[:-1]))
    if active(config, *VICREG):
        found.append(terms.variance_covariance(part, key, dims))
    if active(config, "gor"):
        found.append(terms.spread_out(part, key, dims))
    if active(config, "sigreg"):
        found.append(terms.gaussian(part, key, dims, step))
    return found


def expressed(config: ObjectiveConfig, step: int) -> dict[int, float]:
    """The layers that ESE trains at a step, each with its weight: all, or one drawn by the step."""
    if not active(config, "express", "compress"):
        return {}
    if not config.express_sampled:
        return {layer: layer_weight(layer) for layer in config.express_layers}
    generator = torch.Generator().manual_seed(step)
    drawn = int(torch.randint(len(config.express_layers), (), generator=generator))
    layer = config.express_layers[drawn]
    return {layer: light_layer_weight(layer, max(config.express_layers) + 1)}


def compressed(
    part: Part, view: int, shallow: dict[int, float], config: ObjectiveConfig
) -> list[Term]:
    """ESE's compression: the last layer counts 1, of the n others each its weight over n."""
    entries = 1 + len(shallow)  # the values of a term are averaged over its entries
    weights: dict[Key, float] = {("pooled", view): entries}
    for layer, weight in shallow.items():
        weights["layer", view, layer] = entries * weight / len(shallow)
    return [
        terms.scaled(terms.compress(part, key, of(part, key, config)), weight)
        for key, weight in weights.items()
    ]


def check_chain(config: ObjectiveConfig, dims: Sequence[int]) -> str | None:
    """What is wrong with the chain's layers for these widths, if anything."""
    chained = config.chain_layers
    if len(chained) == len(dims):
        return None
    return (
        f"objective.chain_layers {chained}: {len(chained)} layers for the {len(dims)} widths "
        f"{list(dims)}; name one layer a width"
    )
