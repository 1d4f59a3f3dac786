"""Open Optuna's storage of a sweep and read it: a journal file in its folder, or any database.

A database may be restarted under a running sweep: calls that fail for that reason are repeated.
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
from mic.sweep.queue.state import Attempt, Outcome

JOURNAL = "journal.log"
PATIENCE = 600.0  # seconds that a database may be away
TRIES = 10  # to open a database that many workers open for the first time at once
PAUSE = 2.0  # seconds between two tries

STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError)  # also when the database is away

OPTUNA_STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
SETTING_STATES = {
    TrialState.RUNNING: "open",
    TrialState.WAITING: "open",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
OUTCOMES: Mapping[TrialState, tuple[Outcome, ...]] = {
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
    shown = mask_password(url)
    if url.startswith("sqlite"):
        notice(f"--storage {shown}: SQLite is not made for several writers; a journal file is")
    options = {} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for tries in reversed(range(TRIES)):
        try:
            return RDBStorage(with_driver(url), engine_kwargs=options)
        except ImportError as error:
            raise InputError(
                f"--storage {shown}: {error}; pip install 'mic-embeddings[postgresql]'"
            ) from None
        except (IntegrityError, ProgrammingError, StorageInternalError) as error:
            if is_away(error) or not tries:
                raise InputError(f"--storage {shown}: {error_text(error)}") from None
            time.sleep(random.random())  # another worker was making the same tables
        except (SQLAlchemyError, ValueError) as error:
            raise InputError(f"--storage {shown}: {error_text(error)}") from None
    raise AssertionError("unreachable")


def with_driver(url: str) -> str:
    """A URL with psycopg 3 as PostgreSQL's driver, unless it names one.

    >>> with_driver("postgresql://me@db/sweeps"), with_driver("mysql+pymysql://me@db/sweeps")
    ('postgresql+psycopg://me@db/sweeps', 'mysql+pymysql://me@db/sweeps')
    """
    scheme, colon, rest = url.partition("://")
    names = ("postgresql", "postgres")
    return f"postgresql+psycopg{colon}{rest}" if scheme in names else url


def mask_password(url: str) -> str:
    """A URL without its password.

    >>> mask_password("postgresql://me:secret@db:5432/sweeps"), mask_password("sqlite:///x.db")
    ('postgresql://me:***@db:5432/sweeps', 'sqlite:///x.db')
    """
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def retry_while_away(call: Callable[[], T], patience: float = PATIENCE) -> T:
    """Return the result of a call to the storage, repeated while the database is away.

    The call must be safe to make twice. Raises RunError when the database stays away for `patience`
    seconds.
    """
    began, reported = time.monotonic(), False
    while True:
        try:
            result = call()
        except STORAGE_ERRORS as error:
            if not is_away(error):
                raise
            if time.monotonic() - began > patience:
                raise RunError(f"the sweep's storage is away: {error_text(error)}") from error
            if not reported:
                notice(f"the sweep's storage is away, trying again: {error_text(error)}")
            reported = True
            time.sleep(PAUSE)
        else:
            if reported:
                notice("the sweep's storage is there again")
            return result


def is_away(error: BaseException | None) -> bool:
    """Whether an error is one of the connection, and not of the request."""
    while error is not None:
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or type(error).__name__ in (
                "OperationalError",
                "InterfaceError",
            )
        error = error.__cause__ or error.__context__
    return False


def error_text(error: BaseException) -> str:
    """The first line of the database's own message."""
    while isinstance(error, SQLAlchemyError | StorageInternalError) and (
        inner := getattr(error, "orig", None) or error.__cause__
    ):
        error = inner
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def frozen_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All Optuna trials of a study, by their numbers."""
    return retry_while_away(lambda: study.get_trials(deepcopy=False))


def read_attempt(frozen: FrozenTrial) -> Attempt:
    """The attempt that an Optuna trial stands for.

    When two workers ended it at the same time, one of which took it for lost, the Optuna trial's
    state says which of them was first.
    """
    stored = frozen.user_attrs
    outcome = next((name for name in OUTCOMES[frozen.state] if f"how/{name}" in stored), None)
    end = stored.get(f"how/{outcome}", {})
    return Attempt(
        number=frozen.number,
        setting=stored["setting"],
        seed=stored["seed"],
        place=stored["place"],
        worker=stored["worker"],
        worker_process=stored["worker_process"],
        beat=stored.get("beat", 0),
        process=stored.get("process", ""),
        outcome=outcome,
        began=stored["began"],
        seconds=end.get("seconds", 0.0),
        values=tuple(end.get("values", ())),
        lines=tuple(end.get("lines", ())),
    )
