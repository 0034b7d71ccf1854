"""All resource checks of a deployment."""

from __future__ import annotations

from collections.abc import Callable

from findings.finding import AccountFinding, Mark
from findings.reader import AbsentError, Clients, DeniedError, NotAskedError
from verify_account import artifacts, database, identity, load_balancer, network, policies, tasks
from verify_account.account import Account, Check, Outputs

CHECKS = (
    *artifacts.CHECKS,
    *database.CHECKS,
    *tasks.CHECKS,
    *load_balancer.CHECKS,
    *identity.CHECKS,
    *network.CHECKS,
    *policies.CHECKS,
)


def verify(
    clients: Clients, outputs: Outputs, say: Callable[[AccountFinding], None] = lambda _: None
) -> list[AccountFinding]:
    """Check every resource of the deployment whose service stack has these outputs; changes nothing."""
    account = Account(clients, outputs)
    findings = []
    for check in CHECKS:
        findings.append(_finding(check, account))
        say(findings[-1])
    return findings


def _finding(check: Check, account: Account) -> AccountFinding:
    try:
        holds, observed = check.look(account)
    except NotAskedError as error:
        return AccountFinding(check.title, Mark.NOT_ASKED, str(error))
    except DeniedError as error:
        remedy = f"let the caller do {error.action}: python -m verify_account --policy"
        return AccountFinding(check.title, Mark.BAD, str(error), remedy)
    except (AbsentError, LookupError, StopIteration) as error:
        # What is not there cannot have the property.
        return AccountFinding(check.title, Mark.BAD, f"{type(error).__name__}: {error}", check.remedy)
    return AccountFinding(check.title, Mark.GOOD if holds else Mark.BAD, observed, check.remedy)
