"""`gc`: what was deleted long enough ago goes, as `mlflow gc` has it, set-based and in batches.

A batch is one transaction that locks its rows, deletes their objects, then the rows. Killed in between, the
rows are there, still deleted, and the next run does the same again; nobody restores what is half gone, and a
pointer to nothing is seen by nobody.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_aws_server.cleanup import resting, rows
from mlflow_aws_server.cleanup.objects import CurrentObject, CurrentObjects, each_of
from mlflow_aws_server.cleanup.rows import PLACES_OF_TRACE
from mlflow_aws_server.cleanup.session import session
from mlflow_aws_server.progress import report
from mlflow_aws_server.s3 import s3_client
from mlflow_aws_server.sealing.places import Root
from mlflow_aws_server.settings import CleanupSettings

BATCH = 200

_DAY = 86_400_000

_RUNS = """SELECT run_uuid, ARRAY[artifact_uri] FROM runs
    WHERE lifecycle_stage = 'deleted' AND deleted_time <= %(before)s AND run_uuid > %(after)s
    ORDER BY run_uuid LIMIT %(batch)s FOR UPDATE"""
_MODELS = """SELECT model_id, ARRAY[artifact_location] FROM logged_models
    WHERE lifecycle_stage = 'deleted' AND last_updated_timestamp_ms <= %(before)s AND model_id > %(after)s
    ORDER BY model_id LIMIT %(batch)s FOR UPDATE"""
_EXPERIMENTS = """SELECT experiment_id FROM experiments
    WHERE lifecycle_stage = 'deleted' AND last_update_time < %(before)s ORDER BY experiment_id"""
_EXPERIMENT = """SELECT experiment_id::text, ARRAY[artifact_location] FROM experiments
    WHERE lifecycle_stage = 'deleted' AND last_update_time < %(before)s AND experiment_id = %(experiment)s
    FOR UPDATE"""
# Neither of these says when it was deleted: they go with their experiment.
_MODELS_OF = """SELECT model_id, ARRAY[artifact_location] FROM logged_models
    WHERE experiment_id = %(experiment)s AND model_id > %(after)s
    ORDER BY model_id LIMIT %(batch)s FOR UPDATE"""
_TRACES_OF = f"""SELECT request_id, {PLACES_OF_TRACE}
    FROM trace_info i WHERE experiment_id = %(experiment)s AND request_id > %(after)s
    ORDER BY request_id LIMIT %(batch)s FOR UPDATE"""  # noqa: S608 - a constant

Thing = tuple[str, list[str]]
"""An id, and where its artifacts are."""


@dataclass(kw_only=True)
class Collected:
    """What went, or would go; and what was kept."""

    dry_run: bool
    before: int
    rows: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    bytes: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    """Places that are not ours to empty."""

    def as_json(self) -> dict[str, object]:
        """For who started it."""
        return {
            "dry_run": self.dry_run,
            "deleted_before": self.before,
            "rows": dict(self.rows),
            "objects": self.objects,
            "bytes": self.bytes,
            "kept": self.kept,
            "elsewhere": self.elsewhere,
        }


def gc(settings: CleanupSettings, *, days: float, dry_run: bool) -> dict[str, object]:
    """Remove what was deleted at least `days` ago; returns what went and what was kept.

    Raises:
        OperationError: it ended early; what was not done yet, the next run does.
    """
    found = Collected(dry_run=dry_run, before=round(time.time() * 1000 - days * _DAY))
    root = Root.read(settings.artifact_root)
    objects = CurrentObjects(s3_client(settings.database.region), root, holds=settings.holds)
    with session(settings, "gc", readonly=dry_run) as connection:
        _Cleanup(connection, objects, found).all()
    return found.as_json()


class _Cleanup:
    def __init__(self, connection: Any, objects: CurrentObjects, found: Collected) -> None:
        self._connection, self._objects, self._found = connection, objects, found
        self._before = {"before": found.before, "batch": BATCH}
        # A dry run finds them again where a real one does not.
        self._gone: set[str] = set()

    def all(self) -> None:
        with self._connection.cursor() as cursor:
            self._batches(cursor, "runs", _RUNS, rests=resting.runs)
            self._batches(cursor, "logged_models", _MODELS, rests=resting.models)
            cursor.execute(_EXPERIMENTS, self._before)
            for (experiment,) in cursor.fetchall():
                self._experiment(cursor, experiment)

    def _experiment(self, cursor: Any, experiment: int) -> None:
        found = self._deleted(cursor, experiment)
        if found is None:
            return
        why = resting.on_experiment(cursor, experiment, found[1][0], gone=self._gone)
        self._connection.commit()
        if why:
            self._found.kept[f"experiments {experiment}"] = why
            return
        if (
            self._batches(cursor, "logged_models", _MODELS_OF, rests=resting.models, experiment=experiment)
            and self._batches(cursor, "traces", _TRACES_OF, experiment=experiment)
            and self._deleted(cursor, experiment)
        ):
            self._remove(cursor, "experiments", [found])

    def _deleted(self, cursor: Any, experiment: int) -> Thing | None:
        """The experiment, locked against its restoration; None if that came first."""
        cursor.execute(self._lockable(_EXPERIMENT), {**self._before, "experiment": experiment})
        found: Thing | None = cursor.fetchone()
        return found

    def _batches(
        self,
        cursor: Any,
        kind: str,
        query: str,
        *,
        rests: Callable[[Any, Sequence[str]], dict[str, str]] | None = None,
        experiment: int | None = None,
    ) -> bool:
        """Remove what the query finds, batch by batch; whether all of it went."""
        after, all_went = "", True
        while experiment is None or self._deleted(cursor, experiment):
            cursor.execute(self._lockable(query), {**self._before, "after": after, "experiment": experiment})
            things: list[Thing] = cursor.fetchall()
            if not things:
                self._connection.commit()
                return all_went
            after = things[-1][0]
            kept = rests(cursor, [each for each, _ in things]) if rests else {}
            self._found.kept |= {f"{kind} {each}": why for each, why in kept.items()}
            going = [each for each in things if each[0] not in kept and each[0] not in self._gone]
            all_went &= self._remove(cursor, kind, going) and not kept
        return False

    def _lockable(self, query: str) -> str:
        return query.partition("FOR UPDATE")[0] if self._found.dry_run else query

    def _remove(self, cursor: Any, kind: str, things: Sequence[Thing]) -> bool:
        """The objects, then the rows, of these; whether no legal hold kept one."""
        contents = dict(zip((each for each, _ in things), each_of(self._below, things), strict=True))
        held = {each: key for each, found in contents.items() if (key := self._objects.held(found))}
        ids = [each for each in contents if each not in held]
        objects = [one for each in ids for one in contents[each]]
        if self._found.dry_run:
            counted = rows.count(cursor, kind, ids)
        else:
            self._objects.delete(objects)
            counted = rows.delete(cursor, kind, ids)
        self._connection.commit()
        self._gone.update(ids)
        self._found.kept |= {f"{kind} {each}": f"legal hold on {key}" for each, key in held.items()}
        self._found.elsewhere += [
            uri for each, uris in things for uri in uris if self._objects.place(uri, each) is None
        ]
        self._found.rows += counted
        self._found.objects += len(objects)
        self._found.bytes += sum(each.size for each in objects)
        report("gc", phase=kind, went=len(ids), held=len(held), objects=len(objects))
        return not held

    def _below(self, thing: Thing) -> list[CurrentObject]:
        each, uris = thing
        places = [self._objects.place(uri, each) for uri in uris]
        return [
            found
            for place in places
            if place
            for found in self._objects.below(place)
            if self._gone.isdisjoint(found.key.split("/"))
        ]
