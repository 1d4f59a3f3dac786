"""Measures at every width: functions of embeddings, and torchmetrics that add up over ranks."""

from mic.metrics.retrieval import nested_retrieval
from mic.metrics.similarity import nested_spearman

__all__ = ["nested_retrieval", "nested_spearman"]
