"""What a check is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# From the name of a service to its boto3 client: `boto3.Session(...).client` is one.
Clients = Callable[[str], Any]
# Of the service stack, by name.
Outputs = Mapping[str, str]


@dataclass(frozen=True)
class CheckResult:
    """One resource check: whether it passed, and what was observed."""

    check: str
    passed: bool
    observed: object


def listed(value: Any) -> list[Any]:
    """The elements of a policy's field, which may stand there alone."""
    return value if isinstance(value, list) else [value]
