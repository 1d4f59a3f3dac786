"""Optuna's storage: a journal file in the sweep's folder, or any database that Optuna knows.

A database may be restarted under a running sweep: what fails for that reason is tried again.
"""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError

from mic.console import notice
from mic.errors import InputError, RunError
from mic.sweep.queue.state import Attempt, How

JOURNAL = "journal.log"
PATIENCE = 600.0  # seconds that a database may be away
TRIES = 10  # at opening a database that many workers open for the first time at once
PAUSE = 2.0  # seconds between two tries

TROUBLE = (StorageInternalError, SQLAlchemyError)  # some of it is that the database is away

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

T = TypeVar("T")


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage of a sweep: at the URL, else the journal in its folder.

    Raises InputError for a URL that names no database, or one that cannot be reached.
    """
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    shown = masked(url)
    if url.startswith("sqlite"):
        notice(f"--storage {shown}: SQLite is not made for several writers; a journal file is")
    options = {} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for tries in reversed(range(TRIES)):
        try:
            return RDBStorage(driver(url), engine_kwargs=options)
        except ImportError as error:
            raise InputError(
                f"--storage {shown}: {error}; pip install 'mic-embeddings[postgresql]'"
            ) from None
        except (IntegrityError, ProgrammingError, StorageInternalError) as error:
            if away(error) or not tries:
                raise InputError(f"--storage {shown}: {reason(error)}") from None
            time.sleep(random.random())  # another worker was making the same tables
        except (SQLAlchemyError, ValueError) as error:
            raise InputError(f"--storage {shown}: {reason(error)}") from None
    raise AssertionError("unreachable")


def driver(url: str) -> str:
    """A URL with psycopg 3 as PostgreSQL's driver, where none is named.

    >>> driver("postgresql://me@db/sweeps"), driver("mysql+pymysql://me@db/sweeps")
    ('postgresql+psycopg://me@db/sweeps', 'mysql+pymysql://me@db/sweeps')
    """
    scheme, colon, rest = url.partition("://")
    names = ("postgresql", "postgres")
    return f"postgresql+psycopg{colon}{rest}" if scheme in names else url


def masked(url: str) -> str:
    """A URL without its password.

    >>> masked("postgresql://me:secret@db:5432/sweeps"), masked("sqlite:///x.db")
    ('postgresql://me:***@db:5432/sweeps', 'sqlite:///x.db')
    """
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def patiently(call: Callable[[], T], patience: float = PATIENCE) -> T:
    """What a call to the storage returns, tried again while the database is away.

    The call must be one that may be made twice. Raises RunError when it stays away.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            found = call()
        except TROUBLE as error:
            if not away(error):
                raise
            if time.monotonic() - began > patience:
                raise RunError(f"the sweep's storage is away: {reason(error)}") from error
            if not said:
                notice(f"the sweep's storage is away, trying again: {reason(error)}")
            said = True
            time.sleep(PAUSE)
        else:
            if said:
                notice("the sweep's storage is there again")
            return found


def away(error: BaseException | None) -> bool:
    """Whether an error is of a connection, and not of what was asked."""
    while error is not None:
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or type(error).__name__ in (
                "OperationalError",
                "InterfaceError",
            )
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """The first line of what the database itself said."""
    while isinstance(error, SQLAlchemyError | StorageInternalError) and (
        inner := getattr(error, "orig", None) or error.__cause__
    ):
        error = inner
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
