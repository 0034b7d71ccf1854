"""What anybody writes about a version judges nothing; what the server writes, nobody else can."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping

import pytest

from tests.attacks_on_evidence.bytes_attacks import FILE, overwrite
from tests.attacks_on_evidence.site import (
    APPROVER,
    AUTHOR,
    COLLEAGUE,
    FILES,
    INSIDERS,
    MOMENTS,
    Model,
    Moment,
    Person,
    Site,
)

pytestmark = pytest.mark.slow

MANIFEST = "lifecycle.manifest"


def forged_manifest(model: Model, *, prefix: str) -> str:
    """A manifest as contributors once recorded it, of what is below `prefix` now, with the old times."""
    items = []
    for path in sorted(FILES):
        where = {"Bucket": model.site.bucket, "Key": f"{prefix}/{path}"}
        found = model.site.root_s3.get_object(**where)
        items.append(
            {
                "path": path,
                "version_id": found["VersionId"],
                "sha256": hashlib.sha256(found["Body"].read()).hexdigest(),
                "etag": found["ETag"].strip('"'),
                "size": found["ContentLength"],
                "modified": "2026-01-01T00:00:00+00:00",
            }
        )
    return json.dumps(
        {"bucket": model.site.bucket, "prefix": prefix, "items": items},
        sort_keys=True,
        separators=(",", ":"),
    )


def forged_decision(model: Model, manifest: str) -> str:
    """A decision by the approver, confirmed by nothing."""
    return json.dumps(
        {
            "action": "promote",
            "version": model.number,
            "stage": "Production",
            "alias": "champion",
            "compared_with": "",
            "at": "2026-01-01T00:00:00+00:00",
            "event": "20260101T000000.000000Z-0000",
            "principal": APPROVER.arn,
            "role": "approver",
            "policy": {"file": "policy.toml", "version": 1, "sha256": "0" * 64},
            "rules": [],
            "manifest_sha256": hashlib.sha256(manifest.encode()).hexdigest(),
            "ci": None,
            "schema": 1,
        }
    )


def set_tags(model: Model, person: Person, tags: Mapping[str, str]) -> None:
    """With a stock client; must succeed."""
    with model.site.being(person) as client:
        for key, value in tags.items():
            client.set_model_version_tag(model.name, model.number, key, value)


def rewrite_everything(model: Model, person: Person) -> None:
    """Point 1: the file, the manifest recorded anew with the old times, the decisions with its digest."""
    overwrite(model.site.s3(person), model.site.bucket, model.source)
    manifest = forged_manifest(model, prefix=model.source)
    decisions = {key: forged_decision(model, manifest) for key in model.tags if ".decision." in key}
    decisions["lifecycle.decision.20260101T000000.000000Z-0000"] = forged_decision(model, manifest)
    set_tags(model, person, {MANIFEST: manifest, **decisions})


def record_another_prefix(model: Model, person: Person) -> None:
    """Point 2: a manifest of good copies elsewhere, and then another model in place of the true one."""
    elsewhere = f"{model.source}-copies"
    for path, content in FILES.items():
        model.site.s3(person).put_object(Bucket=model.site.bucket, Key=f"{elsewhere}/{path}", Body=content)
    set_tags(model, person, {MANIFEST: forged_manifest(model, prefix=elsewhere)})
    overwrite(model.site.s3(person), model.site.bucket, model.source)


def swap_and_record(model: Model, person: Person) -> None:
    """Point 3: another model, and a manifest of it."""
    overwrite(model.site.s3(person), model.site.bucket, model.source)
    set_tags(model, person, {MANIFEST: forged_manifest(model, prefix=model.source)})


def upload_again_and_record(model: Model, person: Person) -> None:
    """The same bytes as a new object version, and a manifest of that."""
    model.site.s3(person).put_object(Bucket=model.site.bucket, Key=f"{model.source}/{FILE}", Body=FILES[FILE])
    set_tags(model, person, {MANIFEST: forged_manifest(model, prefix=model.source)})


def claim_another_digest(model: Model, person: Person) -> None:
    """An unconfirmed decision with a foreign digest once made an untouched version `tampered`."""
    key = "lifecycle.decision.20260101T000000.000000Z-0000"
    set_tags(model, person, {key: forged_decision(model, "something else")})


def claim_nonsense(model: Model, person: Person) -> None:
    """A manifest that is none."""
    set_tags(model, person, {MANIFEST: '{"items": 5}', f"{MANIFEST}.1": "["})


FORGERIES: tuple[Callable[[Model, Person], None], ...] = (
    rewrite_everything,
    record_another_prefix,
    swap_and_record,
    upload_again_and_record,
    claim_another_digest,
    claim_nonsense,
)


@pytest.fixture(scope="module")
def in_production(site: Site) -> Model:
    """A version in Production, shared by forgeries that must leave it as it is."""
    return site.model("run artifact")


@pytest.mark.parametrize("person", INSIDERS, ids=lambda person: person.name)
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_after_production_a_forged_record_changes_neither_what_is_loaded_nor_the_verdict(
    forge: Callable[[Model, Person], None], person: Person, in_production: Model
) -> None:
    forge(in_production, person)
    assert in_production.loaded() == FILES
    in_production.assert_as_approved()


@pytest.mark.parametrize("moment", MOMENTS[:2])
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_before_production_a_forged_record_lets_no_other_model_be_promoted(
    forge: Callable[[Model, Person], None], moment: Moment, site: Site
) -> None:
    model = site.model("logged model", until=moment)
    forge(model, COLLEAGUE)
    model.live_on(moment)
    assert model.loaded() == FILES
    model.assert_as_approved()


@pytest.mark.parametrize("person", INSIDERS, ids=lambda person: person.name)
@pytest.mark.parametrize("key", ["mlflow_aws.seal", "mlflow_aws.principal", "the history", "a new history"])
def test_nobody_writes_or_removes_what_the_server_wrote(
    key: str, person: Person, in_production: Model
) -> None:
    site, model = in_production.site, in_production
    before = model.tags
    if key == "the history":
        key = next(each for each in before if each.startswith("mlflow_aws.history."))
    elif key == "a new history":
        key = "mlflow_aws.history.20260101T000000.000000Z-0000"
    where = {"name": model.name, "version": model.number}
    status, answer = site.send(person, "POST", "model-versions/set-tag", {**where, "key": key, "value": "{}"})
    assert (status, key in str(answer)) == (403, True)
    status, _ = site.send(person, "DELETE", "model-versions/delete-tag", {**where, "key": key})
    assert status == 403
    assert model.tags == before


@pytest.mark.parametrize("key", ["mlflow_aws.seal", "mlflow_aws.history.20260101T000000.000000Z-0000"])
def test_a_version_is_not_registered_with_a_seal_of_its_author_s(key: str, site: Site) -> None:
    model = site.model("run artifact", until="before Staging")
    body = {
        "name": model.name,
        "source": f"s3://{site.bucket}/{model.source}",
        "run_id": model.run_id,
        "tags": [{"key": key, "value": json.dumps({"prefix": "elsewhere"})}],
    }
    status, answer = site.send(AUTHOR, "POST", "model-versions/create", body)
    assert (status, key in str(answer)) == (403, True)


def _forge_seal(model: Model, **changed: object) -> None:
    value = json.dumps({**model.seal, **changed}).replace("'", "''")
    _rewrite(model, "mlflow_aws.seal", value)


def _rewrite(model: Model, key: str, value: str) -> None:
    model.site.sql(
        f"UPDATE model_version_tags SET value = '{value}' WHERE name = '{model.name}' AND key = '{key}'"
    )


def past_the_server_another_digest(model: Model) -> None:
    _forge_seal(model, sha256="0" * 64)


def past_the_server_another_prefix(model: Model) -> None:
    _forge_seal(model, prefix=model.source)


def past_the_server_another_location(model: Model) -> None:
    model.site.sql(
        f"UPDATE model_versions SET storage_location = 's3://{model.site.bucket}/{model.source}' "
        f"WHERE name = '{model.name}'"
    )


def past_the_server_another_manifest(model: Model) -> None:
    """A manifest of another model, in its place in S3, while the digest in the tag stays."""
    key = model.seal["manifest"]
    document = json.loads(model.site.root_s3.get_object(Bucket=model.site.bucket, Key=key)["Body"].read())
    document["items"] = document["items"][:1]
    body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    model.site.root_s3.put_object(Bucket=model.site.bucket, Key=key, Body=body)


def past_the_server_no_manifest(model: Model) -> None:
    model.site.root_s3.delete_object(Bucket=model.site.bucket, Key=model.seal["manifest"])


def past_the_server_no_seal(model: Model) -> None:
    model.site.sql(f"DELETE FROM model_version_tags WHERE name = '{model.name}' AND key = 'mlflow_aws.seal'")


def _history(model: Model) -> list[str]:
    return sorted(key for key in model.tags if key.startswith("mlflow_aws.history."))


def past_the_server_an_altered_move(model: Model) -> None:
    key = _history(model)[0]
    entry = json.loads(model.tags[key])
    entry["principal"] = AUTHOR.arn
    value = json.dumps(entry).replace("'", "''")
    _rewrite(model, key, value)


def past_the_server_a_missing_move(model: Model) -> None:
    key = _history(model)[0]
    model.site.sql(f"DELETE FROM model_version_tags WHERE name = '{model.name}' AND key = '{key}'")


PAST_THE_SERVER: tuple[Callable[[Model], None], ...] = (
    past_the_server_another_digest,
    past_the_server_another_prefix,
    past_the_server_another_location,
    past_the_server_another_manifest,
    past_the_server_no_manifest,
    past_the_server_no_seal,
    past_the_server_an_altered_move,
    past_the_server_a_missing_move,
)


@pytest.mark.parametrize("forge", PAST_THE_SERVER, ids=lambda forge: forge.__name__)
def test_what_is_forged_past_the_server_is_shown(forge: Callable[[Model], None], site: Site) -> None:
    model = site.model("run artifact")
    forge(model)
    model.assert_shows_tampering()


def test_a_deleted_version_leaves_what_happened_to_it(site: Site) -> None:
    model = site.model("run artifact")
    place, where = model.place, {"name": model.name, "version": model.number}
    assert site.send(AUTHOR, "DELETE", "model-versions/delete", where)[0] == 403
    alias = {"name": model.name, "alias": "champion"}
    assert site.send(APPROVER, "DELETE", "registered-models/alias", alias)[0] == 200
    moved = {**where, "stage": "Archived", "archive_existing_versions": False}
    assert site.send(APPROVER, "POST", "model-versions/transition-stage", moved)[0] == 200
    assert site.send(APPROVER, "DELETE", "model-versions/delete", where)[0] == 200
    with site.being(COLLEAGUE) as client:
        tags = client.get_registered_model(model.name).tags
    (entry,) = (json.loads(value) for key, value in tags.items() if key.startswith("mlflow_aws.history."))
    assert (entry["action"], entry["version"]) == ("version-deleted", model.number)
    assert entry["principal"] == APPROVER.arn
    found = site.root_s3.get_object(Bucket=site.bucket, Key=f"{place}/{FILE}")
    assert found["Body"].read() == FILES[FILE]


def test_a_renamed_model_is_still_what_was_approved(site: Site) -> None:
    model = site.model("run artifact", until="between Staging and Production")
    other = dataclasses.replace(model, name=f"{model.name}-renamed")
    body = {"name": model.name, "new_name": other.name}
    assert site.send(AUTHOR, "POST", "registered-models/rename", body)[0] == 403
    assert site.send(APPROVER, "POST", "registered-models/rename", body)[0] == 200
    site.promote(other.name, other.number, "production")
    other.assert_as_approved()


def test_a_model_deleted_and_made_again_by_the_same_name_gets_a_place_of_its_own(site: Site) -> None:
    model = site.model("run artifact", until="before Staging")
    first = model.place
    assert site.send(APPROVER, "DELETE", "registered-models/delete", {"name": model.name})[0] == 200
    with site.being(COLLEAGUE) as client:
        client.create_registered_model(model.name)
        client.create_model_version(model.name, f"s3://{site.bucket}/{model.source}", model.run_id)
    assert model.place != first
    assert model.loaded("1") == FILES
