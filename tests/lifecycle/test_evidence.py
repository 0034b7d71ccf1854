"""What S3 says of a sealed version, and what shows."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from model_lifecycle import evidence
from model_lifecycle.evidence import TAG, UnreadableError

from tests.lifecycle.sealed_copy import CREATED_MS, SealedCopy, seal
from tests.object_store import ObjectStore


@pytest.fixture
def sealed(object_store: ObjectStore) -> SealedCopy:
    return seal(object_store)


def test_untouched_files_are_intact(sealed: SealedCopy) -> None:
    found = sealed.examined()
    assert (found.verdict, found.damage) == ("intact", ())
    assert [item.path for item in found.files] == ["MLmodel", "code/model.py"]


def test_the_time_of_the_question_is_told(sealed: SealedCopy) -> None:
    asked = dt.datetime.fromisoformat(sealed.examined().at)
    assert abs(dt.datetime.now(dt.UTC) - asked) < dt.timedelta(minutes=1)


def test_no_model_file_is_read(sealed: SealedCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    client = sealed.store.client
    read: list[str] = []
    get_object = client.get_object

    def noted(**more: Any) -> Any:
        read.append(more["Key"])
        return get_object(**more)

    monkeypatch.setattr(client, "get_object", noted)
    assert sealed.examined().verdict == "intact"
    assert read == [f"{sealed.prefix}.manifest.json"]


def test_an_overwritten_file_shows_with_both_object_versions(sealed: SealedCopy) -> None:
    expected = sealed.examined().files[0].version_id
    found = sealed.write("MLmodel", b"flavors: {other: {}}")
    (damage,) = sealed.examined().damage
    assert (damage.path, damage.what) == ("MLmodel", "overwritten")
    assert (damage.expected_version_id, damage.found_version_id) == (expected, found)
    assert damage.recoverable
    assert damage.when


def test_the_same_bytes_uploaded_again_show_too(sealed: SealedCopy) -> None:
    sealed.write("MLmodel", b"flavors: {}")
    found = sealed.examined()
    assert found.verdict == "tampered"
    assert found.damage[0].what == "written again with the same content"


def test_a_file_overwritten_without_a_checksum_shows(sealed: SealedCopy) -> None:
    key = f"{sealed.prefix}/MLmodel"
    sealed.store.client.put_object(Bucket=sealed.store.bucket, Key=key, Body=b"flavors: {other: {}}")
    assert [each.what for each in sealed.examined().damage] == ["overwritten"]


def test_a_deleted_file_shows_with_its_delete_marker(sealed: SealedCopy) -> None:
    marker = sealed.delete("code/model.py")
    (damage,) = sealed.examined().damage
    assert (damage.path, damage.what) == ("code/model.py", "deleted")
    assert damage.found_version_id in (marker, "")
    assert damage.recoverable


def test_an_added_file_shows(sealed: SealedCopy) -> None:
    sealed.write("extra.py", b"import os")
    assert [(each.path, each.what) for each in sealed.examined().damage] == [("extra.py", "added")]


def test_a_missing_manifest_is_tampering(sealed: SealedCopy) -> None:
    key = f"{sealed.prefix}.manifest.json"
    sealed.store.client.delete_object(Bucket=sealed.store.bucket, Key=key)
    found = sealed.examined()
    assert (found.verdict, found.note) == ("tampered", f"the manifest {key} is gone")


def test_a_manifest_that_was_written_anew_is_no_cover(sealed: SealedCopy) -> None:
    """The first attack of all: overwrite a file, then record it anew."""
    sealed.write("MLmodel", b"another model")
    anew = seal(sealed.store, {"MLmodel": b"another model"}, model=sealed.model)
    assert anew.prefix == sealed.prefix
    found = sealed.examined()
    assert found.verdict == "tampered"
    assert "is not the one that was sealed" in found.note


def test_a_seal_of_another_prefix_with_good_files_is_no_cover(sealed: SealedCopy) -> None:
    good = seal(sealed.store)
    assert good.examined().verdict == "intact"
    found = good.examined(served=sealed.served)
    assert found.verdict == "tampered"
    assert sealed.served in found.note


def test_a_version_that_is_served_from_its_source_is_tampered_with(sealed: SealedCopy) -> None:
    found = sealed.examined(served=f"s3://{sealed.store.bucket}/runs/1")
    assert (found.verdict, found.files) == ("tampered", ())


@pytest.mark.parametrize("other", [{"version": "2"}, {"model": "another", "created_ms": 1_767_225_600_001}])
def test_the_seal_of_another_version_seals_nothing(sealed: SealedCopy, other: dict[str, str]) -> None:
    assert "the seal is that of version 1" in sealed.examined(**other).note


def test_a_renamed_model_keeps_its_seals_and_their_first_name_is_told(sealed: SealedCopy) -> None:
    found = sealed.examined(model="another")
    assert found.verdict == "intact"
    assert f"sealed when the model's name was {sealed.model}" in found.note


def test_a_version_without_a_seal_is_not_sealed(sealed: SealedCopy) -> None:
    del sealed.tags[TAG]
    assert sealed.examined().verdict == "not sealed"


@pytest.mark.parametrize("value", ["", "{}", "[" * 100_000, "null", '{"sha256": 5}', "9" * 6000])
def test_a_tag_that_is_no_seal_is_tampering(sealed: SealedCopy, value: str) -> None:
    sealed.tags[TAG] = value
    assert sealed.examined().verdict == "tampered"


def test_a_file_whose_checksum_s3_does_not_tell_is_not_called_intact(
    sealed: SealedCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sealed.store.client
    head_object = client.head_object

    def without(**more: Any) -> Any:
        return {key: value for key, value in head_object(**more).items() if key != "ChecksumSHA256"}

    monkeypatch.setattr(client, "head_object", without)
    assert sealed.examined().verdict == "unreadable"


def test_a_size_or_checksum_that_differs_from_the_manifest_shows(
    sealed: SealedCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sealed.store.client
    head_object = client.head_object
    monkeypatch.setattr(client, "head_object", lambda **more: {**head_object(**more), "ContentLength": 0})
    assert len(sealed.examined().damage) == 2


def test_who_may_not_read_learns_that_and_no_verdict(
    sealed: SealedCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_more: Any) -> Any:
        refusal = {
            "Error": {"Code": "AccessDenied", "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }
        raise ClientError(refusal, "GetObject")

    monkeypatch.setattr(sealed.store.client, "get_object", denied)
    found = sealed.examined()
    assert found.verdict == "unreadable"
    assert "AccessDenied" in found.note


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_unreadable(sealed: SealedCopy) -> None:
    nowhere = boto3.client("s3", endpoint_url="http://127.0.0.1:9", config=Config(signature_version=UNSIGNED))
    found = evidence.examine(
        lambda: nowhere,
        sealed.tags,
        model=sealed.model,
        version="1",
        created_ms=CREATED_MS,
        served=sealed.served,
    )
    assert found.verdict == "unreadable"


def test_without_verification_s3_is_not_asked(sealed: SealedCopy) -> None:
    def s3() -> Any:
        raise AssertionError

    asked = {"model": sealed.model, "version": "1", "created_ms": CREATED_MS, "verify": False}
    assert evidence.examine(s3, sealed.tags, served=sealed.served, **asked).verdict == "not verified"  # type: ignore[arg-type]
    assert evidence.examine(s3, sealed.tags, served="s3://b/c", **asked).verdict == "tampered"  # type: ignore[arg-type]


def test_what_is_stored_is_listed_with_its_time(object_store: ObjectStore) -> None:
    uri = object_store.write_model("runs/listed", {"roc.png": b"x" * 7})
    (found,) = evidence.stored(lambda: object_store.client, uri)
    assert (found.path, found.size) == ("roc.png", 7)
    assert abs(dt.datetime.now(dt.UTC) - found.modified) < dt.timedelta(minutes=1)


def test_of_a_large_file_only_the_beginning_is_read(object_store: ObjectStore) -> None:
    uri = object_store.write_model("runs/large", {"conda.yaml": b"x" * 1_000_000})
    assert evidence.beginning(lambda: object_store.client, f"{uri}/conda.yaml", limit=10) == b"x" * 10


@pytest.mark.parametrize("uri", ["file:///etc", "s3://", "s3://[", "mlflow-artifacts:/1", ""])
def test_artifacts_elsewhere_cannot_be_listed(object_store: ObjectStore, uri: str) -> None:
    with pytest.raises(UnreadableError):
        evidence.stored(lambda: object_store.client, uri)
    assert evidence.beginning(lambda: object_store.client, uri, limit=10) == b""


def test_a_tag_survives_the_keys_that_a_later_server_adds(sealed: SealedCopy) -> None:
    sealed.tags[TAG] = json.dumps({**json.loads(sealed.tags[TAG]), "retained_until": "2033-01-01"})
    assert sealed.examined().verdict == "intact"
