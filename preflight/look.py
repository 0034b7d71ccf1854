"""Every probe, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from findings.finding import AccountFinding, Mark
from findings.reader import AbsentError, DeniedError, NotAskedError
from preflight import artifacts, database, deployment, identity, ingress, network
from preflight.subject import Probe, Subject, finding

PROBES = (
    *deployment.PROBES[:-1],
    *ingress.PROBES,
    *network.PROBES,
    *database.PROBES,
    *artifacts.PROBES,
    *identity.PROBES,
    deployment.PROBES[-1],
)


def look(
    subject: Subject,
    say: Callable[[Probe], None] = lambda _: None,
    probes: Iterable[Probe] = PROBES,
) -> list[AccountFinding]:
    """Ask every probe that this configuration gives a reason for; changes nothing."""
    found = []
    for probe in probes:
        say(probe)
        if (each := _asked(probe, subject)) is not None:
            found.append(each)
    return found


def _asked(probe: Probe, subject: Subject) -> AccountFinding | None:
    try:
        answer = probe.look(subject)
    except DeniedError as error:
        remedy = f"let the caller do {error.action} (python -m preflight --policy), or look yourself"
        return AccountFinding(probe.title, Mark.WARNING, str(error), remedy)
    except NotAskedError as error:
        return AccountFinding(probe.title, Mark.NOT_ASKED, str(error))
    except AbsentError as error:
        return AccountFinding(probe.title, Mark.WARNING, str(error), "look yourself: AWS gave no answer")
    return None if answer is None else finding(probe, answer)
