"""All resource checks of a deployment."""

from __future__ import annotations

from verify_account import artifacts, database, identity, load_balancer, tasks
from verify_account.check import CheckResult, Clients, Outputs


def verify(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """Check every resource of the deployment whose service stack has these outputs; changes nothing."""
    return [result for check in _CHECKS for result in check(clients, outputs)]


_CHECKS = (
    artifacts.bucket,
    database.instance,
    tasks.service,
    load_balancer.listener,
    identity.programs,
    identity.people,
    load_balancer.rules,
)
