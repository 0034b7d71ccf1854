"""Target groups: which task a request goes to, and which tasks are healthy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# ELB waits for its interval; a laptop's user should not have to.
FIRST_CHECK_SECONDS = 0.3


@dataclass
class Target:
    """One task behind the load balancer, and its health."""

    name: str
    address: str
    state: str = "initial"
    successes: int = 0
    failures: int = 0
    due: float = 0.0


@dataclass
class TargetGroup:
    """Targets that share one health check."""

    path: str
    interval: float
    timeout: float
    healthy_after: int
    unhealthy_after: int
    codes: frozenset[int]
    targets: dict[str, Target] = field(default_factory=dict)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    def of(cls, described: Mapping[str, Any], before: TargetGroup | None) -> TargetGroup:
        """Read a target group of a snapshot; targets that are still there keep their health."""
        known = before.targets if before else {}
        targets = {
            name: known[name]
            if name in known and known[name].address == address
            else Target(name=name, address=address)
            for name, address in described["targets"].items()
        }
        return cls(
            path=described["HealthCheckPath"],
            interval=float(described["HealthCheckIntervalSeconds"]),
            timeout=float(described["HealthCheckTimeoutSeconds"]),
            healthy_after=int(described["HealthyThresholdCount"]),
            unhealthy_after=int(described["UnhealthyThresholdCount"]),
            codes=status_codes(described["Matcher"]["HttpCode"]),
            targets=targets,
        )

    def pick(self) -> Target | None:
        """The next healthy target in turn, or, as in ELB, of all targets when all are unhealthy."""
        healthy = [each for each in self.targets.values() if each.state == "healthy"]
        if not healthy and all(each.state == "unhealthy" for each in self.targets.values()):
            healthy = list(self.targets.values())
        return healthy[next(self._turn) % len(healthy)] if healthy else None

    def judge(self, target: Target, *, passed: bool, now: float) -> None:
        """Count the result of a health check. A new target stays `initial` until its first success."""
        target.successes = target.successes + 1 if passed else 0
        target.failures = 0 if passed else target.failures + 1
        if passed and (target.state == "initial" or target.successes >= self.healthy_after):
            target.state = "healthy"
        elif target.state == "healthy" and target.failures >= self.unhealthy_after:
            target.state = "unhealthy"
        target.due = now + (FIRST_CHECK_SECONDS if target.state == "initial" else self.interval)


def status_codes(matcher: str) -> frozenset[int]:
    """Read a health check's matcher: `200`, `200,202` or `200-299`."""
    codes: set[int] = set()
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        codes.update(range(int(first), int(last or first) + 1))
    return frozenset(codes)
