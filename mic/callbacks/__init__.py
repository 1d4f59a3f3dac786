"""Lightning callbacks: what is shown and measured while a run trains."""

from mic.callbacks.evaluation import NestedEvaluation
from mic.callbacks.progress import Progress

__all__ = ["NestedEvaluation", "Progress"]
