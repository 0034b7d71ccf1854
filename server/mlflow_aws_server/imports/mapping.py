"""Which ids and names of a source change here, remembered so that the next import of it maps the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extras import execute_values
from psycopg2.sql import SQL, Identifier

from mlflow_aws_server.imports.archive import Archive
from mlflow_aws_server.imports.scratch import SCHEMA
from mlflow_aws_server.imports.tables import COPIED, OF_MODELS

# A schema of its own: the server's role may write every table in MLflow's.
_MEMORY = """
CREATE SCHEMA IF NOT EXISTS mlflow_aws;
CREATE TABLE IF NOT EXISTS mlflow_aws.imports (
    source text, kind text, old text, new text, at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, kind, old))
"""
_EXPERIMENT, _NAME, _MODEL = "experiment", "name of experiment", "registered model"

# An id far beyond the others would use up the sequence that every new experiment takes its id from.
_LARGEST_KEPT_ID = 10**9
_DEFAULT = 0
# What makes the default experiment one that somebody uses.
_USES = ("runs", "trace_info", "logged_models", "datasets", "experiment_tags")
_LONGEST_NAME = 256


@dataclass(slots=True, kw_only=True)
class Mapping:
    """The id here of every experiment, and what the names become that are taken here."""

    experiments: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    adopted: bool = False
    """The source's default experiment becomes the one here, which nobody has used."""
    unused: bool = False
    """Nobody has used the source's default experiment: it stays behind."""

    @property
    def told(self) -> list[dict[str, object]]:
        """What changed, for people."""
        told: list[dict[str, object]] = []
        for old, new in self.experiments.items():
            name = {"name": self.names[old]} if old in self.names else {}
            if old != new or name:
                told.append({"experiment": old, "becomes": new, **name})
        told += [{"registered_model": old, "becomes": new} for old, new in self.models.items()]
        return told


def decide(cursor: Any, source: Archive) -> Mapping:
    """Keep every id and name that is free here, or was taken by an earlier import of this source."""
    cursor.execute(_MEMORY)
    cursor.execute("SELECT kind, old, new FROM mlflow_aws.imports WHERE source = %s", (source.source,))
    before = {(kind, old): new for kind, old, new in cursor.fetchall()}
    mapping = Mapping()
    _decide_experiments(cursor, source, before, mapping)
    _decide_models(cursor, source, before, mapping)
    return mapping


def _decide_experiments(
    cursor: Any, source: Archive, before: dict[tuple[str, str], str], mapping: Mapping
) -> None:
    here = dict(_rows(cursor, "SELECT experiment_id, name FROM public.experiments"))
    theirs = _rows(cursor, "SELECT experiment_id, name FROM mlflow_import.experiments ORDER BY 1")
    names = set(here.values())
    highest = max(*here, *(old for old, _ in theirs if old <= _LARGEST_KEPT_ID), _last_id(cursor), _DEFAULT)
    for old, name in theirs:
        known = before.get((_EXPERIMENT, str(old)))
        if known is not None and int(known) in here:
            mapping.experiments[old] = int(known)
            if (_NAME, str(old)) in before:
                mapping.names[old] = before[_NAME, str(old)]
            continue
        if old == _DEFAULT and not _is_used(cursor, SCHEMA):
            # Every MLflow has one.
            mapping.unused = True
            mapping.experiments[old] = old
            cursor.execute("DELETE FROM mlflow_import.experiments WHERE experiment_id = 0")
            continue
        if old == _DEFAULT and not _is_used(cursor, "public"):
            mapping.adopted = True
            mapping.experiments[old] = old
            names.discard(here[old])
        elif old in here or old > _LARGEST_KEPT_ID:
            highest += 1
            mapping.experiments[old] = highest
        else:
            mapping.experiments[old] = old
        if name in names:
            mapping.names[old] = name = _free(name, source.suffix, names)
        names.add(name)


def _decide_models(
    cursor: Any, source: Archive, before: dict[tuple[str, str], str], mapping: Mapping
) -> None:
    taken = {name for (name,) in _rows(cursor, "SELECT name FROM public.registered_models")}
    names = taken | {name for (name,) in _rows(cursor, "SELECT name FROM mlflow_import.registered_models")}
    for (name,) in _rows(cursor, "SELECT name FROM mlflow_import.registered_models ORDER BY 1"):
        known = before.get((_MODEL, name))
        if known is not None and known in taken:
            if known != name:
                mapping.models[name] = known
        elif name in taken:
            mapping.models[name] = _free(name, source.suffix, names)
            names.add(mapping.models[name])


def _free(name: str, suffix: str, taken: Iterable[str]) -> str:
    number = 1
    while True:
        ending = suffix if number == 1 else f"{suffix}-{number}"
        new = f"{name[: _LONGEST_NAME - len(ending)]}{ending}"
        if new not in taken:
            return new
        number += 1


def apply(cursor: Any, mapping: Mapping) -> None:
    """Change ids and names in the scratch schema, and the references to them."""
    cursor.execute("CREATE TABLE mlflow_import.mapped_experiments (old bigint, new bigint, name text)")
    cursor.execute("CREATE TABLE mlflow_import.mapped_models (old text, new text)")
    changed = [
        (old, new, mapping.names.get(old))
        for old, new in mapping.experiments.items()
        if old != new or old in mapping.names
    ]
    if changed:
        execute_values(cursor, "INSERT INTO mlflow_import.mapped_experiments VALUES %s", changed)
    if mapping.models:
        execute_values(cursor, "INSERT INTO mlflow_import.mapped_models VALUES %s", mapping.models.items())
    cursor.execute(
        "UPDATE mlflow_import.experiments t SET name = m.name FROM mlflow_import.mapped_experiments m"
        " WHERE t.experiment_id = m.old AND m.name IS NOT NULL"
    )
    cursor.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = %s"
        " AND column_name = 'experiment_id' AND table_name = ANY (%s)",
        (SCHEMA, [table.name for table in COPIED]),
    )
    for (table,) in cursor.fetchall():
        cursor.execute(
            SQL(
                "UPDATE {} t SET experiment_id = m.new FROM {} m"
                " WHERE t.experiment_id = m.old AND m.old <> m.new"
            ).format(Identifier(SCHEMA, table), Identifier(SCHEMA, "mapped_experiments"))
        )
    for table in OF_MODELS:
        cursor.execute(
            SQL("UPDATE {} t SET name = m.new FROM {} m WHERE t.name = m.old").format(
                Identifier(SCHEMA, table), Identifier(SCHEMA, "mapped_models")
            )
        )
    cursor.execute(_REFERENCES)
    cursor.execute(_SAME_DATASETS)


def remember(cursor: Any, source: Archive, mapping: Mapping) -> None:
    """So that the next import of this source finds what is here."""
    cursor.execute("SELECT name FROM mlflow_import.registered_models")
    models = {new: old for old, new in mapping.models.items()}
    rows = [
        *((_EXPERIMENT, str(old), str(new)) for old, new in mapping.experiments.items()),
        *((_NAME, str(old), new) for old, new in mapping.names.items()),
        *((_MODEL, models.get(name, name), name) for (name,) in cursor.fetchall()),
    ]
    if rows:
        execute_values(
            cursor,
            "INSERT INTO mlflow_aws.imports (source, kind, old, new) VALUES %s"
            " ON CONFLICT (source, kind, old) DO UPDATE SET new = excluded.new"
            " WHERE mlflow_aws.imports.new <> excluded.new",
            [(source.source, *row) for row in rows],
        )


def _rows(cursor: Any, query: str) -> list[Any]:
    cursor.execute(query)
    found: list[Any] = cursor.fetchall()
    return found


def _last_id(cursor: Any) -> int:
    cursor.execute(
        "SELECT pg_sequence_last_value(pg_get_serial_sequence('public.experiments', 'experiment_id'))"
    )
    return int(cursor.fetchone()[0] or 0)


def _is_used(cursor: Any, schema: str) -> bool:
    cursor.execute(
        SQL("SELECT {}").format(
            SQL(" OR ").join(
                SQL("EXISTS (SELECT FROM {} WHERE experiment_id = 0)").format(Identifier(schema, table))
                for table in _USES
            )
        )
    )
    return bool(cursor.fetchone()[0])


_REFERENCES = """
UPDATE mlflow_import.model_versions v
   SET source = 'models:/' || m.new || substr(v.source, length('models:/' || m.old) + 1)
  FROM mlflow_import.mapped_models m
 WHERE starts_with(v.source, 'models:/' || m.old || '/') OR starts_with(v.source, 'models:/' || m.old || '@');
UPDATE mlflow_import.entity_associations a SET destination_id = m.new::text
  FROM mlflow_import.mapped_experiments m
 WHERE a.destination_type = 'experiment' AND a.destination_id = m.old::text
"""
# A data set is its name and digest in an experiment: one that is here already keeps its id.
_SAME_DATASETS = """
CREATE TABLE mlflow_import.same_datasets AS
    SELECT s.dataset_uuid AS old, l.dataset_uuid AS new
      FROM mlflow_import.datasets s JOIN public.datasets l USING (experiment_id, name, digest)
     WHERE s.dataset_uuid <> l.dataset_uuid;
UPDATE mlflow_import.datasets t SET dataset_uuid = d.new FROM mlflow_import.same_datasets d
 WHERE t.dataset_uuid = d.old;
UPDATE mlflow_import.inputs t SET source_id = d.new FROM mlflow_import.same_datasets d
 WHERE t.source_type = 'DATASET' AND t.source_id = d.old;
UPDATE mlflow_import.logged_model_metrics t SET dataset_uuid = d.new FROM mlflow_import.same_datasets d
 WHERE t.dataset_uuid = d.old
"""
