"""Measures at every width: functions of embeddings, and torchmetrics that add up over ranks."""

from mic.metrics.moments import Moment, Moments
from mic.metrics.retrieval import NestedRetrieval, nested_retrieval
from mic.metrics.similarity import NestedSpearman, nested_spearman
from mic.metrics.spread import Spread

__all__ = [
    "Moment",
    "Moments",
    "NestedRetrieval",
    "NestedSpearman",
    "Spread",
    "nested_retrieval",
    "nested_spearman",
]
