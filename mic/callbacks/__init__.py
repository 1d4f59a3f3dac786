"""Lightning callbacks: what is shown and measured while a run trains.

Every one of them runs on all ranks alike; where ranks have to exchange something, all of them do.
"""

from mic.callbacks.alarm import CollapseAlarm
from mic.callbacks.balance import TermBalance
from mic.callbacks.batches import BatchRecord
from mic.callbacks.best import BestSoFar
from mic.callbacks.evaluation import LastValidation, NestedEvaluation
from mic.callbacks.geometry import CrossCorrelationMap, SpectralIsotropy
from mic.callbacks.progress import Progress
from mic.callbacks.resume import ExactResume
from mic.callbacks.retrieval import NestedRetrievalEval
from mic.callbacks.throughput import Throughput

__all__ = [
    "BatchRecord",
    "BestSoFar",
    "CollapseAlarm",
    "CrossCorrelationMap",
    "ExactResume",
    "LastValidation",
    "NestedEvaluation",
    "NestedRetrievalEval",
    "Progress",
    "SpectralIsotropy",
    "TermBalance",
    "Throughput",
]
