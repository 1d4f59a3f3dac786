"""Measures at every width: functions of embeddings, and torchmetrics that add up over ranks.

The metrics keep no cache of what they computed: a rank that has no new rows would answer from it
while the others wait for its part.
"""

from mic.metrics.moments import Moment, Moments, exact_device
from mic.metrics.retrieval import NestedRetrieval, nested_retrieval
from mic.metrics.similarity import NestedSpearman, nested_spearman
from mic.metrics.uniformity import Spread

__all__ = [
    "Moment",
    "Moments",
    "NestedRetrieval",
    "NestedSpearman",
    "Spread",
    "exact_device",
    "nested_retrieval",
    "nested_spearman",
]
