"""A server that seals a version only when it is promoted first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from model_lifecycle import explain, promote
from model_lifecycle.cli import main

from tests.lifecycle.conftest import Registered, Site, new_model, served
from tests.server.conftest import Identity, deployment

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.object_store import ObjectStore
    from tests.server.conftest import Migration


@pytest.fixture(scope="module")
def site(
    rds: RdsLike,
    migration: Migration,
    identity: Identity,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("policy")
    with deployment(rds, identity, copy_of=migration) as made:
        yield from served(made, identity, object_store, directory, MLFLOW_AWS_SEAL_AT="promotion")


@pytest.fixture
def registered(site: Site) -> Registered:
    return new_model(site)


def test_a_version_is_sealed_before_it_moves_and_the_record_names_the_seal(registered: Registered) -> None:
    number, site = registered.version(), registered.site
    with site.bearer("approver"):
        before = explain(site.registry(), registered.name, version=number, s3=lambda: site.store.client)
        outcome = promote(site.lifecycle(), registered.name, number, to="staging")
        after = explain(site.registry(), registered.name, version=number, s3=lambda: site.store.client)
    assert (before.integrity.verdict, after.integrity.verdict) == ("not sealed", "intact")
    assert outcome.findings[-1].observed == "not sealed yet; the server seals it before it moves"
    assert after.integrity.seal is not None
    assert outcome.seal == after.integrity.seal.sha256


def test_record_says_that_the_seal_comes_with_the_promotion(
    registered: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number, site = registered.version(), registered.site
    with site.bearer("contributor"):
        assert main(["record", registered.name, number, "--json", f"--tracking-uri={site.url}"]) == 0
    said = capsys.readouterr()
    assert "the server seals it with its first promotion" in said.err
    assert json.loads(said.out)["outcome"] == "nothing to do"
