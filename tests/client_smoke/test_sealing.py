from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from client_smoke.identity import Caller
from client_smoke.models import SecondVersion
from client_smoke.sealing import (
    SealedCopy,
    approver_cannot_change_what_is_sealed,
    contributor_is_refused_a_frozen_run,
    version_is_sealed,
    you_cannot_change_what_is_sealed,
)
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment
from client_smoke.verdict import CannotRun, NotTried, StepFailed
from tests.roles import permissions

Offline = Callable[..., Smoke]
PREFIX = "sealed/smoke/2/1700000000000"
MANIFEST = f"{PREFIX}.manifest.json"
COPY = SealedCopy("bucket", PREFIX, MANIFEST, "MLmodel", "v1", 2)
FILES = {f"{PREFIX}/MLmodel": b"flavors: {}", f"{PREFIX}/model.skops": b"a forest of trees"}
WAYS = {
    "create_multipart_upload": "aws s3api abort-multipart-upload",
    "put_object new": f"delete-object --bucket bucket --key {PREFIX}/smoke-probe --version-id new",
    "put_object_acl": "it is private, as it was",
    "put_object_tagging": "aws s3api delete-object-tagging",
    "delete_object_tagging": "it has no tags now",
    "put_object over": f"delete-object --bucket bucket --key {PREFIX}/MLmodel --version-id new",
    "copy_object": f"delete-object --bucket bucket --key {PREFIX}/MLmodel --version-id new",
    "put_object manifest": f"delete-object --bucket bucket --key {MANIFEST} --version-id new",
    "delete_object": f"delete-object --bucket bucket --key {PREFIX}/MLmodel --version-id new",
    "delete_objects": f"delete-object --bucket bucket --key {PREFIX}/MLmodel --version-id marker",
    "delete_object version": "gone for good",
}


class FakeS3:
    """A bucket with a sealed copy that refuses every change but the one of these ways."""

    def __init__(self, allows: str = "", *, code: str = "AccessDenied", elsewhere: bool = True) -> None:
        self.objects = dict(FILES)
        self.heads: dict[str, dict[str, object]] = {
            key: {"VersionId": "v1", "ContentLength": len(body), "ChecksumSHA256": f"sum of {key}"}
            for key, body in FILES.items()
        }
        self.allows, self.code, self.elsewhere = allows, code, elsewhere
        self.done: list[str] = []
        self.bodies: list[object] = []

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Body": io.BytesIO(self.objects[Key])}

    def head_object(self, *, Bucket: str, Key: str, ChecksumMode: str) -> dict[str, Any]:  # noqa: N803
        return self.heads[Key]

    def get_paginator(self, _operation: str) -> Any:
        return SimpleNamespace(
            paginate=lambda *, Bucket, Prefix: [  # noqa: N803
                {"Contents": [{"Key": key} for key in self.objects if key.startswith(Prefix)]}
            ]
        )

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> dict[str, Any]:  # noqa: N803
        if not Key.startswith("sealed/"):
            if not self.elsewhere:
                raise self._refusal("PutObject")
            return {}
        self.bodies.append(Body)
        kind = {f"{PREFIX}/MLmodel": "over", MANIFEST: "manifest"}.get(Key, "new")
        return self._answer(f"put_object {kind}")

    def delete_object(self, *, VersionId: str = "", **_: str) -> dict[str, Any]:  # noqa: N803
        return self._answer("delete_object version" if VersionId else "delete_object")

    def delete_objects(self, **_: object) -> dict[str, Any]:
        try:
            self._answer("delete_objects")
        except ClientError as error:
            return {"Errors": [{"Key": "x", **error.response["Error"]}]}
        return {"Deleted": [{"Key": "x", "DeleteMarkerVersionId": "marker"}]}

    def __getattr__(self, operation: str) -> Any:
        return lambda **_: self._answer(operation)

    def _answer(self, way: str) -> dict[str, Any]:
        self.done.append(way)
        if way != self.allows:
            raise self._refusal(way)
        return {"VersionId": "new", "UploadId": "upload"}

    def _refusal(self, way: str) -> ClientError:
        return ClientError({"Error": {"Code": self.code, "Message": "no"}}, way)


def manifest(**changes: object) -> bytes:
    items = [
        {
            "path": key.removeprefix(f"{PREFIX}/"),
            "version_id": "v1",
            "size": len(body),
            "checksum": f"sum of {key}",
        }
        for key, body in FILES.items()
    ]
    return json.dumps({"schema": 1, "items": items} | changes).encode()


@pytest.fixture
def registered(offline: Offline) -> Callable[..., Smoke]:
    """A run whose second version has this seal and state, and whose S3 is this."""

    def make(
        s3: FakeS3,
        *,
        sealed: bool = True,
        status: str = "READY",
        stage: str = "Production",
        loads: str = f"s3://bucket/{PREFIX}",
    ) -> Smoke:
        s3.objects.setdefault(MANIFEST, manifest())
        digest = hashlib.sha256(manifest()).hexdigest()
        seal = {"bucket": "bucket", "prefix": PREFIX, "manifest": MANIFEST, "sha256": digest}
        client = Mock()
        client.get_model_version.return_value = SimpleNamespace(
            tags={"mlflow_aws.seal": json.dumps(seal)} if sealed else {},
            status=status,
            status_message="3 of 5 files",
            current_stage=stage,
        )
        client.get_model_version_download_uri.return_value = loads
        smoke = offline(mlflow=client, s3=s3)
        smoke.remember(SecondVersion(version="2", model_uuid="second", run_id="r2"))
        return smoke

    return make


def test_sealed_version_passes_and_its_smallest_file_is_what_attempts_aim_at(
    registered: Callable[..., Smoke],
) -> None:
    smoke = registered(FakeS3())
    assert version_is_sealed(smoke).startswith(f"2 files under s3://bucket/{PREFIX}, ")
    assert smoke.recall(SealedCopy) == COPY


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({"sealed": False}, "in stage Production, without a seal"),
        ({"status": "PENDING_REGISTRATION"}, r"is PENDING_REGISTRATION \(3 of 5 files\)"),
        ({"loads": "s3://bucket/runs/7/models/m-1/artifacts"}, "clients load version 2 of .* from s3://b"),
        ({"loads": f"s3://other/{PREFIX}"}, f"and its seal names s3://bucket/{PREFIX}"),
    ],
)
def test_version_that_is_not_loaded_from_its_seal_fails_the_step(
    registered: Callable[..., Smoke], state: dict[str, Any], seen: str
) -> None:
    with pytest.raises(StepFailed, match=seen):
        version_is_sealed(registered(FakeS3(), **state))


def test_version_that_nobody_promoted_may_wait_for_its_seal(registered: Callable[..., Smoke]) -> None:
    with pytest.raises(NotTried) as skipped:
        version_is_sealed(registered(FakeS3(), sealed=False, stage="None"))
    assert skipped.value.next_action.startswith("pass --approver-token-file FILE")


def test_manifest_that_was_written_again_fails_the_step(registered: Callable[..., Smoke]) -> None:
    s3 = FakeS3()
    s3.objects[MANIFEST] = manifest(sealed_at="later")
    with pytest.raises(StepFailed, match=r"is not the manifest that the seal of version 2 .* names"):
        version_is_sealed(registered(s3))


@pytest.mark.parametrize("change", ["added", "removed"])
def test_other_files_than_those_of_the_manifest_fail_the_step(
    registered: Callable[..., Smoke], change: str
) -> None:
    s3 = FakeS3()
    if change == "added":
        s3.objects[f"{PREFIX}/code.py"] = b"import os"
    else:
        del s3.objects[f"{PREFIX}/MLmodel"]
    with pytest.raises(StepFailed, match=r"not in both: \['(code.py|MLmodel)'\]"):
        version_is_sealed(registered(s3))


@pytest.mark.parametrize(
    "other",
    [{"VersionId": "v2"}, {"ContentLength": 1}, {"ChecksumSHA256": "another"}, {"ChecksumSHA256": None}],
)
def test_file_that_s3_knows_otherwise_fails_the_step(
    registered: Callable[..., Smoke], other: dict[str, object]
) -> None:
    s3 = FakeS3()
    s3.heads[f"{PREFIX}/model.skops"] |= other
    with pytest.raises(StepFailed, match=r"model\.skops has version, size and SHA-256"):
        version_is_sealed(registered(s3))


def holding(offline: Offline, s3: FakeS3) -> Smoke:
    smoke = offline(s3=s3, approver_s3=s3)
    smoke.remember(COPY)
    smoke.remember(Experiment("7", "bucket", "runs/7"))
    return smoke


@pytest.mark.parametrize("step", [you_cannot_change_what_is_sealed, approver_cannot_change_what_is_sealed])
def test_role_that_is_denied_every_way_passes(offline: Offline, step: Callable[[Smoke], str]) -> None:
    s3 = FakeS3()
    assert step(holding(offline, s3)).startswith(f"{len(WAYS)} ways to write or delete under s3://bucket/")
    assert s3.done == list(WAYS)


@pytest.mark.parametrize("step", [you_cannot_change_what_is_sealed, approver_cannot_change_what_is_sealed])
@pytest.mark.parametrize("way", WAYS)
def test_one_way_that_s3_lets_through_ends_the_step_with_what_undoes_it(
    offline: Offline, way: str, step: Callable[[Smoke], str]
) -> None:
    s3 = FakeS3(way)
    with pytest.raises(StepFailed, match=f"could .* under s3://bucket/{PREFIX}: ") as failed:
        step(holding(offline, s3))
    assert WAYS[way] in failed.value.seen
    assert s3.done[-1] == way


def test_what_is_written_over_a_file_is_its_own_content(offline: Offline) -> None:
    s3 = FakeS3()
    you_cannot_change_what_is_sealed(holding(offline, s3))
    assert s3.bodies[:2] == [FILES[f"{PREFIX}/MLmodel"]] * 2


def test_refusal_for_another_reason_than_permissions_fails_the_step(offline: Offline) -> None:
    with pytest.raises(StepFailed, match="S3 answered NoSuchBucket when your role tried to begin"):
        you_cannot_change_what_is_sealed(holding(offline, FakeS3(code="NoSuchBucket")))


def test_without_an_approvers_profile_the_step_is_skipped_with_what_to_pass(offline: Offline) -> None:
    with pytest.raises(NotTried) as skipped:
        approver_cannot_change_what_is_sealed(offline())
    assert skipped.value.next_action == "pass --approver-profile NAME"


def test_profile_that_may_not_write_anywhere_proves_nothing(offline: Offline) -> None:
    with pytest.raises(CannotRun, match="may not write s3://bucket/runs/7/smoke-probe-of-approver either"):
        approver_cannot_change_what_is_sealed(holding(offline, FakeS3(elsewhere=False)))


def contributing(offline: Offline, allows: str = "", *, role: str = "contributor") -> Smoke:
    def respond(_token: object, _method: str, path: str, *, json: dict[str, Any]) -> Any:
        assert json["run_id"] == "r2"
        if allows and path.endswith(allows):
            return SimpleNamespace(status_code=200, text="{}")
        return SimpleNamespace(status_code=403, text='{"error_code": "PERMISSION_DENIED"}')

    smoke = offline(request_as=respond, own_token=lambda: "own")
    smoke.remember(Caller("me", role, permissions(role)))
    smoke.remember(SecondVersion(version="2", model_uuid="second", run_id="r2"))
    return smoke


def test_contributor_that_is_refused_every_change_of_the_run_passes(offline: Offline) -> None:
    assert contributor_is_refused_a_frozen_run(contributing(offline)) == (
        "5 changes of run r2 refused with 403"
    )


@pytest.mark.parametrize(
    "allowed", ["runs/log-metric", "runs/log-batch", "runs/set-tag", "runs/update", "runs/delete"]
)
def test_one_change_of_the_run_that_a_contributor_may_make_fails_the_step(
    offline: Offline, allowed: str
) -> None:
    with pytest.raises(StepFailed, match=f"{allowed} by a contributor answered 200") as failed:
        contributor_is_refused_a_frozen_run(contributing(offline, allowed))
    assert "docs/decisions/frozen.md" in failed.value.next_action


def test_only_a_contributor_can_try_what_an_approver_may(offline: Offline) -> None:
    with pytest.raises(NotTried, match="this client's role is approver"):
        contributor_is_refused_a_frozen_run(contributing(offline, role="approver"))
