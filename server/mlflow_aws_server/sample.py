"""A sample of runs, models and answers of searches, from the tables and from MLflow's own stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

RUNS, MODELS, EXPERIMENTS, FOUND = 50, 25, 5, 100

Sample = Mapping[str, object]
"""What is told, by what it is told of, such as `run 0a1b…`; values compare by `==`."""


def as_stored(connection: Connection) -> Sample:
    """Read the sample from the tables, whatever MLflow made them: the newest, and others at random."""
    with connection.cursor() as cursor:
        tables = _Tables(cursor)
        return {**dict(tables.runs()), **dict(tables.models()), **dict(tables.answers())}


def as_told(stored: Sample, *, store_uri: str, artifact_root: str) -> Sample:
    """Ask MLflow's stores the same."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    stores = _Stores(Tracking(store_uri, artifact_root), Registry(store_uri))
    return {question: stores.tell(question) for question in stored}


class _Tables:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._there = {name for (name,) in self._rows("SELECT tablename FROM pg_tables")}

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(query, values)
        return list(self._cursor.fetchall())

    def runs(self) -> Iterator[tuple[str, object]]:
        chosen = self._rows(
            """
            (SELECT run_uuid FROM runs ORDER BY start_time DESC NULLS LAST LIMIT %s)
            UNION (SELECT run_uuid FROM runs ORDER BY md5(run_uuid) LIMIT %s)
            """,
            RUNS // 2,
            RUNS // 2,
        )
        for (run,) in chosen:
            (row,) = self._rows(
                """
                SELECT experiment_id::text, name, status, start_time, end_time, lifecycle_stage, user_id,
                       artifact_uri
                  FROM runs WHERE run_uuid = %s
                """,
                run,
            )
            metrics = self._rows(
                "SELECT key, CASE WHEN is_nan THEN 'NaN' ELSE value END, timestamp, step"
                " FROM latest_metrics WHERE run_uuid = %s",
                run,
            )
            yield (
                f"run {run}",
                {
                    "run": row,
                    "params": dict(self._rows("SELECT key, value FROM params WHERE run_uuid = %s", run)),
                    "tags": dict(self._rows("SELECT key, value FROM tags WHERE run_uuid = %s", run)),
                    "metrics": {key: (repr(value), at, step) for key, value, at, step in metrics},
                },
            )

    def models(self) -> Iterator[tuple[str, object]]:
        for (name,) in self._rows(
            # A filter cannot quote a quote.
            "SELECT name FROM registered_models WHERE position(chr(39) IN name) = 0"
            " ORDER BY last_updated_time DESC, name LIMIT %s",
            MODELS,
        ):
            versions = self._rows(
                "SELECT version, current_stage, source, run_id, status, coalesce(description, '')"
                "  FROM model_versions WHERE name = %s AND current_stage <> 'Deleted_Internal'",
                name,
            )
            aliases = (
                self._rows("SELECT alias, version FROM registered_model_aliases WHERE name = %s", name)
                if "registered_model_aliases" in self._there
                else []
            )
            tags = self._rows(
                """
                SELECT t.version, t.key, t.value FROM model_version_tags t
                  JOIN model_versions v ON v.name = t.name AND v.version = t.version
                 WHERE t.name = %s AND v.current_stage <> 'Deleted_Internal'
                """,
                name,
            )
            yield (
                f"model {name}",
                {
                    "versions": sorted((int(number), *rest) for number, *rest in versions),
                    "tags": sorted((int(number), *rest) for number, *rest in tags),
                    "aliases": {alias: int(version) for alias, version in aliases},
                },
            )

    def answers(self) -> Iterator[tuple[str, object]]:
        ids = self._rows("SELECT experiment_id::text FROM experiments WHERE lifecycle_stage = 'active'")
        yield "experiments", {each for (each,) in ids}
        for (experiment,) in self._rows(
            """
            SELECT experiment_id::text FROM runs WHERE lifecycle_stage = 'active'
             GROUP BY experiment_id ORDER BY count(*) DESC, experiment_id LIMIT %s
            """,
            EXPERIMENTS,
        ):
            yield f"search {experiment} ", self._found(experiment)
            for key, value in self._rows(
                """
                SELECT key, percentile_disc(0.5) WITHIN GROUP (ORDER BY value)
                  FROM latest_metrics JOIN runs USING (run_uuid)
                 WHERE experiment_id = %s::int AND key ~ '^\\w+$' AND NOT is_nan AND abs(value) < 1e100
                 GROUP BY key ORDER BY count(*) DESC, key LIMIT 1
                """,
                experiment,
            ):
                yield (
                    f"search {experiment} metrics.{key} >= {value!r}",
                    self._found(
                        experiment,
                        "AND EXISTS (SELECT FROM latest_metrics m WHERE m.run_uuid = runs.run_uuid"
                        " AND m.key = %s AND m.value >= %s AND NOT m.is_nan)",
                        key,
                        value,
                    ),
                )
            for key, value in self._rows(
                """
                SELECT key, value FROM params JOIN runs USING (run_uuid)
                 WHERE experiment_id = %s::int AND key ~ '^\\w+$' AND value ~ '^[\\w.-]+$'
                 GROUP BY key, value ORDER BY count(*) DESC, key, value LIMIT 1
                """,
                experiment,
            ):
                yield (
                    f"search {experiment} params.{key} = '{value}'",
                    self._found(
                        experiment,
                        "AND EXISTS (SELECT FROM params p WHERE p.run_uuid = runs.run_uuid"
                        " AND p.key = %s AND p.value = %s)",
                        key,
                        value,
                    ),
                )

    def _found(self, experiment: str, condition: str = "", *values: object) -> list[str]:
        found = self._rows(
            # Nothing but the two conditions above.
            f"""
            SELECT run_uuid FROM runs WHERE experiment_id = %s::int AND lifecycle_stage = 'active' {condition}
             ORDER BY start_time DESC NULLS LAST, run_uuid LIMIT %s
            """,  # noqa: S608
            experiment,
            *values,
            FOUND,
        )
        return [run for (run,) in found]


class _Stores:
    def __init__(self, tracking: Any, registry: Any) -> None:
        self._tracking, self._registry = tracking, registry

    def tell(self, question: str) -> object:
        kind, _, what = question.partition(" ")
        try:
            return getattr(self, f"_{kind}")(what)
        except Exception as error:
            # A difference like any other: what was there cannot be told.
            return f"{type(error).__name__}: {error}"

    def _run(self, run_id: str) -> object:
        run = self._tracking.get_run(run_id)
        info, data = run.info, run.data
        latest = {each.key: each for each in data._metric_objs}
        return {
            "run": (
                info.experiment_id,
                info.run_name,
                info.status,
                info.start_time,
                info.end_time,
                info.lifecycle_stage,
                info.user_id,
                info.artifact_uri,
            ),
            "params": dict(data.params),
            "tags": dict(data.tags),
            "metrics": {key: (repr(each.value), each.timestamp, each.step) for key, each in latest.items()},
        }

    def _model(self, name: str) -> object:
        versions: list[Any] = []
        token = None
        while True:
            page = self._registry.search_model_versions(
                f"name = '{name}'", max_results=1000, page_token=token
            )
            versions += page
            if not (token := page.token):
                break
        return {
            "versions": sorted(
                (
                    int(each.version),
                    each.current_stage,
                    each.source,
                    each.run_id,
                    each.status,
                    each.description or "",
                )
                for each in versions
            ),
            "tags": sorted(
                (int(each.version), key, value) for each in versions for key, value in each.tags.items()
            ),
            "aliases": {
                alias: int(version)
                for alias, version in self._registry.get_registered_model(name).aliases.items()
            },
        }

    def _experiments(self, _: str) -> object:
        found: set[str] = set()
        token = None
        while True:
            page = self._tracking.search_experiments(max_results=1000, page_token=token)
            found |= {each.experiment_id for each in page}
            if not (token := page.token):
                return found

    def _search(self, what: str) -> Sequence[str]:
        from mlflow.entities import ViewType

        experiment, _, question = what.partition(" ")
        found = self._tracking.search_runs([experiment], question, ViewType.ACTIVE_ONLY, max_results=FOUND)
        return [each.info.run_id for each in found]
