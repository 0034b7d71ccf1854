"""A drain: no session of the server's role works, so that a migration has the tables for itself."""

from __future__ import annotations

from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server.database.admission import DRAIN_LOCK
from mlflow_aws_server.limits import QUESTION_TIME
from mlflow_aws_server.progress import Patience

GRACE_SECONDS = float(QUESTION_TIME.most)
"""As long as one statement may take; no transaction of the server's takes longer than a few of them."""

# To end sessions takes moments; a database in trouble may need longer.
_END_SECONDS = 60.0
# Whoever waits for the lock keeps new sessions out; so that most of the time somebody does.
_WAIT = "250ms"

# An idle session may hold another lock, while S3 copies what is sealed.
_END = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity AS session
     WHERE datname = current_database() AND usename = %(server)s
       AND (%(all)s OR state = 'idle' AND (
             SELECT count(*) FROM pg_locks WHERE pid = session.pid AND locktype = 'advisory') < 2)
"""


def drain(owner: Connection, *, server: str, grace: float = GRACE_SECONDS) -> int:
    """Keep new sessions out, let the others finish within `grace` seconds, and end them.

    Lasts as long as the session `owner`, which must not be in a transaction. Returns how many were ended.

    Raises:
        TimeoutError: some would not end.
    """
    waiting = Patience("migrate", seconds=grace + _END_SECONDS, poll=0.0, phase="drain")
    ended = 0
    with owner.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (_WAIT,))
        while True:
            try:
                cursor.execute("SELECT pg_advisory_lock(%s)", (DRAIN_LOCK,))
            except errors.LockNotAvailable:
                cursor.execute(_END, {"server": server, "all": waiting.waited > grace})
                row = cursor.fetchone()
                ended += int(row[0]) if row else 0
            else:
                return ended
            if not waiting.wait("sessions of the server finish what they do"):
                raise TimeoutError(f"sessions of {server} would not end within {waiting.seconds:.0f} s")
