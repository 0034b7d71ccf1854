"""Steps about sealing: what consumers load is a copy that S3 vouches for, and that no client can change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from client_smoke.identity import Caller
from client_smoke.models import SecondVersion
from client_smoke.roles import must_be_denied, require_contributor
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment
from client_smoke.verdict import CannotRun, NotTried, StepFailed

SEAL = "mlflow_aws.seal"
_DENIED = "AccessDenied"
_API = "/api/2.0/mlflow"
_FROZEN = "look at the server's log: a run behind a registered version is frozen (docs/decisions/frozen.md)"
_SEALING = "look for this version in the server's log, and at docs/sealing.md"


@dataclass(frozen=True)
class SealedCopy:
    """Where a version's sealed copy is, and the one of its files that attempts to change it aim at."""

    bucket: str
    prefix: str
    manifest: str
    path: str
    version_id: str
    files: int

    @property
    def where(self) -> str:
        """The address that clients load from."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def key(self) -> str:
        """The key of that file."""
        return f"{self.prefix}/{self.path}"


@dataclass(frozen=True)
class _Attempt:
    """One way to change a sealed copy; `change` says what has changed, and what undoes it, if S3 let it."""

    what: str
    call: Callable[[], dict[str, Any]]
    change: Callable[[dict[str, Any]], str]


def version_is_sealed(smoke: Smoke) -> str:
    """What the second version loads is named by its seal, and S3 has each file as the manifest says."""
    number = smoke.recall(SecondVersion).version
    version = smoke.mlflow.get_model_version(smoke.model_name, number)
    if SEAL not in version.tags and version.current_stage == "None":
        raise NotTried(
            f"version {number} of {smoke.model_name} has no seal, and was not promoted",
            next_action="pass --approver-token-file FILE: some deployments seal at the first promotion",
        )
    copy = sealed_copy(smoke.mlflow, smoke.s3, smoke.model_name, number)
    smoke.remember(copy)
    return f"{copy.files} files under {copy.where}, with versions, sizes, SHA-256 of the manifest"


def sealed_copy(client: Any, s3: Any, name: str, number: str) -> SealedCopy:
    """The copy that clients load this version from; `StepFailed` unless its seal and S3 agree about it."""
    version, what = client.get_model_version(name, number), f"version {number} of {name}"
    if SEAL not in version.tags or version.status != "READY":
        raise StepFailed(
            f"{what} is {version.status} ({version.status_message or 'no message'}), in stage "
            f"{version.current_stage}, {'with' if SEAL in version.tags else 'without'} a seal",
            next_action=_SEALING,
        )
    seal = json.loads(version.tags[SEAL])
    bucket, prefix, manifest = str(seal["bucket"]), str(seal["prefix"]), str(seal["manifest"])
    loaded = client.get_model_version_download_uri(name, number)
    if loaded.rstrip("/") != f"s3://{bucket}/{prefix}":
        raise StepFailed(
            f"clients load {what} from {loaded}, and its seal names s3://{bucket}/{prefix}",
            next_action=_SEALING,
        )
    written: bytes = s3.get_object(Bucket=bucket, Key=manifest)["Body"].read()
    if hashlib.sha256(written).hexdigest() != seal["sha256"]:
        raise StepFailed(
            f"s3://{bucket}/{manifest} is not the manifest that the seal of {what} names",
            next_action="list the object's versions in S3: somebody wrote it after the server did",
        )
    items = json.loads(written)["items"]
    _compare(s3, bucket, prefix, items)
    smallest = min(items, key=lambda item: int(item["size"]))
    return SealedCopy(bucket, prefix, manifest, smallest["path"], smallest["version_id"], len(items))


def you_cannot_change_what_is_sealed(smoke: Smoke) -> str:
    """Every S3 write and delete on what Production loads, with this client's own AWS identity, is denied."""
    return every_change_is_denied(smoke.s3, smoke.recall(SealedCopy), who="your role")


def approver_cannot_change_what_is_sealed(smoke: Smoke) -> str:
    """The same with an approver's AWS identity, which writes elsewhere and so is not just shut out."""
    s3 = smoke.approver_s3
    if s3 is None:
        raise NotTried("no AWS profile of an approver was given", next_action="pass --approver-profile NAME")
    experiment = smoke.recall(Experiment)
    probe = f"{experiment.prefix}/smoke-probe-of-approver"
    _, code = _try(lambda: s3.put_object(Bucket=experiment.bucket, Key=probe, Body=b"probe"))
    if code is not None:
        raise CannotRun(
            f"the approver's profile may not write s3://{experiment.bucket}/{probe} either ({code})",
            next_action="pass the profile of a role with the policy ApproverPolicyArn",
        )
    return every_change_is_denied(s3, smoke.recall(SealedCopy), who="an approver")


def contributor_is_refused_a_frozen_run(smoke: Smoke) -> str:
    """As the contributor who made it, changing or deleting the run behind a registered version is refused."""
    caller, second = smoke.recall(Caller), smoke.recall(SecondVersion)
    require_contributor(caller)
    run = {"run_id": second.run_id}
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        (f"{_API}/runs/log-metric", run | {"key": "accuracy", "value": 1.0, "timestamp": 1, "step": 1}),
        (f"{_API}/runs/log-batch", run | {"params": [{"key": "smoke-changed", "value": "yes"}]}),
        (f"{_API}/runs/set-tag", run | {"key": "smoke", "value": "changed"}),
        (f"{_API}/runs/update", run | {"status": "RUNNING"}),
        (f"{_API}/runs/delete", run),
    )
    for path, body in attempts:
        must_be_denied(smoke, smoke.own_token(), path, body, who="a contributor", next_action=_FROZEN)
    return f"{len(attempts)} changes of run {second.run_id} refused with 403"


def every_change_is_denied(s3: Any, copy: SealedCopy, *, who: str) -> str:
    """Try every way to write or delete; the first that S3 lets through is a `StepFailed`."""
    # The same bytes: should S3 let one through, the file still says what it said.
    body: bytes = s3.get_object(Bucket=copy.bucket, Key=copy.key)["Body"].read()
    tried = 0
    for attempt in _attempts(s3, copy, body):
        tried += 1
        answer, code = _try(attempt.call)
        if code is None:
            raise StepFailed(
                f"{who} could {attempt.what} under {copy.where}: {attempt.change(answer)}",
                next_action="put the bucket policy's Deny on sealed/* back (docs/sealing.md), then undo the "
                "change as the break-glass role",
            )
        if code != _DENIED:
            raise StepFailed(
                f"S3 answered {code} when {who} tried to {attempt.what}, not {_DENIED}",
                next_action="compare the statements on sealed/* of the bucket's and of the role's policy",
            )
    return f"{tried} ways to write or delete under {copy.where}: {_DENIED} to each"


def _compare(s3: Any, bucket: str, prefix: str, items: list[dict[str, Any]]) -> None:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    listed = {entry["Key"].removeprefix(f"{prefix}/") for page in pages for entry in page.get("Contents", ())}
    named = {str(item["path"]) for item in items}
    if not items or listed != named:
        raise StepFailed(
            f"under s3://{bucket}/{prefix} S3 has {len(listed)} files and the manifest names {len(named)}; "
            f"not in both: {sorted(listed ^ named)[:5]}",
            next_action="list the prefix's versions in S3: somebody but the server wrote or deleted there",
        )
    for item in items:
        head = s3.head_object(Bucket=bucket, Key=f"{prefix}/{item['path']}", ChecksumMode="ENABLED")
        found = (head.get("VersionId"), head["ContentLength"], head.get("ChecksumSHA256"))
        recorded = (item["version_id"], item["size"], item["checksum"])
        if found != recorded:
            raise StepFailed(
                f"s3://{bucket}/{prefix}/{item['path']} has version, size and SHA-256 {found}, "
                f"and its manifest says {recorded}",
                next_action="list the object's versions in S3: somebody wrote it after the server did",
            )


def _attempts(s3: Any, copy: SealedCopy, body: bytes) -> Iterator[_Attempt]:
    """From the harmless to what cannot be undone; the first that S3 lets through ends the step."""
    file = {"Bucket": copy.bucket, "Key": copy.key}
    manifest = {"Bucket": copy.bucket, "Key": copy.manifest}
    new = {"Bucket": copy.bucket, "Key": f"{copy.prefix}/smoke-probe"}

    def written(place: dict[str, str]) -> Callable[[dict[str, Any]], str]:
        return lambda answer: f"it has a new version; undo: {_remove(place, answer.get('VersionId'))}"

    def marked(answer: dict[str, Any]) -> str:
        deleted = (answer.get("Deleted") or [{}])[0]
        marker = answer.get("VersionId") or deleted.get("DeleteMarkerVersionId")
        return f"it has a delete marker; undo: {_remove(file, marker)}"

    def delete_several() -> dict[str, Any]:
        answer: dict[str, Any] = s3.delete_objects(
            Bucket=copy.bucket, Delete={"Objects": [{"Key": copy.key}]}
        )
        # S3 answers a batch with 200, and says of each object what became of it.
        for error in answer.get("Errors", ()):
            raise _refused(error)
        return answer

    tags = {"TagSet": [{"Key": "smoke", "Value": "probe"}]}
    untag = f"aws s3api delete-object-tagging --bucket {copy.bucket} --key {copy.key}"
    yield _Attempt(
        "begin a multipart upload of a file",
        lambda: s3.create_multipart_upload(**file),
        lambda answer: (
            f"an upload has begun; undo: aws s3api abort-multipart-upload --bucket {copy.bucket} "
            f"--key {copy.key} --upload-id {answer.get('UploadId')}"
        ),
    )
    yield _Attempt("add a file", lambda: s3.put_object(**new, Body=body), written(new))
    yield _Attempt(
        "set a file's access control list",
        lambda: s3.put_object_acl(**file, ACL="private"),
        lambda _answer: "it is private, as it was",
    )
    yield _Attempt(
        "tag a file",
        lambda: s3.put_object_tagging(**file, Tagging=tags),
        lambda _answer: f"it has the tag smoke; undo: {untag}",
    )
    yield _Attempt(
        "remove a file's tags", lambda: s3.delete_object_tagging(**file), lambda _answer: "it has no tags now"
    )
    yield _Attempt("write over a file", lambda: s3.put_object(**file, Body=body), written(file))
    yield _Attempt(
        "copy over a file",
        lambda: s3.copy_object(**file, CopySource=dict(file), MetadataDirective="REPLACE"),
        written(file),
    )
    yield _Attempt(
        "write over the manifest", lambda: s3.put_object(**manifest, Body=b"{}"), written(manifest)
    )
    yield _Attempt("delete a file", lambda: s3.delete_object(**file), marked)
    yield _Attempt("delete files in a batch", delete_several, marked)
    yield _Attempt(
        "delete a file's version",
        lambda: s3.delete_object(**file, VersionId=copy.version_id),
        lambda _answer: f"version {copy.version_id} of {copy.key} is gone for good; nothing undoes it",
    )


def _remove(place: dict[str, str], version_id: object) -> str:
    return (
        f"aws s3api delete-object --bucket {place['Bucket']} --key {place['Key']} --version-id {version_id}"
    )


def _refused(error: dict[str, Any]) -> Exception:
    from botocore.exceptions import ClientError

    refused: Exception = ClientError({"Error": error}, "DeleteObjects")
    return refused


def _try(call: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """S3's answer and the code of its refusal; None if it did what was asked."""
    from botocore.exceptions import ClientError

    try:
        return call(), None
    except ClientError as error:
        return {}, str(error.response["Error"]["Code"])
