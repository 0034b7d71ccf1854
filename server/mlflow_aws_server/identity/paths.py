"""Refuse a request path that two parsers could read differently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.identity.errors import MalformedRequestError
from mlflow_aws_server.limits import PATH

# Percent-encoded, these read differently after one more decoding: unreserved characters (RFC 3986, section
# 2.3; honest clients do not encode them), / \ ; % and control characters.
_ENCODED = re.compile(
    rb"%(?:[01][0-9a-f]|2[def5]|3[0-9b]|[46][1-9a-f]|[57][0-9a]|5[cf]|7[ef])", re.IGNORECASE
)
_NOT_PLAIN = re.compile(rb"[^\x21-\x7e]|[\\;]|//|/\.{1,2}(?:/|$)|%(?![0-9A-Fa-f]{2})")


def refuse_ambiguous(scope: Mapping[str, Any]) -> None:
    """Check the path as it was sent and as it will be routed.

    Raises:
        MalformedRequestError: it is not in its plain form: `//`, `/./`, `..`, encoded dots, slashes,
            letters, backslashes, `;`, control characters, or more than 4096 bytes.
    """
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    raw = raw.partition(b"?")[0]
    if (
        not raw.startswith(b"/")
        or len(raw) > PATH.most
        or scope.get("root_path")
        or _NOT_PLAIN.search(raw)
        or (b"%" in raw and _ENCODED.search(raw))
    ):
        raise MalformedRequestError("path", "The path of this request is not in its plain form.")
