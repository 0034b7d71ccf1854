"""`erase`: what is found, what stays and why, and that rows go only once their objects have."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest
from mlflow_aws_server.cleanup.erase import KINDS, plan, remove
from mlflow_aws_server.errors import OperationError

from tests.server.cleanup.conftest import House


def request(house: House, planned: dict[str, Any], name: str = "r") -> str:
    """Write the request as the break-glass role does; returns its digest."""
    raw = json.dumps(planned).encode()
    key = f"{house.root}/erasures/{name}/request.json".removeprefix(f"s3://{house.store.bucket}/")
    house.store.client.put_object(Bucket=house.store.bucket, Key=key, Body=raw)
    return hashlib.sha256(raw).hexdigest()


def delete(house: House, planned: dict[str, Any]) -> None:
    """Every version below what is to go."""
    places = tuple(place for of in planned["things"].values() for each in of.values() for place in each)
    for key, version in house.versions():
        if key.startswith(places):
            house.store.client.delete_object(Bucket=house.store.bucket, Key=key, VersionId=version)


def erased(house: House, what: str, value: str) -> dict[str, Any]:
    planned: dict[str, Any] = plan(house.settings, what=what, value=value)
    sha256 = request(house, planned)
    delete(house, planned)
    done = remove(house.settings, request="r", sha256=sha256)
    assert done == {"kept": {}, "rows_left": {}}
    return planned


def tables(rows: Counter[tuple[str, str]]) -> Counter[str]:
    return Counter(table for table, _ in rows.elements())


def seal(house: House, model: str, source: str) -> str:
    """A sealed copy with its manifest, and a file that pretends to be another manifest."""
    place = f"{house.root}/sealed/{model}/1/1700000000000"
    house.write(place, "model.bin")
    key = place.removeprefix(f"s3://{house.store.bucket}/")
    manifest = {
        "schema": 1, "model": model, "version": "1", "bucket": house.store.bucket, "prefix": key,
        "source": source, "sealed_at": "", "items": [],
    }  # fmt: skip
    for name in (f"{key}.manifest.json", f"{key}/1/1.manifest.json"):
        house.store.client.put_object(Bucket=house.store.bucket, Key=name, Body=json.dumps(manifest).encode())
    return place


def test_an_author_s_runs_models_and_traces_go_with_every_version_and_nothing_else(house: House) -> None:
    experiment = house.experiment()
    hers, his = house.run(experiment, author="arn:her"), house.run(experiment, author="arn:him")
    # Somebody else's claim is no authorship.
    house.execute("UPDATE tags SET value = 'arn:her' WHERE run_uuid = %s AND key = 'mlflow.user'", (his,))
    model, trace = house.model(experiment, hers), house.trace(experiment)
    house.execute("INSERT INTO trace_request_metadata VALUES ('mlflow.sourceRun', %s, %s)", (hers, trace))
    copy = seal(house, "gone", f"{house.root}/{experiment}/models/{model}/artifacts")
    before, versions = house.rows(), house.versions()

    planned = erased(house, "author", "arn:her")

    assert {kind: set(of) for kind, of in planned["things"].items()} == {
        "runs": {hers}, "logged_models": {model}, "traces": {trace},
    }  # fmt: skip
    removed = before - house.rows()
    assert not house.rows() - before
    assert planned["rows"] == tables(removed)
    assert not [row for _, row in house.rows() if any(each in row for each in (hers, model, trace))]
    gone = versions.keys() - house.versions().keys()
    mine = (hers, model, trace, copy.removeprefix(f"s3://{house.store.bucket}/"))
    assert gone == {each for each in versions if any(one in each[0] for one in mine)}


@pytest.mark.parametrize("what", ["run", "experiment", "dataset", "trace_user", "trace_session"])
def test_each_way_of_asking_finds_what_it_names(what: str, house: House) -> None:
    experiment, other = house.experiment(), house.experiment()
    run, stays = house.run(experiment), house.run(other)
    trace, trace_stays = house.trace(experiment, user="her", session="x"), house.trace(other)
    house.execute(
        "INSERT INTO evaluation_datasets (dataset_id, workspace, name) VALUES ('e', 'default', 'e')"
    )
    house.execute(
        "INSERT INTO evaluation_dataset_records (dataset_record_id, dataset_id, inputs, source_type,"
        " source_id, input_hash) VALUES ('rec', 'e', '{}', 'TRACE', %s, 'h')",
        (trace,),
    )
    value = {
        "run": run, "experiment": str(experiment), "dataset": f"data {run}", "trace_user": "her",
        "trace_session": "x",
    }[what]  # fmt: skip
    things = erased(house, what, value)["things"]
    assert set(things.get("runs", ())) == ({run} if what in ("run", "experiment", "dataset") else set())
    assert set(things.get("traces", ())) == (set() if what in ("run", "dataset") else {trace})
    assert set(things.get("experiments", ())) == ({str(experiment)} if what == "experiment" else set())
    text = str(house.rows())
    assert stays in text
    assert trace_stays in text
    assert all(each not in text for kind in things.values() for each in kind if len(each) > 10)


def test_what_a_version_rests_on_stays_and_is_named(house: House) -> None:
    experiment = house.experiment()
    run, sealed_from = house.run(experiment), house.run(experiment)
    house.version(f"runs:/{run}/model", run)
    place = seal(house, "served", f"{house.root}/{experiment}/{sealed_from}/artifacts")
    name = house.version(f"{house.root}/elsewhere")
    house.execute("UPDATE model_versions SET storage_location = %s WHERE name = %s", (place, name))

    planned: dict[str, Any] = plan(house.settings, what="experiment", value=str(experiment))

    assert planned["things"] == {}
    assert planned["kept"] == {
        f"runs {run}": planned["kept"][f"runs {run}"],
        f"runs {sealed_from}": f"version 1 of the model {name!r} rests on a sealed copy of it",
        f"experiments {experiment}": "2 runs stay",
    }


def test_rows_stay_while_a_version_of_an_object_does_and_for_no_other_request(house: House) -> None:
    run = house.run(house.experiment())
    planned: dict[str, Any] = plan(house.settings, what="run", value=run)
    sha256, before = request(house, planned), house.rows()
    with pytest.raises(OperationError, match="is not the one that was asked for"):
        remove(house.settings, request="r", sha256="0" * 64)
    with pytest.raises(OperationError, match="NoSuchKey"):
        remove(house.settings, request="other", sha256=sha256)
    # Only marked as deleted: every byte is still there.
    for key in house.present():
        if run in key:
            house.store.client.delete_object(Bucket=house.store.bucket, Key=key)
    done = remove(house.settings, request="r", sha256=sha256)
    assert list(done["kept"]) == [f"runs {run}"]  # type: ignore[call-overload]
    assert done["rows_left"] == planned["rows"]
    assert house.rows() == before
    delete(house, planned)
    assert remove(house.settings, request="r", sha256=sha256)["kept"] == {}
    # Once more, after it was done: nothing.
    assert remove(house.settings, request="r", sha256=sha256) == {"kept": {}, "rows_left": {}}


def test_a_run_that_was_registered_since_the_plan_keeps_its_rows(house: House) -> None:
    run = house.run(house.experiment())
    planned: dict[str, Any] = plan(house.settings, what="run", value=run)
    sha256 = request(house, planned)
    delete(house, planned)
    house.version(f"runs:/{run}/model", run)
    assert list(remove(house.settings, request="r", sha256=sha256)["kept"]) == [f"runs {run}"]  # type: ignore[call-overload]


def test_the_order_covers_every_kind() -> None:
    from mlflow_aws_server.cleanup.rows import TABLES

    assert set(KINDS) == set(TABLES)
