"""Each fault, while clients log through the public client: nothing acknowledged is lost or stored twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RdsLike
from tests.faults.faults import FAULTS, Fault, measure
from tests.faults.fleet import Fleet, fleet
from tests.faults.report import RESULTS
from tests.object_store import ObjectStore
from tests.server.conftest import AUDIENCE, issuers

pytestmark = pytest.mark.slow

# `FAULTS_KEEP=1 make test-slow ARGS=tests/faults` measures anew what docs/reliability.md shows.
_KEEP = "FAULTS_KEEP" in os.environ


@pytest.fixture(scope="module")
def site(
    rds: RdsLike, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    with issuers(tmp_path_factory.mktemp("issuers")) as identity, fleet(rds, identity, object_store) as made:
        yield made


@pytest.fixture(autouse=True)
def client(site: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a contributor's program."""
    from mlflow import MlflowClient

    for name, value in {
        "MLFLOW_TRACKING_TOKEN": site.identity.token("contributor"),
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{site.s3.port}",
        "AWS_ENDPOINT_URL_STS": site.sts,
        "MLFLOW_AWS_AUDIENCE": AUDIENCE,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_SESSION_TOKEN": "example",
    }.items():
        monkeypatch.setenv(name, value)
    if not site.experiment:
        site.experiment = MlflowClient(site.url).create_experiment("faults")


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_nothing_acknowledged_is_lost(site: Fleet, fault: Fault) -> None:
    if fault.name == "disk full" and os.geteuid() != 0:
        pytest.skip("mounting a small /tmp needs root")
    import mlflow

    mlflow.set_tracking_uri(site.url)
    result, raised = measure(fault, site, full=_KEEP)
    if _KEEP:
        _keep(RESULTS, fault.name, result.as_record())
    assert (result.lost, result.doubled) == (0, 0)
    assert raised == [], "a training loop ends"


def _keep(file: Path, name: str, record: dict[str, object]) -> None:
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[name] = record
    file.write_text(
        json.dumps({each.name: kept[each.name] for each in FAULTS if each.name in kept}, indent=1)
    )
