"""From the scratch schema into MLflow's own: claims renamed, rows copied set by set, all of them counted."""

from __future__ import annotations

from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from mlflow_aws_server.imports.archive import Archive
from mlflow_aws_server.imports.mapping import Mapping
from mlflow_aws_server.imports.scratch import SCHEMA
from mlflow_aws_server.imports.tables import ANY_OWNER, COPIED, TAGS, CopiedTable
from mlflow_aws_server.progress import report

# With what an earlier import renamed, so that no two names become one.
_RESERVED = r"^(imported\.)*mlflow_aws\."
_CLAIM = "imported."
_LONGEST_KEY = 250
# Statistics are worth their time from here on.
_MANY_ROWS = 10_000

Count = dict[str, int]


def rename_claims(cursor: Any) -> int:
    """Take every name that only this server writes from the source's tags; returns how many there were.

    What the source says of itself is kept, as `imported.mlflow_aws.…`, and judges nothing here.
    """
    renamed = 0
    for table, column in TAGS.items():
        parts = {"table": Identifier(SCHEMA, table), "key": Identifier(column)}
        cursor.execute(
            SQL(
                "UPDATE {table} SET {key} = left({claim} || {key}, {longest}) WHERE {key} ~ {reserved}"
            ).format(
                claim=Literal(_CLAIM), longest=Literal(_LONGEST_KEY), reserved=Literal(_RESERVED), **parts
            )
        )
        renamed += cursor.rowcount
    return renamed


def copy(cursor: Any, mapping: Mapping, *, root: str) -> dict[str, int]:
    """Insert what is not here; returns the rows of each table. Runs in the caller's transaction.

    Raises:
        psycopg2.IntegrityError: somebody made something of the same name or id meanwhile.
    """
    if mapping.adopted:
        cursor.execute(_ADOPT, {"root": f"{root.rstrip('/')}/"})
    owners = {table.owner for table in COPIED}
    copied = {}
    for table in COPIED:
        if table.owner == ANY_OWNER:
            cursor.execute(_NEW_IDS)
        copied[table.name] = _copy(cursor, table, is_owner=table.name in owners)
        if table.name == "experiments" and mapping.adopted:
            cursor.execute("INSERT INTO mlflow_import.new_experiments VALUES (0)")
        if copied[table.name] >= _MANY_ROWS:
            cursor.execute(SQL("ANALYZE {}").format(Identifier("public", table.name)))
            report("import", phase="copy", table=table.name, rows=copied[table.name])
    return copied


def _copy(cursor: Any, table: CopiedTable, *, is_owner: bool) -> int:
    columns = SQL(", ").join(map(Identifier, _columns(cursor, table.name)))
    names = SQL(table.referred_to_by)
    of_new: Composable = SQL("TRUE")
    if table.owner:
        link = table.link or ", ".join(f"t.{name}" for name in _NAMES[table.owner].split(", "))
        of_new = SQL("({}) IN (SELECT * FROM {})").format(SQL(link), _new(table.owner))
    insert = SQL("INSERT INTO {} ({}) SELECT {} FROM {} t WHERE {}{}").format(
        Identifier("public", table.name),
        columns,
        columns,
        Identifier(SCHEMA, table.name),
        of_new,
        # Nothing can be here of what belongs to a new row.
        SQL("" if table.owner and not table.link else " ON CONFLICT DO NOTHING"),
    )
    if is_owner:
        cursor.execute(
            SQL("CREATE UNLOGGED TABLE {} AS SELECT {} FROM {} LIMIT 0").format(
                _new(table.name), names, Identifier(SCHEMA, table.name)
            )
        )
        insert = SQL("WITH copied AS ({} RETURNING {}) INSERT INTO {} SELECT * FROM copied").format(
            insert, names, _new(table.name)
        )
    cursor.execute(insert)
    return int(cursor.rowcount)


def count(cursor: Any) -> dict[str, Count]:
    """Compare every row of the scratch schema with what is here, by its key and by all of its columns."""
    counts = {}
    for table in COPIED:
        first = table.key.split(", ")[0]
        columns = _columns(cursor, table.name)
        cursor.execute(
            SQL(
                "SELECT count(*), count(l.{first}),"
                " count(*) FILTER (WHERE ROW({s}) IS DISTINCT FROM ROW({l}))"
                " FROM {scratch} s LEFT JOIN {here} l USING ({key})"
            ).format(
                first=Identifier(first),
                s=_compared("s", columns),
                l=_compared("l", columns),
                scratch=Identifier(SCHEMA, table.name),
                here=Identifier("public", table.name),
                key=SQL(table.key),
            )
        )
        there, here, differing = cursor.fetchone()
        if there:
            counts[table.name] = {"there": there, "here": here, "differing": differing}
    return counts


def migrated(cursor: Any, read: Count, orphans: Count) -> Count:
    """How many rows MLflow's own migrations added to each table, or took from it."""
    changed = {}
    for table in COPIED:
        cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier(SCHEMA, table.name)))
        more = cursor.fetchone()[0] - read.get(table.name, 0) + orphans.get(table.name, 0)
        if more:
            changed[table.name] = int(more)
    return changed


def left_out(read: dict[str, int], source: Archive) -> dict[str, int]:
    """The rows of the tables that stay behind."""
    copied = {table.name for table in COPIED}
    loaded = {table: rows for table, rows in read.items() if table not in copied and rows}
    return {**loaded, **{table: rows for table, rows in source.left_out.items() if rows}}


def elsewhere(cursor: Any, root: str) -> dict[str, int]:
    """How many runs, models and experiments keep their files where this server reads nothing."""
    counts = {}
    for table, column in _PLACES.items():
        cursor.execute(
            SQL("SELECT count(*) FROM {} WHERE NOT starts_with({}, %s)").format(
                Identifier(SCHEMA, table), Identifier(column)
            ),
            (f"{root.rstrip('/')}/",),
        )
        if found := cursor.fetchone()[0]:
            counts[table] = found
    return counts


def advance_sequence(cursor: Any, mapping: Mapping) -> None:
    """Let new experiments take ids after the imported ones. A rollback does not undo it, and need not."""
    if highest := max(mapping.experiments.values(), default=0):
        cursor.execute(_ADVANCE, {"id": highest})


def _columns(cursor: Any, table: str) -> dict[str, str]:
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER'"
        " ORDER BY ordinal_position",
        (table,),
    )
    return dict(cursor.fetchall())


def _compared(alias: str, columns: dict[str, str]) -> Composable:
    # JSON has no equality.
    return SQL(", ").join(
        SQL("{}::text" if kind == "json" else "{}").format(Identifier(alias, column))
        for column, kind in columns.items()
    )


def _new(table: str) -> Identifier:
    """Where the ids are of what was copied just now."""
    return Identifier(SCHEMA, f"new_{table}")


_PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
}
_NAMES = {table.name: table.referred_to_by for table in COPIED}
_ADVANCE = """
SELECT setval(pg_get_serial_sequence('public.experiments', 'experiment_id'),
              greatest(%(id)s, (SELECT max(experiment_id) FROM public.experiments), 1))
"""
# Nobody has used the one here: it becomes the source's, but for a place where this server writes nothing.
_ADOPT = """
UPDATE public.experiments l
   SET name = s.name, lifecycle_stage = s.lifecycle_stage, creation_time = s.creation_time,
       last_update_time = s.last_update_time,
       artifact_location = CASE WHEN starts_with(s.artifact_location, %(root)s)
                                THEN s.artifact_location ELSE l.artifact_location END
  FROM mlflow_import.experiments s WHERE l.experiment_id = 0 AND s.experiment_id = 0
"""
_NEW_IDS = """
CREATE TABLE mlflow_import.new_anything AS
    SELECT run_uuid::text AS id FROM mlflow_import.new_runs
    UNION ALL SELECT request_id FROM mlflow_import.new_trace_info
    UNION ALL SELECT model_id FROM mlflow_import.new_logged_models
    UNION ALL SELECT dataset_id FROM mlflow_import.new_evaluation_datasets
"""
