"""Steps about authorship: the server records it, and no client can forge it."""

from __future__ import annotations

import json
import time
from typing import Any

from client_smoke.identity import Caller, Promoter, body_of, message_of
from client_smoke.models import FirstVersion, SecondVersion
from client_smoke.sealing import SEAL
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment, LoggedRun
from client_smoke.verdict import StepFailed

PRINCIPAL = "mlflow_aws.principal"
HISTORY = "mlflow_aws.history."
_API = "/api/2.0/mlflow"
_FIX = "check that the server's provenance layer runs, behind its gate (docs/security.md)"


def run_records_its_author(smoke: Smoke) -> str:
    """The logged run carries the principal that the server knows this client by."""
    run = smoke.recall(LoggedRun)
    return _recorded(smoke, smoke.mlflow.get_run(run.id).data.tags, what=f"run {run.id}")


def version_records_its_author(smoke: Smoke) -> str:
    """The registered version carries the principal that the server knows this client by."""
    name, version = smoke.model_name, smoke.recall(FirstVersion).version
    found = smoke.mlflow.get_model_version(name, version)
    return _recorded(smoke, found.tags, what=f"version {version} of {name}")


def author_cannot_be_forged(smoke: Smoke) -> str:
    """Every way to write or remove the author's tag is refused, and one sent along with a new run is lost."""
    caller, run, first = smoke.recall(Caller), smoke.recall(LoggedRun), smoke.recall(FirstVersion)
    forged = {"key": PRINCIPAL, "value": "arn:aws:iam::000000000000:role/somebody-else"}
    version = {"name": smoke.model_name, "version": first.version}
    attempts: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", f"{_API}/runs/set-tag", {"run_id": run.id, **forged}),
        ("POST", f"{_API}/runs/delete-tag", {"run_id": run.id, "key": PRINCIPAL}),
        ("POST", f"{_API}/runs/log-batch", {"run_id": run.id, "tags": [forged]}),
        ("POST", f"{_API}/model-versions/set-tag", version | forged),
        ("DELETE", f"{_API}/model-versions/delete-tag", version | {"key": PRINCIPAL}),
    )
    for method, path, body in attempts:
        answer = smoke.request_as(smoke.own_token(), method, path, json=body)
        if answer.status_code != 403:
            raise StepFailed(
                f"{method} {path} with the tag {PRINCIPAL} answered {answer.status_code}", next_action=_FIX
            )
    started_forged = smoke.request_as(
        smoke.own_token(),
        "POST",
        f"{_API}/runs/create",
        json={
            "experiment_id": smoke.recall(Experiment).id,
            "start_time": int(time.time() * 1000),
            "tags": [forged],
        },
    )
    if started_forged.status_code == 200:
        identifier = body_of(started_forged)["run"]["info"]["run_id"]
        _recorded(smoke, smoke.mlflow.get_run(identifier).data.tags, what=f"run {identifier}")
    elif started_forged.status_code != 403:
        raise StepFailed(
            f"a run with a forged author answered {started_forged.status_code}: {message_of(started_forged)}",
            next_action=_FIX,
        )
    run_records_its_author(smoke)
    version_records_its_author(smoke)
    return f"{len(attempts)} attempts refused with 403; author is still {caller.principal}"


def promotion_leaves_history(smoke: Smoke) -> str:
    """The version that was promoted says who did that, when, what was there before, and by which seal."""
    first, second = smoke.recall(FirstVersion), smoke.recall(SecondVersion)
    promoter = smoke.recall(Promoter).principal
    tags = smoke.mlflow.get_model_version(smoke.model_name, second.version).tags
    entries = [json.loads(value) for key, value in sorted(tags.items()) if key.startswith(HISTORY)]
    wanted = {"action": "stage", "stage": "Production", "principal": promoter, "previous": first.version}
    wanted["seal"] = json.loads(tags.get(SEAL, "{}")).get("sha256", "none")
    found = [entry for entry in entries if wanted.items() <= entry.items()]
    if len(found) != 1:
        raise StepFailed(
            f"version {second.version} has {len(entries)} entries of history, and {len(found)} of them say "
            f"that {promoter} put it into Production in place of version {first.version}, as sealed",
            next_action=_FIX,
        )
    return f"{promoter} at {found[0]['at']}, in place of version {found[0]['previous']}"


def _recorded(smoke: Smoke, tags: dict[str, str], *, what: str) -> str:
    caller, recorded = smoke.recall(Caller).principal, tags.get(PRINCIPAL)
    if recorded != caller:
        raise StepFailed(
            f"{what} names {recorded or 'nobody'} as its author, and the caller is {caller}", next_action=_FIX
        )
    return f"{PRINCIPAL} = {recorded}"
