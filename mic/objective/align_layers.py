"""Number the layers that `objective.align_layers` names by shares of the encoder's depth."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mic.config.schema import Layer, ObjectiveConfig, TermConfig
from mic.objective.active_terms import ALIGNED, is_active

OUTPUT = "output"


def numbered(config: ObjectiveConfig, depth: int) -> ObjectiveConfig:
    """The config with shares of the depth as numbers of layers.

    Of a model without layers (`depth` 0) the output alone is left; where it is not among them, the
    terms on layers have weight 0.
    """
    layers = layer_numbers(config.align_layers, depth)
    if layers or not is_active(config, *ALIGNED):
        return replace(config, align_layers=layers)
    off: dict[str, Any] = {name: TermConfig(0.0) for name in ALIGNED}
    return replace(config, align_layers=[OUTPUT], **off)


def layer_numbers(layers: Iterable[Layer], depth: int) -> list[Layer]:
    """
    >>> layer_numbers(["1/3", "1/2", "2/3"], 6), layer_numbers(["1/3", "1/2", "2/3"], 3)
    ([2, 3, 4], [1, 2])
    >>> layer_numbers([4, "output"], 6), layer_numbers(["1/2", "output"], 0)
    ([4, 'output'], ['output'])
    """
    places: list[Layer] = []
    for layer in layers:
        if isinstance(layer, str) and layer != OUTPUT:
            layer = max(1, round(Fraction(layer) * depth))
        if layer not in places and (depth or layer == OUTPUT):
            places.append(layer)
    return places
