"""Lightning callbacks: what is shown and measured while a run trains.

Every one of them runs on all ranks alike; where ranks have to exchange something, all of them do.
"""

from mic.train.callbacks.batch_log import BatchRecord
from mic.train.callbacks.collapse_alarm import CollapseAlarm
from mic.train.callbacks.evaluation import (
    BestSoFar,
    FirstValidation,
    LastValidation,
    NestedEvaluation,
)
from mic.train.callbacks.geometry import CrossCorrelationMap, SpectralIsotropy
from mic.train.callbacks.gradient_balance import TermBalance
from mic.train.callbacks.progress import Progress
from mic.train.callbacks.retrieval import NestedRetrievalEval
from mic.train.callbacks.throughput import Throughput
from mic.train.resume.exact_resume import ExactResume

__all__ = [
    "BatchRecord",
    "BestSoFar",
    "CollapseAlarm",
    "CrossCorrelationMap",
    "ExactResume",
    "FirstValidation",
    "LastValidation",
    "NestedEvaluation",
    "NestedRetrievalEval",
    "Progress",
    "SpectralIsotropy",
    "TermBalance",
    "Throughput",
]
