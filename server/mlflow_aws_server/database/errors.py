"""What clients may know of a database's error; the rest is in the log, under the reference in the answer."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping

import psycopg2
from sqlalchemy import event, exc
from sqlalchemy.engine import Engine, ExceptionContext

from mlflow_aws_server.database.admission import SessionRefusedError
from mlflow_aws_server.limits import LOCK_TIME, QUESTION_TIME, WRITE_TIME, OutOfTimeError
from mlflow_aws_server.metrics import METRICS

_logger = logging.getLogger(__name__)

_QUERY_CANCELED = "57014"
_LONGEST_LINE = 4000

_UNSTORABLE = (
    "A value is too long, out of range, of another type, or has characters that the database does not accept."
)
_UNAVAILABLE = "The database cannot be reached at the moment. Nothing was written; send the call again."

_Kind = type[exc.DBAPIError]

# By SQLSTATE, or its class. MLflow answers an OperationalError with 503, which its client sends again, and
# all others with 400; so what is nobody's fault, or passes, has to be one, and what comes back has not.
_KINDS: Mapping[str, tuple[_Kind | None, str]] = {
    "2201B": (None, "The regular expression is not valid."),
    "22": (None, _UNSTORABLE),
    "23503": (None, "The request names something that does not exist."),
    "23505": (None, "There is such a record already."),
    "23": (None, "A value is missing, or none of those that are allowed."),
    # After a failover, the endpoint's name still resolved to the former primary.
    "25006": (exc.OperationalError, _UNAVAILABLE),
    "40": (
        exc.OperationalError,
        "Other calls changed the same data. Nothing was written; send the call again.",
    ),
    # A migration is running, or has not yet run.
    "42501": (exc.OperationalError, _UNAVAILABLE),
    "42703": (exc.OperationalError, _UNAVAILABLE),
    "42P01": (exc.OperationalError, _UNAVAILABLE),
    "42": (None, _UNSTORABLE),
    "54": (exc.DataError, "The request is too long or too complex for the database."),
    "55P03": (exc.OperationalError, OutOfTimeError(LOCK_TIME).message),
}


def is_out_of_time(error: BaseException) -> bool:
    """Whether the database ended a statement at the role's time limit.

    It was not cancelled by an administrator, nor by a reader that has to follow its writer.
    """
    # asyncpg and psycopg2 each have a name for it; PostgreSQL has one SQLSTATE for all that cancels.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state == _QUERY_CANCELED and "statement timeout" in str(error)


def conceal() -> None:
    """From now on, errors of SQLAlchemy in this process hold no SQL, no parameters and no driver's words."""
    event.listen(Engine, "handle_error", _concealed)


def reveal() -> None:
    """End it."""
    event.remove(Engine, "handle_error", _concealed)


def _concealed(context: ExceptionContext) -> BaseException | None:
    original = context.original_exception
    # A pool that looks whether its connection is alive replaces it.
    if context.is_pre_ping or not isinstance(original, Exception):
        return None
    seen = context.sqlalchemy_exception
    kind, message = _explained(original, context.statement or "")
    kind = kind or (type(seen) if isinstance(seen, exc.DBAPIError) else exc.DataError)
    reference = secrets.token_hex(4)
    is_news = kind is exc.OperationalError and not isinstance(original, SessionRefusedError)
    if is_news:
        METRICS.add("DatabaseErrors")
    level = logging.ERROR if is_news else logging.INFO
    _logger.log(level, "database error, reference %s: %s", reference, str(seen or original)[:_LONGEST_LINE])
    error = kind(None, None, original, connection_invalidated=context.is_disconnect)
    error.args = (f"{message} Reference: {reference}.",)
    # Otherwise it would be followed by a link to SQLAlchemy's documentation, and by advice to programmers.
    error.code = None  # type: ignore[assignment]
    error.add_detail = _ignore  # type: ignore[assignment, method-assign]
    return error


def _ignore(_detail: str) -> None:
    pass


def _explained(original: Exception, statement: str) -> tuple[_Kind | None, str]:
    if isinstance(original, SessionRefusedError):
        return exc.OperationalError, str(original)
    if is_out_of_time(original):
        # To send a write again is safe and may help; nothing else becomes faster by being repeated.
        if statement.lstrip()[:6].upper() in ("INSERT", "UPDATE"):
            return exc.OperationalError, OutOfTimeError(WRITE_TIME).message
        return exc.DataError, OutOfTimeError(QUESTION_TIME).message
    state = getattr(original, "pgcode", None)
    if state is not None:
        return _KINDS.get(state) or _KINDS.get(state[:2]) or (exc.OperationalError, _UNAVAILABLE)
    if isinstance(original, (psycopg2.OperationalError, psycopg2.InterfaceError)):
        return exc.OperationalError, _UNAVAILABLE
    # The driver could not write the value.
    return None, _UNSTORABLE
