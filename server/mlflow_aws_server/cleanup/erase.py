"""`erase`: what a person, a run, an experiment or a data set left here goes, deleted before or not.

In two acts. `plan` only reads: what there is, where its files are, and what stays. Then the operator's
command, under the break-glass role, writes a request into S3, where nobody else can, and deletes every
version of the files. `remove` reads the request from S3 itself, and deletes the rows of what has no version
of a file left. What was interrupted is done again in the same way, and a lock on a file keeps its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_aws_server.cleanup import resting, rows
from mlflow_aws_server.cleanup.objects import CurrentObjects, each_of
from mlflow_aws_server.cleanup.rows import PLACES_OF_TRACE
from mlflow_aws_server.cleanup.session import session
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.progress import report
from mlflow_aws_server.s3 import s3_client
from mlflow_aws_server.sealing.places import Prefix, Root
from mlflow_aws_server.settings import CleanupSettings

MOST = 5_000
"""Things of one request: the plan passes through a log."""
BATCH = 200

# What belongs to others goes before them: a request that is cut still finds the rest by what it belongs to.
KINDS = (
    "evaluation_dataset_records", "assessments", "evaluation_datasets", "traces", "logged_models", "runs",
    "experiments",
)  # fmt: skip


def _with_metadata(key: str) -> str:
    return f"SELECT request_id FROM trace_request_metadata WHERE key = '{key}' AND value = %(value)s"  # noqa: S608


def _by_author(table: str, own: str, key: str, value: str) -> str:
    """The verified principal; for what has none, because it was imported, whom MLflow names."""
    return f"""SELECT t.{own} FROM {table} t
        WHERE t.{key} IN ('mlflow_aws.principal', 'mlflow.user') AND t.{value} = %(value)s
          AND NOT EXISTS (SELECT FROM {table} p WHERE p.{own} = t.{own}
                             AND p.{key} = 'mlflow_aws.principal' AND p.{value} <> %(value)s)"""  # noqa: S608


WHAT: Mapping[str, Mapping[str, str]] = {
    "run": {"runs": "SELECT run_uuid FROM runs WHERE run_uuid = %(value)s"},
    "experiment": {
        kind: f"SELECT {own} FROM {table} WHERE experiment_id::text = %(value)s"  # noqa: S608
        for kind, table, own in (
            ("runs", "runs", "run_uuid"),
            ("logged_models", "logged_models", "model_id"),
            ("traces", "trace_info", "request_id"),
            ("experiments", "experiments", "experiment_id::text"),
        )
    },
    "author": {
        "runs": _by_author("tags", "run_uuid", "key", "value"),
        "logged_models": _by_author("logged_model_tags", "model_id", "tag_key", "tag_value"),
        "traces": _with_metadata("mlflow.user"),
        "assessments": "SELECT assessment_id FROM assessments WHERE source_id = %(value)s",
        "evaluation_dataset_records": "SELECT dataset_record_id FROM evaluation_dataset_records"
        " WHERE created_by = %(value)s",
    },
    "dataset": {
        "runs": "SELECT destination_id FROM inputs JOIN datasets ON dataset_uuid = source_id"
        " WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND %(value)s IN (name, digest)",
        "evaluation_datasets": "SELECT dataset_id FROM evaluation_datasets"
        " WHERE %(value)s IN (name, digest, dataset_id)",
    },
    "trace_user": {"traces": _with_metadata("mlflow.trace.user")},
    "trace_session": {
        "traces": _with_metadata("mlflow.trace.session")  # noqa: S608 - constants
        + " UNION SELECT request_id FROM trace_info WHERE session_id = %(value)s"
    },
}
"""What one may ask for, and by which query each kind of thing is found."""

# What was made of these goes with them.
_MODELS_OF_RUNS = "SELECT model_id FROM logged_models WHERE source_run_id = ANY(%(ids)s)"
_TRACES_OF_RUNS = (
    "SELECT request_id FROM trace_request_metadata WHERE key = 'mlflow.sourceRun' AND value = ANY(%(ids)s)"
)
_RECORDS_OF_TRACES = (
    "SELECT dataset_record_id FROM evaluation_dataset_records"
    " WHERE source_type = 'TRACE' AND source_id = ANY(%(ids)s)"
)
_PLACES = {
    "runs": "SELECT run_uuid, ARRAY[artifact_uri] FROM runs WHERE run_uuid = ANY(%(ids)s)",
    "logged_models": "SELECT model_id, ARRAY[artifact_location] FROM logged_models"
    " WHERE model_id = ANY(%(ids)s)",
    "traces": f"SELECT request_id, {PLACES_OF_TRACE} FROM trace_info i WHERE request_id = ANY(%(ids)s)",  # noqa: S608
    "experiments": "SELECT experiment_id::text, ARRAY[artifact_location] FROM experiments"
    " WHERE experiment_id::text = ANY(%(ids)s)",
}
_ON_SEALED = """SELECT name, version FROM model_versions WHERE current_stage <> 'Deleted_Internal'
    AND (starts_with(storage_location, %(place)s) OR starts_with(source, %(place)s)) LIMIT 1"""
_IN_EXPERIMENT = """SELECT (SELECT count(*) FROM logged_models WHERE experiment_id = %(id)s)
    + (SELECT count(*) FROM trace_info WHERE experiment_id = %(id)s)"""

Things = dict[str, dict[str, list[str]]]
"""By kind and id: what the keys of its objects begin with."""


def plan(settings: CleanupSettings, *, what: str, value: str) -> dict[str, object]:
    """Find what would go, its rows and its places, and what stays and why; change nothing.

    Raises:
        OperationError: it ended early.
    """
    with session(settings, "erase", readonly=True) as connection, connection.cursor() as cursor:
        return _Plan(cursor, settings).of(WHAT[what], value)


class _Plan:
    def __init__(self, cursor: Any, settings: CleanupSettings) -> None:
        self._cursor = cursor
        self._root = Root.read(settings.artifact_root)
        self._objects = CurrentObjects(s3_client(settings.database.region), self._root, holds=settings.holds)
        self._kept: dict[str, str] = {}
        self._elsewhere: list[str] = []

    def of(self, queries: Mapping[str, str], value: str) -> dict[str, object]:
        found = {kind: self._ids(queries[kind], value=value) if kind in queries else set() for kind in KINDS}
        self._keep("runs", found["runs"], resting.runs(self._cursor, sorted(found["runs"])))
        found["logged_models"] |= self._ids(_MODELS_OF_RUNS, ids=sorted(found["runs"]))
        models = sorted(found["logged_models"])
        self._keep("logged_models", found["logged_models"], resting.models(self._cursor, models))
        found["traces"] |= self._ids(_TRACES_OF_RUNS, ids=sorted(found["runs"]))
        found["evaluation_dataset_records"] |= self._ids(_RECORDS_OF_TRACES, ids=sorted(found["traces"]))
        things, more = self._first(found)
        self._add_sealed(things)
        self._keep("experiments", things["experiments"], self._experiments(things))
        return {
            "things": {kind: each for kind, each in things.items() if each},
            "rows": dict(rows.tally(self._cursor, {kind: list(each) for kind, each in things.items()})),
            "kept": self._kept,
            "elsewhere": self._elsewhere,
            "more": more,
        }

    def _ids(self, query: str, **values: object) -> set[str]:
        self._cursor.execute(query, values)
        return {each for (each,) in self._cursor}

    def _keep(self, kind: str, found: set[str] | dict[str, list[str]], why: Mapping[str, str]) -> None:
        for each, reason in why.items():
            self._kept[f"{kind} {each}"] = reason
            if isinstance(found, set):
                found.discard(each)
            else:
                found.pop(each, None)

    def _first(self, found: Mapping[str, set[str]]) -> tuple[Things, bool]:
        """As many as a request may have, each with its places, and whether there are more."""
        things: Things = {}
        room = MOST
        for kind in KINDS:
            ids = sorted(found[kind])[:room]
            room -= len(ids)
            things[kind] = {each: [] for each in ids}
            if kind in _PLACES:
                self._cursor.execute(_PLACES[kind], {"ids": ids})
                for each, uris in self._cursor.fetchall():
                    places = [self._objects.place(uri, each) for uri in uris]
                    things[kind][each] = [place.inside for place in places if place]
                    self._elsewhere += [uri for uri, place in zip(uris, places, strict=True) if not place]
        return things, sum(map(len, found.values())) > MOST

    def _add_sealed(self, things: Things) -> None:
        """The sealed copies of what goes, which a deleted version has left, go with it.

        A copy of a copy too; one that a version rests on keeps what it was made from.
        """
        copies = self._objects.sealed_copies()
        owners = {
            place: (kind, each)
            for kind, of in things.items()
            for each, places in of.items()
            for place in places
        }
        while True:
            made = {copy: place for copy, source in copies.items() if (place := _holding(owners, source))}
            if not made:
                return
            for copy, place in made.items():
                del copies[copy]
                kind, each = owners[place]
                self._cursor.execute(_ON_SEALED, {"place": f"s3://{self._root.prefix.bucket}/{copy}"})
                if version := self._cursor.fetchone():
                    why = "version {1} of the model {0!r} rests on a sealed copy of it".format(*version)
                    self._keep(kind, things[kind], {each: why})
                elif each in things[kind]:
                    # Without a slash: the manifest lies beside it.
                    things[kind][each].append(copy)
                    owners[f"{copy}/"] = kind, each

    def _experiments(self, things: Things) -> dict[str, str]:
        """Those of the experiments that something keeps."""
        kept = {}
        for each in things["experiments"]:
            self._cursor.execute(_PLACES["experiments"], {"ids": [each]})
            ((_, (place,)),) = self._cursor.fetchall()
            if why := resting.on_experiment(self._cursor, int(each), place, gone=things["runs"]):
                kept[each] = why
        return kept


def _holding(owners: Mapping[str, object], source: str) -> str | None:
    """The place that a source is in."""
    found = Prefix.read(source)
    steps = found.key.split("/") if found else []
    places = ("/".join(steps[:depth]) + "/" for depth in range(len(steps), 0, -1))
    return next((place for place in places if place in owners), None)


def remove(settings: CleanupSettings, *, request: str, sha256: str) -> dict[str, object]:
    """Delete the rows of what a request names and has no object left; tell what of it is still there.

    Raises:
        OperationError: there is no such request, or it ended early; run again, it goes on.
    """
    root = Root.read(settings.artifact_root)
    objects = CurrentObjects(s3_client(settings.database.region), root, holds=settings.holds)
    kept: dict[str, str] = {}
    with session(settings, "erase", readonly=False) as connection, connection.cursor() as cursor:
        raw = objects.read(f"{root.prefix.inside}erasures/{request}/request.json")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise OperationError(
                f"the request {request} is not the one that was asked for; no row was deleted"
            )
        things: Things = json.loads(raw)["things"]
        for kind in (kind for kind in KINDS if kind in things):
            ids = sorted(things[kind])
            for first in range(0, len(ids), BATCH):
                chunk = ids[first : first + BATCH]
                why = _kept(cursor, objects, kind, {each: things[kind][each] for each in chunk})
                kept |= {f"{kind} {each}": reason for each, reason in why.items()}
                deleted = rows.delete(cursor, kind, [each for each in chunk if each not in why])
                connection.commit()
                report("erase", phase=kind, rows=sum(deleted.values()), kept=len(why))
        left: Counter[str] = rows.tally(cursor, {kind: list(of) for kind, of in things.items()})
    return {"kept": kept, "rows_left": dict(left)}


def _kept(
    cursor: Any, objects: CurrentObjects, kind: str, things: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """What of these still has an object, or is needed by now; the rows of all are locked."""
    ids = list(things)
    table, condition = rows.TABLES[kind][-1]
    cursor.execute(f"SELECT FROM {table} WHERE {condition} FOR UPDATE", {"ids": ids})
    left = dict(zip(ids, each_of(objects.left, things.values()), strict=True))
    why = {each: f"{key} is still there" for each, key in left.items() if key}
    if kind == "runs":
        why |= resting.runs(cursor, ids)
    if kind == "logged_models":
        why |= resting.models(cursor, ids)
    if kind == "experiments":
        cursor.execute(_PLACES[kind], {"ids": ids})
        for each, (place,) in cursor.fetchall():
            reason = resting.on_experiment(cursor, int(each), place, gone=())
            cursor.execute(_IN_EXPERIMENT, {"id": int(each)})
            ((others,),) = cursor.fetchall()
            if reason or others:
                why[each] = reason or f"{others} logged models and traces stay"
    return why
