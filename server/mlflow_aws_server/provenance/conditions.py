"""`If-Match` and `If-None-Match`: a change that happens only if nobody was faster (RFC 9110, section 13)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow_aws_server.asgi import Scope, header_values
from mlflow_aws_server.provenance.errors import ProvenanceError, unclear

_TAG = re.compile(r'"([0-9]{1,10})"')


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which version must hold a place (a stage or an alias) now, or must not.

    None: no condition. An empty set stands for `*`: any version.
    """

    must_be: frozenset[str] | None = None
    must_not_be: frozenset[str] | None = None

    def check(self, current: str | None, *, place: str) -> None:
        """Compare with `current`, the version that holds `place`, or None.

        Raises:
            ProvenanceError: 412, it is not what the caller expects.
        """
        held = "by no version" if current is None else f"by version {current}"
        if self.must_be is not None and (current is None or (self.must_be and current not in self.must_be)):
            wanted = " or ".join(sorted(self.must_be)) or "any"
            raise _conflict(f"{place} is held {held}, but If-Match asks for version {wanted}")
        if self.must_not_be is None or current is None:
            return
        if not self.must_not_be or current in self.must_not_be:
            unwanted = " or ".join(sorted(self.must_not_be)) or "any"
            raise _conflict(f"{place} is held {held}, but If-None-Match excludes version {unwanted}")


def conditions_of(scope: Scope) -> Conditions:
    """The conditions in a request's headers.

    Raises:
        ProvenanceError: one cannot be read; it must not be ignored.
    """
    return Conditions(must_be=_versions(scope, b"if-match"), must_not_be=_versions(scope, b"if-none-match"))


def _versions(scope: Scope, name: bytes) -> frozenset[str] | None:
    values = header_values(scope, name)
    if not values:
        return None
    text = b",".join(values).decode("latin-1")
    if text.strip() == "*":
        return frozenset()
    tags = [_TAG.fullmatch(item.strip()) for item in text.split(",")]
    if not all(tags):
        raise unclear(f'{name.decode()} is {text!r}; expected * or a version in quotes, such as "3"')
    return frozenset(tag[1] for tag in tags if tag)


def _conflict(problem: str) -> ProvenanceError:
    return ProvenanceError(
        412, "RESOURCE_CONFLICT", f"{problem}. Nothing was changed: read the current state and decide again."
    )
