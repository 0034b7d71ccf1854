"""Compares a restored copy of the database with the living one, and asks MLflow's stores what it holds."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.sql import SQL, Identifier

from mlflow_aws_server import sample
from mlflow_aws_server.database import contents
from mlflow_aws_server.database.admission import admit_operation
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.progress import phase
from mlflow_aws_server.settings import DatabaseSettings

_APPLICATION = "mlflow-drill"
# When each row was written, in milliseconds, by a clock of the server or of a client.
_TIMES = {
    "experiments": "creation_time",
    "logged_models": "creation_timestamp_ms",
    "metrics": "timestamp",
    "model_versions": "creation_time",
    "registered_models": "creation_time",
    "runs": "start_time",
    "trace_info": "timestamp_ms",
}
# Clients' clocks, and rows that wait for their transaction's end.
_TOLERANCE_MS = 60_000


def drill(
    living: DatabaseSettings, restored: DatabaseSettings, *, user: str, artifact_root: str, at: int
) -> dict[str, object]:
    """Compare; `at` is the time that was restored, in milliseconds. Reads every row of both once.

    Raises:
        OperationError: a database could not be read to its end.
    """
    try:
        return _compare(living, restored, user=user, artifact_root=artifact_root, at=at)
    except (psycopg2.Error, NoCredentialsError) as error:
        cause = " ".join(str(error).split())
        raise OperationError(f"the drill ended early: {cause}. Run it again.") from error


def _compare(
    living: DatabaseSettings, restored: DatabaseSettings, *, user: str, artifact_root: str, at: int
) -> dict[str, object]:
    with closing(_reader(living, user)) as now, closing(_reader(restored, user)) as then:
        admit_operation(now)
        with phase("rows", event="drill") as details:
            here, there = contents.read(now), contents.read(then)
            details["rows"] = sum(each.rows for each in there.values())
        until = at - _TOLERANCE_MS
        tables = [
            {
                "table": name,
                "living": here[name].rows if name in here else None,
                "restored": there[name].rows if name in there else None,
                "same": here.get(name) == there.get(name),
                "missing": _missing(now, then, name, until) if name in here and name in there else None,
            }
            for name in sorted({*here, *there})
        ]
        newest = {"living": _newest(now, here), "restored": _newest(then, there)}
        with phase("sample", event="drill") as details:
            stored = sample.as_stored(then)
            details["answers"] = len(stored)
        model = _newest_model(then)
    with phase("answers", event="drill"):
        told = sample.as_told(
            stored,
            store_uri=store_uri(restored, user, application_name=_APPLICATION),
            artifact_root=artifact_root,
        )
    return {
        "newest": newest,
        "rpo_seconds": round((newest["living"] - newest["restored"]) / 1000, 1),
        "tables": tables,
        "answers": len(stored),
        "model": model,
        "differences": [
            *(
                f"{each['table']}: {each['missing']} rows from before that time are missing"
                for each in tables
                if each["missing"]
            ),
            *(f"{each['table']}: it is not there" for each in tables if each["restored"] is None),
            *(f"{each}: MLflow tells it differently" for each in stored if stored[each] != told[each]),
        ],
    }


def _reader(database: DatabaseSettings, user: str) -> Connection:
    opened = connect(database, user, application=_APPLICATION)
    opened.set_session(readonly=True, autocommit=True)
    with opened.cursor() as cursor:
        # The limits of the server's questions are for its callers.
        cursor.execute("SET statement_timeout = 0")
    return opened


def _missing(living: Connection, restored: Connection, table: str, until: int) -> int:
    if table not in _TIMES:
        return 0
    count = SQL("SELECT count(*) FROM {} WHERE {} <= %s").format(Identifier(table), Identifier(_TIMES[table]))
    return max(0, int(_one(living, count, until)) - int(_one(restored, count, until)))


def _newest(connection: Connection, tables: contents.Contents) -> int:
    """When the newest row was written; a client's clock may be ahead of ours."""
    latest = int(time.time() * 1000) + _TOLERANCE_MS
    found = (
        _one(
            connection,
            SQL("SELECT coalesce(max({time}), 0) FROM {table} WHERE {time} <= %s").format(
                time=Identifier(_TIMES[table]), table=Identifier(table)
            ),
            latest,
        )
        for table in _TIMES
        if table in tables
    )
    return max((int(each) for each in found), default=0)


def _newest_model(connection: Connection) -> dict[str, object] | None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT name, version, coalesce(storage_location, source) FROM model_versions
             WHERE coalesce(storage_location, source) LIKE 's3://%' AND current_stage <> 'Deleted_Internal'
             ORDER BY creation_time DESC LIMIT 1
            """
        )
        row = cursor.fetchone()
    return dict(zip(("name", "version", "files"), row, strict=True)) if row else None


def _one(connection: Connection, query: Any, *values: object) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        row = cursor.fetchone()
        assert row is not None  # noqa: S101
        return row[0]
