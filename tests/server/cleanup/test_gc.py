"""`gc`: rows and bytes before and after, and what stays."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from mlflow_aws_server.cleanup import gc as module
from mlflow_aws_server.cleanup import rows
from mlflow_aws_server.cleanup.gc import gc
from mlflow_aws_server.cleanup.objects import CurrentObjects
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.sealing.places import Prefix, Root

from tests.object_store import ObjectStore
from tests.server.cleanup.conftest import DAY, OLD, House

Collect = Callable[..., dict[str, Any]]


@pytest.fixture
def collect(house: House) -> Collect:
    def run(*, days: float = 30, dry_run: bool = False) -> dict[str, Any]:
        return gc(house.settings, days=days, dry_run=dry_run)

    return run


def of(ids: set[str], counted: Counter[tuple[str, str]]) -> Counter[str]:
    """How many rows of each table name one of these ids."""
    return Counter(table for table, row in counted.elements() if any(each in row for each in ids))


def test_what_was_deleted_long_ago_goes_and_nothing_else_changes(house: House, collect: Collect) -> None:
    kept = house.experiment()
    old, stays = house.run(kept, deleted=OLD), house.run(kept)
    young, untold = house.run(kept, deleted=round(time.time() * 1000) - DAY), house.run(kept, deleted=0)
    model, model_stays = house.model(kept, old, deleted=OLD), house.model(kept, stays)
    trace_stays = house.trace(kept)
    gone = house.experiment(deleted=OLD)
    gone_run, gone_trace = house.run(gone, deleted=OLD), house.trace(gone)
    gone_model = house.model(gone, gone_run)
    before, versions, keys = house.rows(), house.versions(), house.present()
    gone_ids = {old, model, gone_run, gone_model, gone_trace, old[1:], gone_run[1:]}

    foretold = collect(dry_run=True)
    assert (house.rows(), house.versions()) == (before, versions)
    done = collect()

    after = house.rows()
    removed = before - after
    assert not after - before
    # Every row that names what went is gone, and of those that are gone, none names anything else.
    assert not of(gone_ids, after)
    assert of(gone_ids, before) + Counter(experiments=1, experiment_tags=1) == Counter(
        table for table, _ in removed.elements()
    )
    assert done["rows"] == Counter(table for table, _ in removed.elements())
    assert foretold["rows"].keys() == done["rows"].keys()
    assert (foretold["objects"], foretold["bytes"]) == (done["objects"], done["bytes"])
    # A marker on each object of what went; every byte is still there, and nothing of the rest was touched.
    mine = {key for key in keys if any(each in key for each in gone_ids)}
    assert house.present() == keys - mine
    assert (done["objects"], done["bytes"]) == (len(mine), 10 * len(mine))
    markers = house.versions().keys() - versions.keys()
    assert sorted(key for key, _ in markers) == sorted(mine)
    assert versions.items() <= house.versions().items()
    for each in (stays, young, untold, model_stays, trace_stays):
        assert of({each}, after) == of({each}, before)
    assert done["kept"] == {}

    again = collect()
    assert (again["rows"], again["objects"]) == ({}, 0)
    assert house.rows() == after


def test_what_a_version_rests_on_stays(house: House, collect: Collect) -> None:
    experiment = house.experiment()
    by_run, by_uri, by_reference = (house.run(experiment, deleted=OLD) for _ in range(3))
    behind = house.run(experiment, deleted=OLD)
    model, of_run = house.model(experiment, behind, deleted=OLD), house.model(experiment, by_run, deleted=OLD)
    free = house.run(experiment, deleted=OLD)
    name = house.version("s3://elsewhere/x", by_run)
    house.version(f"{house.root}/{experiment}/{by_uri}/artifacts/model")
    house.version(f"runs:/{by_reference}/model")
    house.version(f"{house.root}/{experiment}/models/{model}/artifacts")
    # A deleted version rests on nothing.
    house.version(f"runs:/{free}/model", free, stage="Deleted_Internal")
    before = house.rows()

    done = collect()

    assert {each.split()[-1] for each in done["kept"]} == {
        by_run,
        by_uri,
        by_reference,
        behind,
        model,
        of_run,
    }
    assert done["kept"][f"runs {by_run}"] == f"version 1 of the model {name!r} rests on it"
    assert {table for table, row in (before - house.rows()).elements() if free not in row} <= {
        "datasets",
        "input_tags",
    }
    assert done["objects"] == 2


def test_an_experiment_that_holds_what_stays_stays_whole(house: House, collect: Collect) -> None:
    with_run, with_source = house.experiment(deleted=OLD), house.experiment(deleted=OLD)
    house.run(with_run)
    house.model(with_run, None)
    house.trace(with_run)
    house.write(f"{house.root}/{with_source}", "by-hand/model.bin")
    house.version(f"{house.root}/{with_source}/by-hand")
    before, versions = house.rows(), house.versions()

    done = collect()

    assert done["kept"] == {
        f"experiments {with_run}": "1 runs stay",
        f"experiments {with_source}": "1 versions stay",
    }
    assert (house.rows(), house.versions()) == (before, versions)


def test_what_is_under_legal_hold_or_elsewhere_is_not_touched(
    house: House, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = house.experiment()
    held, foreign = house.run(experiment, deleted=OLD), house.run(experiment, deleted=OLD)
    sealed = f"{house.root}/sealed/model/1/{foreign}"
    house.write(sealed, "model.bin")
    house.execute("UPDATE runs SET artifact_uri = %s WHERE run_uuid = %s", (sealed, foreign))
    monkeypatch.setattr(
        CurrentObjects, "held", lambda self, found: next((f.key for f in found if held in f.key), None)
    )
    before, versions = house.rows(), house.versions()

    done = collect()

    assert [why.split()[:3] for why in done["kept"].values()] == [["legal", "hold", "on"]]
    assert done["elsewhere"] == [sealed]
    assert house.versions() == versions
    assert of({held}, house.rows()) == of({held}, before)
    assert not of({foreign}, house.rows())


def test_a_legal_hold_in_s3_is_seen(object_store: ObjectStore) -> None:
    bucket, client = f"locked-{secrets.token_hex(4)}", object_store.client
    client.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        ObjectLockEnabledForBucket=True,
    )
    for key in ("r/free", "r/held"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    client.put_object_legal_hold(Bucket=bucket, Key="r/held", LegalHold={"Status": "ON"})
    objects = CurrentObjects(client, Root.read(f"s3://{bucket}/r"), holds=True)
    free, held = objects.below(Prefix(bucket, "r"))
    assert objects.held([free]) is None
    assert objects.held([free, held]) == "r/held"


@pytest.mark.parametrize("where", ["before the rows", "after the rows"])
def test_killed_and_run_again_it_ends_in_the_same_state(
    where: str, house: House, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = house.experiment(deleted=OLD)
    for _ in range(3):
        house.trace(experiment)
        house.model(experiment, house.run(experiment, deleted=OLD))
    monkeypatch.setattr(module, "BATCH", 1)
    survivor = house.experiment()
    stays = house.run(survivor)
    expected = of({stays, stays[1:]}, house.rows())
    real, calls = rows.delete, []

    def killed(cursor: Any, kind: str, ids: Any) -> Any:
        calls.append(kind)
        dies = len(calls) % 3 == 2
        if dies and where == "before the rows":
            raise KeyboardInterrupt
        counted = real(cursor, kind, ids)
        if dies:
            raise KeyboardInterrupt
        return counted

    with monkeypatch.context() as patched:
        patched.setattr(rows, "delete", killed)
        for _ in range(9):
            with pytest.raises(KeyboardInterrupt):
                collect()
            if not house.execute("SELECT FROM runs WHERE experiment_id = %s", (experiment,)):
                break
    collect()

    assert of({stays, stays[1:]}, house.rows()) == expected
    assert not house.execute("SELECT FROM experiments WHERE experiment_id = %s", (experiment,))
    assert {key for key in house.present() if f"/{survivor}/" not in key} == set()
    assert collect()["rows"] == {}


def test_what_s3_refuses_keeps_its_row(
    house: House, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = house.run(house.experiment(), deleted=OLD)
    before = house.rows()
    refusal = {"Errors": [{"Key": "a", "Code": "AccessDenied"}]}
    monkeypatch.setattr(CurrentObjects, "_delete", lambda self, entries: refusal)
    with pytest.raises(OperationError, match=r"S3 did not delete a: AccessDenied.*Run it again"):
        collect()
    assert house.rows() == before
    assert any(run in key for key in house.present())


def test_every_table_that_refers_to_what_goes_is_named(house: House) -> None:
    keys = house.execute(
        "SELECT DISTINCT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f'"
    )
    parents = {"runs": "runs", "logged_models": "logged_models", "traces": "trace_info"}
    # A run's issue stays, without its run.
    left = {"issues", "endpoints"}
    for kind, parent in {**parents, "experiments": "experiments"}.items():
        named = {table for tables in rows.TABLES.values() for table, _ in tables}
        if kind != "experiments":
            named = {table for table, _ in rows.TABLES[kind]}
        assert {table for table, refers in keys if refers == parent} - left <= named
