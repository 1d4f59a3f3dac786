"""Optuna's trials, and the attempts that they stand for."""

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from mic.sweep.queue.state import Attempt, How
from mic.sweep.queue.storage import patiently

ENDS = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
STATES = {
    TrialState.RUNNING: "open",
    TrialState.WAITING: "open",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

WAYS: Mapping[TrialState, tuple[How, ...]] = {
    TrialState.COMPLETE: ("finished",),
    TrialState.PRUNED: ("pruned",),
    TrialState.FAIL: ("duplicate", "lost", "preempted", "refused", "failed"),
    TrialState.RUNNING: (),
    TrialState.WAITING: (),
}


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study, by their numbers."""
    return patiently(lambda: study.get_trials(deepcopy=False))


def attempt(trial: FrozenTrial) -> Attempt:
    """An attempt as the storage has it.

    Of two that ended it at a time, one of whom took it for lost, the trial's state says who was
    first.
    """
    about = trial.user_attrs
    how = next((one for one in WAYS[trial.state] if f"how/{one}" in about), None)
    end = about.get(f"how/{how}", {})
    return Attempt(
        number=trial.number,
        setting=about["setting"],
        seed=about["seed"],
        place=about["place"],
        worker=about["worker"],
        worker_process=about["worker_process"],
        beat=about.get("beat", 0),
        process=about.get("process", ""),
        how=how,
        began=about["began"],
        seconds=end.get("seconds", 0.0),
        values=tuple(end.get("values", ())),
        lines=tuple(end.get("lines", ())),
    )
