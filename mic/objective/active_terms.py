"""Choose the active terms of a config, the inputs that they need, and build them for a batch."""

from collections.abc import Sequence

import torch
from torch import nn

from mic.config.schema import ObjectiveConfig, TermConfig
from mic.losses.ese import layer_weight, light_layer_weight
from mic.nested import with_full
from mic.objective import terms
from mic.objective.statistics import Key
from mic.objective.terms import FalseNegatives, RankBatch, Term

SCR, SIR, RELATIONS = ("correlation", "variance"), ("cv", "uniformity"), ("attention", "cka")
VICREG = ("vicreg_variance", "vicreg_covariance")
ALIGNED = (*SCR, *SIR, *RELATIONS, *VICREG, "gor", "sigreg")  # means over layers and widths
TEACHER_TERMS = ("distillation", "regression")


def term_config(config: ObjectiveConfig, name: str) -> TermConfig:
    term: TermConfig = getattr(config, name)
    return term


def is_active(config: ObjectiveConfig, *names: str) -> bool:
    """Whether any of these terms has a weight."""
    off = (*ALIGNED, "chain") if config.gamma == 0 else ()
    return any(term_config(config, name).weight != 0 and name not in off for name in names)


def regularized_views(config: ObjectiveConfig) -> int:
    """The number of columns that regularizers and teacher apply to; never the hard negatives."""
    return 2 if config.regularize_views == "both" else 1


def needs_teacher(config: ObjectiveConfig, view: int) -> bool:
    """Whether the teacher's embeddings of a column are wanted."""
    learnt = is_active(config, *TEACHER_TERMS) and view < regularized_views(config)
    return learnt or config.teacher_margin is not None


def wanted_layers(config: ObjectiveConfig, view: int) -> list[int]:
    """The backbone layers whose hidden states are wanted of a column."""
    layers: set[int] = set()
    if is_active(config, "express"):
        layers |= set(config.express_layers)
    if view < regularized_views(config):
        layers |= set(aligned_layers(config))
        if is_active(config, "compress"):
            layers |= set(config.express_layers)
        if is_active(config, "chain"):
            layers |= set(config.chain_layers)
    return sorted(layers)


def aligned_layers(config: ObjectiveConfig) -> list[int]:
    """The backbone layers that are regularised."""
    wanted = config.align_layers if is_active(config, *ALIGNED) else []
    return [layer for layer in wanted if isinstance(layer, int)]


def nested_widths(config: ObjectiveConfig, full: int) -> tuple[int, ...]:
    """The nested widths of a layer, which may be narrower or wider than the output."""
    return with_full([dim for dim in config.dims if dim < full], full)


def build_terms(
    batch: RankBatch,
    columns: int,
    config: ObjectiveConfig,
    step: int,
    false: FalseNegatives,
    heads: nn.ModuleList,
) -> list[Term]:
    """The terms of a batch of some text columns."""
    batch_terms: list[Term] = []
    dims = nested_widths(config, batch.local["pooled", 0].shape[1])
    if is_active(config, "contrastive"):
        keys: list[Key] = [("pooled", column) for column in range(columns)]
        batch_terms.append(terms.contrastive_term(batch, keys, dims, config, false))
    shallow = express_weights(config, step)
    if is_active(config, "express"):
        for layer, weight in shallow.items():
            keys = [("layer", column, layer) for column in range(columns)]
            term = terms.contrastive_term(
                batch, keys, widths_of(batch, keys[0], config), config, false, "express"
            )
            batch_terms.append(terms.scaled_term(term, weight))
    for view in range(regularized_views(config)):
        if is_active(config, *ALIGNED):
            for place in config.align_layers:
                batch_terms += regularizer_terms(batch, view, place, config, step)
        if is_active(config, "chain"):
            ends = widths_of(batch, ("layer", view, config.chain_layers[0]), config)
            links = list(zip(config.chain_layers, ends, strict=True))
            batch_terms.append(terms.chain_term(batch, view, links, heads, config.temperature))
        if is_active(config, "compress"):
            batch_terms += compression_terms(batch, view, shallow, config)
        if is_active(config, "distillation"):
            batch_terms.append(terms.distillation_term(batch, view, dims, config))
        if is_active(config, "regression"):
            batch_terms.append(terms.regression_term(batch, view, dims))
    return batch_terms


def count_nested_widths(batch: RankBatch, config: ObjectiveConfig) -> int:
    """The number of different nested widths of all align layers."""
    layers = config.align_layers if is_active(config, *ALIGNED) else []
    return len({dim for layer in layers for dim in widths_of(batch, rows_key(0, layer), config)})


def rows_key(view: int, layer: int | str) -> Key:
    """The key of an align layer's rows."""
    return ("layer", view, layer) if isinstance(layer, int) else ("pooled", view)


def widths_of(batch: RankBatch, rows: Key, config: ObjectiveConfig) -> tuple[int, ...]:
    """The nested widths of some rows."""
    return nested_widths(config, batch.local[rows].shape[1])


def regularizer_terms(
    batch: RankBatch, view: int, layer: int | str, config: ObjectiveConfig, step: int
) -> list[Term]:
    """The regularizers of a layer of a column."""
    key = rows_key(view, layer)
    regularizers = []
    dims = widths_of(batch, key, config)
    if is_active(config, *SCR):
        regularizers.append(terms.collapse_term(batch, view, layer, dims, config))
    if is_active(config, *SIR):
        regularizers.append(terms.isotropy_term(batch, key, dims, config))
    if is_active(config, *RELATIONS) and isinstance(layer, int):
        regularizers.append(terms.relations_term(batch, view, layer, dims[:-1]))
    if is_active(config, *VICREG):
        regularizers.append(terms.vicreg_term(batch, key, dims))
    if is_active(config, "gor"):
        regularizers.append(terms.gor_term(batch, key, dims))
    if is_active(config, "sigreg"):
        regularizers.append(terms.sigreg_term(batch, key, dims, step))
    return regularizers


def express_weights(config: ObjectiveConfig, step: int) -> dict[int, float]:
    """The layers that ESE trains at a step, each with its weight: all, or one drawn by the step."""
    if not is_active(config, "express", "compress"):
        return {}
    if not config.express_sampled:
        return {layer: layer_weight(layer) for layer in config.express_layers}
    generator = torch.Generator().manual_seed(step)
    drawn = int(torch.randint(len(config.express_layers), (), generator=generator))
    layer = config.express_layers[drawn]
    return {layer: light_layer_weight(layer, max(config.express_layers) + 1)}


def compression_terms(
    batch: RankBatch, view: int, shallow: dict[int, float], config: ObjectiveConfig
) -> list[Term]:
    """ESE's compression: the last layer counts 1, of the n others each its weight over n."""
    entries = 1 + len(shallow)  # the values of a term are averaged over its entries
    weights: dict[Key, float] = {("pooled", view): entries}
    for layer, weight in shallow.items():
        weights["layer", view, layer] = entries * weight / len(shallow)
    return [
        terms.scaled_term(terms.compression_term(batch, key, widths_of(batch, key, config)), weight)
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
