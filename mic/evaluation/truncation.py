"""What cutting costs a model that nobody is known to have trained for it."""

from collections.abc import Mapping
from pathlib import Path

from mic.config.loading import load
from mic.encoder.pretrained import locate, read_nested_dims
from mic.evaluation.models import Model
from mic.nested import with_full
from mic.tracking import run_directory

USUAL = 64  # the width whose cost is told, where it was measured


def trained_nested(model: Model, full: int) -> bool:
    """Whether a run's config, or the model's own config.json, says that prefixes were trained."""
    place, config = Path(model.given).expanduser(), model.config
    if (
        config is None
        and place.name == run_directory.ENCODER
        and run_directory.is_run(place.parent)
    ):
        config = load(place.parent / "config.yaml")
    if config is not None:
        return len(with_full(config.objective.dims, full)) > 1
    return read_nested_dims(locate(model.given)) is not None


def cost(name: str, values: Mapping[int, float], full: int, of: str) -> str:
    """What a model that is not nested keeps of its quality when it is cut, in a sentence.

    `values` are its quality by width. Nothing where it was measured at one width alone, or has no
    quality to lose.

    >>> cost("bert", {16: 40.0, 64: 57.0, 384: 60.0}, 384, "nDCG@10")
    'No nested training is known of bert: at 64 of 384 numbers it keeps 95.0 % of nDCG@10; \
`mic train` can make it elastic.'
    """
    widest = max(values)
    narrower = [dim for dim in sorted(values) if dim < widest]
    if not narrower or not values[widest] > 0:
        return ""
    quarter = [dim for dim in narrower if 4 * dim <= full]
    shown = USUAL if USUAL in narrower else (quarter or narrower[:1])[-1]
    beside = "" if widest == full else f" at {widest}"
    return (
        f"No nested training is known of {name}: at {shown} of {full} numbers it keeps "
        f"{100 * values[shown] / values[widest]:.1f} % of {of}{beside}; `mic train` can make it "
        "elastic."
    )
