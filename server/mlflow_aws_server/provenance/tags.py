"""The tags that only the server writes, and how they are told from the others in a request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.provenance import documents
from mlflow_aws_server.provenance.errors import unclear
from mlflow_aws_server.provenance.routes import Thing

RESERVED = "mlflow_aws."
PRINCIPAL = "mlflow_aws.principal"
CLAIMED_USER = "mlflow_aws.claimed_user"
HISTORY = "mlflow_aws.history."
USER = "mlflow.user"
"""Where MLflow and its user interface look for the author of a run or a logged model."""

Pair = tuple[str, str]
"""A tag's name and value."""

_PLAIN = re.compile(rb"mlflow(?:_aws|\.user)")
# JSON's other spelling of an ASCII letter.
_ESCAPED_LETTER = re.compile(rb"\\u00[0-7]")
# What MLflow's client puts into the path of a DELETE as it is, and what two readers of a path could read
# differently: the gate refuses those paths (`identity.paths`).
_UNDELETABLE = re.compile(r"[/\\;%?#\x00-\x1f\x7f\ud800-\udfff]|^\.{0,2}$")
# Of MLflow's column `user_id`.
_LONGEST_USER = 256
# What MLflow's client says if it knows nobody.
_NOBODY = frozenset(("", "unknown"))
_WITH_USER = frozenset((Thing.RUN, Thing.LOGGED_MODEL))


def is_reserved(key: str, thing: Thing) -> bool:
    """Whether only the server may write a tag of this name on such a thing."""
    return key.startswith(RESERVED) or (key == USER and thing in _WITH_USER)


def may_name_reserved(body: bytes) -> bool:
    """Whether a JSON document could name a reserved tag, in any encoding or spelling; cheap.

    False is certain; True asks for a closer look. This holds for JSON within a JSON string as well: a
    backslash there is escaped, which counts as another spelling.
    """
    return (
        # Looking for one byte is cheap, and what MLflow itself sends for metrics has none of this.
        (b"w" in body and _PLAIN.search(body) is not None)
        # UTF-16 or UTF-32.
        or b"\x00" in body
        # Most bodies have no backslash, and looking for one is cheap.
        or (b"\\" in body and _ESCAPED_LETTER.search(body) is not None)
    )


def refuse_undeletable(document: Mapping[str, Any], thing: Thing) -> None:
    """Refuse the tags of a logged model or a data set that no request could delete.

    Raises:
        ProvenanceError: a key has a character that cannot be in a path, or `tags` is not what MLflow takes.
    """
    keys = _dataset_keys(document) if thing is Thing.DATASET else [tag.get("key") for tag in _tags(document)]
    for key in keys:
        if isinstance(key, str) and _UNDELETABLE.search(key):
            raise unclear(
                f"the tag {key!r} could never be deleted: the keys of tags of logged models and data sets "
                "are neither empty nor `.` or `..`, and have no `/`, `\\`, `;`, `%`, `?`, `#` and no control "
                "characters"
            )


def _dataset_keys(document: Mapping[str, Any]) -> list[str]:
    """The keys in `tags`, a JSON object in a string; none where MLflow will refuse it."""
    try:
        tags = json.loads(document.get("tags") or "{}")
    except (TypeError, ValueError, RecursionError):
        return []
    return list(tags) if isinstance(tags, dict) else []


def separate(document: Mapping[str, Any], thing: Thing) -> tuple[dict[str, Any], list[Pair]]:
    """A request without the reserved tags that it writes or deletes, and those.

    Raises:
        ProvenanceError: `key`, or a tag in `tags`, is not what MLflow takes.
    """
    rest, found = dict(document), []
    key = _text(document, "key")
    if key and is_reserved(key, thing):
        found.append((key, _text(document, "value")))
        del rest["key"]
    kept = []
    for tag in _tags(document):
        if not isinstance(tag.get("key"), str):
            raise unclear(f"the key of a tag is {tag.get('key')!r}, which is not a string")
        pair = tag["key"], _text(tag, "value")
        if is_reserved(tag["key"], thing):
            found.append(pair)
        else:
            kept.append(tag)
    if "tags" in document:
        rest["tags"] = kept
    return rest, found


def with_claim(rest: Mapping[str, Any], document: Mapping[str, Any], user: str) -> dict[str, Any]:
    """The request without its reserved tags, with the user that `document` claims kept as a claim."""
    tag = {"key": CLAIMED_USER, "value": user[:_LONGEST_USER]}
    if document.get("key") == USER:
        return {**rest, **tag}
    return {**rest, "tags": [*_tags(rest), tag]}


def stamp(document: Mapping[str, Any], thing: Thing, given: list[Pair], *, principal: str) -> dict[str, Any]:
    """The request to make something, whose reserved tags were `given`, in the name of `principal`.

    MLflow's own fields for the author hold the principal too. Somebody else whom the client names is kept as
    its claim.

    Raises:
        ProvenanceError: the user is not a string.
    """
    ours = {PRINCIPAL: principal}
    rest = dict(document)
    stamped: dict[str, Any] = {"tags": [*_tags(document)]}
    claims = [value for key, value in given if key == USER]
    if thing is Thing.RUN:
        claims.insert(0, documents.field(document, "user_id", str) or "")
        rest.pop("userId", None)
        stamped["user_id"] = principal[:_LONGEST_USER]
    if thing in _WITH_USER:
        ours[USER] = principal
        claim = next((claim for claim in reversed(claims) if claim not in _NOBODY), principal)
        if claim != principal:
            ours[CLAIMED_USER] = claim[:_LONGEST_USER]
    stamped["tags"] += [{"key": key, "value": value} for key, value in ours.items()]
    # They come first: MLflow goes on with what it read before a field that it could not read.
    return {**stamped, **{name: value for name, value in rest.items() if name not in stamped}}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unclear(f"the {name} of a tag is {value!r}, which is not a string")
    return value


def _tags(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    tags = document.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, dict) for tag in tags):
        raise unclear("`tags` is not a list of objects with `key` and `value`")
    return tags
