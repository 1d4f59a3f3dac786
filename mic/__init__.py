"""mic: text embeddings whose every prefix is a good embedding (arXiv 2605.29987).

The public names are imported when they are first used: `import mic` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mic import losses, metrics
    from mic.config.loading import load as load_config
    from mic.config.schema import Config
    from mic.data.datamodule import PairDataModule
    from mic.encoder.encoder import Encoder
    from mic.objective.objective import Objective
    from mic.train.module import MICModule
    from mic.train.resume.exact_resume import ExactResume

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Encoder",
    "ExactResume",
    "MICModule",
    "Objective",
    "PairDataModule",
    "load_config",
    "losses",
    "metrics",
]

PUBLIC = {  # a public name: its module, and its name there
    "Config": ("mic.config.schema", "Config"),
    "Encoder": ("mic.encoder.encoder", "Encoder"),
    "ExactResume": ("mic.train.resume.exact_resume", "ExactResume"),
    "MICModule": ("mic.train.module", "MICModule"),
    "Objective": ("mic.objective.objective", "Objective"),
    "PairDataModule": ("mic.data.datamodule", "PairDataModule"),
    "load_config": ("mic.config.loading", "load"),
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        module, attribute = PUBLIC[name]
        return getattr(import_module(module), attribute)
    if name in __all__:
        return import_module(f"mic.{name}")
    raise AttributeError(f"module 'mic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
