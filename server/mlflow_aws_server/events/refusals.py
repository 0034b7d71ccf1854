"""Refused access, counted for each principal: an attacker's thousand calls are one event a minute."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# Of one minute; whoever comes after them is counted together, without a name.
_MOST_PRINCIPALS = 20
_MOST_REASONS = 10


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class _Refused:
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = field(default_factory=_now)
    last: str = ""


class Refusals:
    """What this process has refused since it was last asked."""

    def __init__(self) -> None:
        self._of: dict[str | None, _Refused] = {}

    def count(self, principal: str | None, reason: str) -> None:
        """Count one; `principal` was verified, or is unknown."""
        if principal not in self._of and len(self._of) >= _MOST_PRINCIPALS:
            principal = None
        refused = self._of.setdefault(principal, _Refused())
        if reason not in refused.reasons and len(refused.reasons) >= _MOST_REASONS:
            reason = "other"
        refused.reasons[reason] += 1
        refused.last = _now()

    def take(self) -> list[dict[str, Any]]:
        """The details of an event for each principal; counting begins anew."""
        taken, self._of = self._of, {}
        return [
            {
                "principal": principal,
                "count": each.reasons.total(),
                "reasons": dict(each.reasons),
                "first": each.first,
                "last": each.last,
            }
            for principal, each in taken.items()
        ]


REFUSALS = Refusals()
