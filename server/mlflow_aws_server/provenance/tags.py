"""The tags that only the server writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.provenance.errors import reserved, unclear

RESERVED = "mlflow_aws."
PRINCIPAL = "mlflow_aws.principal"
HISTORY = "mlflow_aws.history."

_PLAIN = RESERVED.rstrip(".").encode("ascii")
# JSON's other spelling of an ASCII letter.
_ESCAPED_LETTER = re.compile(rb"\\u00[0-7]")


def is_reserved(key: str) -> bool:
    """Whether only the server may write a tag of this name."""
    return key.startswith(RESERVED)


def may_name_reserved(body: bytes) -> bool:
    """Whether a JSON document could name a reserved tag, in any encoding or spelling; cheap.

    False is certain; True asks for a closer look. This holds for JSON within a JSON string as well: a
    backslash there is escaped, which counts as another spelling.
    """
    return (
        _PLAIN in body
        # UTF-16 or UTF-32.
        or b"\x00" in body
        # Most bodies have no backslash, and looking for one is cheap.
        or (b"\\" in body and _ESCAPED_LETTER.search(body) is not None)
    )


def refuse_reserved(document: Mapping[str, Any]) -> None:
    """Check a request's `key` and the keys of its `tags`.

    Raises:
        ProvenanceError: one of them is reserved, or is not a string.
    """
    keys = [document.get("key"), *(tag.get("key") for tag in _tags(document))]
    for key in keys:
        if key is None:
            continue
        if not isinstance(key, str):
            raise unclear(f"the key of a tag is {key!r}, which is not a string")
        if is_reserved(key):
            raise reserved(key)


def stamp(document: Mapping[str, Any], *, principal: str) -> dict[str, Any]:
    """The same request with the caller's tag, and no other reserved tag.

    Those are dropped, not refused: clients copy the tags of one version to the next.

    Raises:
        ProvenanceError: the tags are not a list of objects with string keys.
    """
    kept = []
    for tag in _tags(document):
        key = tag.get("key")
        if not isinstance(key, str):
            raise unclear(f"the key of a tag is {key!r}, which is not a string")
        if not is_reserved(key):
            kept.append(tag)
    return {**document, "tags": [*kept, {"key": PRINCIPAL, "value": principal}]}


def _tags(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    tags = document.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, dict) for tag in tags):
        raise unclear("`tags` is not a list of objects with `key` and `value`")
    return tags
