"""How many values a JSON document has, and how deeply they are nested, before anybody parses it."""

from __future__ import annotations

import json
import re

from mlflow_aws_server.limits import NESTING, VALUES

_TOKEN = re.compile(rb'(?P<open>[\[{])|(?P<close>[\]}])|(?P<string>")|(?P<other>[^\s,:\[\]{}"]++)|[\s,:]++')


def check(document: bytes) -> None:
    """Refuse a document that takes far more memory than its size suggests, or more levels than a stack has.

    Names count as values. Work ends at the limit, and other threads get their turns.

    Raises:
        LimitError: it is beyond a limit.
    """
    if b"\0" in document:
        document = document.decode(json.detect_encoding(document), "replace").encode("utf-8", "replace")
    seen = depth = at = 0
    while (token := _TOKEN.match(document, at)) is not None:
        at = token.end()
        kind = token.lastgroup
        if kind == "close":
            depth -= 1
            continue
        if kind is None:
            continue
        seen += 1
        VALUES.check(seen)
        if kind == "open":
            depth += 1
            NESTING.check(depth)
        elif kind == "string":
            at = _end_of_string(document, at)


def _end_of_string(document: bytes, at: int) -> int:
    # A regular expression for strings keeps all other threads waiting until it is through.
    while (at := document.find(b'"', at)) != -1:
        before = at - 1
        while document[before] == 0x5C:
            before -= 1
        at += 1
        if (at - before) % 2 == 0:
            return at
    return len(document)
