"""What the server has written, as the database knows it at this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.provenance import documents
from mlflow_aws_server.provenance.chain import WORKSPACE
from mlflow_aws_server.provenance.errors import reserved, unclear
from mlflow_aws_server.provenance.routes import Matter, Thing
from mlflow_aws_server.provenance.tags import CLAIMED_USER, PRINCIPAL, USER, Pair

# $1: the names asked for.
_PRESENT: Mapping[Thing, str] = {
    Thing.RUN: "SELECT key, value FROM tags WHERE key = ANY($1) AND run_uuid = $2",
    Thing.LOGGED_MODEL: (
        "SELECT tag_key, tag_value FROM logged_model_tags WHERE tag_key = ANY($1) AND model_id = $2"
    ),
    Thing.VERSION: (
        f"SELECT key, value FROM model_version_tags WHERE workspace = '{WORKSPACE}' AND key = ANY($1)"  # noqa: S608
        " AND name = $2 AND version::text = $3"
    ),
    Thing.MODEL: (
        f"SELECT key, value FROM registered_model_tags WHERE workspace = '{WORKSPACE}'"  # noqa: S608
        " AND key = ANY($1) AND name = $2"
    ),
}

# A version that is promoted every day for ten years has fewer.
_MOST = 5000

# The only names that the server writes on runs and logged models. There are many runs: `migrate` builds an
# index of their authors (fastpath/indexes.py).
_AUTHORS = f"('{USER}', '{CLAIMED_USER}', '{PRINCIPAL}')"
_WRITTEN = f"""
SELECT key, value FROM unnest($1::text[], $2::text[]) AS asked (key, value)
WHERE EXISTS (SELECT FROM model_version_tags t
              WHERE t.workspace = '{WORKSPACE}' AND t.key = asked.key AND t.value = asked.value)
   OR EXISTS (SELECT FROM registered_model_tags t
              WHERE t.workspace = '{WORKSPACE}' AND t.key = asked.key AND t.value = asked.value)
   OR (asked.key IN {_AUTHORS} AND (
          (SELECT true FROM tags t
           WHERE t.key IN {_AUTHORS} AND t.key = asked.key AND md5(t.value) = md5(asked.value) LIMIT 1)
       OR EXISTS (SELECT FROM logged_model_tags t WHERE t.tag_key = asked.key AND t.tag_value = asked.value)))
"""  # noqa: S608 - only constants


class Evidence:
    """Tells a reserved tag that a client sends back or copies from one that it makes up or changes."""

    def __init__(self, questions: ConnectionPool) -> None:
        self._questions = questions

    async def check(
        self, matter: Matter, document: Mapping[str, Any], given: Sequence[Pair], *, says_more: bool
    ) -> str | None:
        """Check that the reserved tags `given` in a request may be left out of it.

        They may if the thing has just them; or, in a request that `says_more`, if the server wrote just them
        on something else. A prompt's tags are set one by one: there the second holds for every name that the
        model does not have.

        Returns the user that a client claims instead of the thing's own, as imports do, if there is one.

        Raises:
            ProvenanceError: one of them may not.
        """
        if len(given) > _MOST:
            raise unclear(
                f"there are {len(given)} tags that only the server writes, and at most {_MOST} are read"
            )
        told = dict(given)
        for key, value in given:
            # Nothing has two values of one tag, so they were not copied. But `mlflow-export-import` names the
            # user of the source and then its own, of which MLflow would keep the last.
            if told[key] != value and key != USER:
                raise reserved(key)
        present = await self._present(matter, document, list(told))
        doubtful = [pair for pair in told.items() if present.get(pair[0]) != pair[1]]
        may_be_copies = [
            pair for pair in doubtful if says_more or (matter.thing is Thing.MODEL and pair[0] not in present)
        ]
        written = await self._written(may_be_copies)
        claim = None
        for pair in doubtful:
            if pair in written:
                continue
            if pair[0] != USER:
                raise reserved(pair[0])
            claim = pair[1]
        return claim

    async def _present(
        self, matter: Matter, document: Mapping[str, Any], keys: Sequence[str]
    ) -> dict[str, str]:
        names = _names(matter, document)
        statement = _PRESENT.get(matter.thing)
        if statement is None or not all(names) or not all(map(_storable, (*names, *keys))):
            return {}

        async def ask(connection: AsyncConnection) -> dict[str, str]:
            return {key: value or "" for key, value in await connection.fetch(statement, keys, *names)}

        return await self._questions.run(ask)

    async def _written(self, pairs: Sequence[Pair]) -> set[Pair]:
        asked = list({pair for pair in pairs if all(map(_storable, pair))})
        if not asked:
            return set()

        async def ask(connection: AsyncConnection) -> set[Pair]:
            keys, values = zip(*asked, strict=True)
            return {(key, value) for key, value in await connection.fetch(_WRITTEN, keys, values)}

        return await self._questions.run(ask)


def run_of(document: Mapping[str, Any]) -> str:
    """The run that a request names; MLflow's client still sends the old name of the field too."""
    run_id = documents.field(document, "run_id", str) or documents.field(document, "run_uuid", str)
    return run_id or ""


def _names(matter: Matter, document: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells the thing from others of its kind; an empty name if the request makes it."""
    if matter.thing is Thing.RUN:
        return (run_of(document),)
    if matter.thing is Thing.LOGGED_MODEL:
        return (matter.logged_model,)
    names = ("name", "version") if matter.thing is Thing.VERSION else ("name",)
    return tuple(documents.field(document, name, str) or "" for name in names)


def _storable(text: str) -> bool:
    """Whether PostgreSQL can hold it; what it cannot hold, nobody wrote."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
