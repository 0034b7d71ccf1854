"""Steps about artifact bytes: straight to S3 and back, versioned, encrypted, unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from client_smoke.smoke import Smoke
from client_smoke.tracking import FILE_ARTIFACT, PLOT_ARTIFACT, Experiment, LoggedRun
from client_smoke.verdict import StepFailed
from client_smoke.wire import watch

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ARTIFACT_ROUTES = ("/mlflow-artifacts/", "/get-artifact")


def role_reaches_s3(smoke: Smoke) -> str:
    """Write and read one object under the experiment's root with this client's own AWS identity."""
    experiment = smoke.recall(Experiment)
    key = f"{experiment.prefix}/smoke-probe"
    body = smoke.identifier.encode()
    smoke.s3.put_object(Bucket=experiment.bucket, Key=key, Body=body)
    returned = smoke.s3.get_object(Bucket=experiment.bucket, Key=key)["Body"].read()
    if returned != body:
        raise StepFailed(
            f"s3://{experiment.bucket}/{key} returned {len(returned)} bytes other than those written",
            next_action="look in the bucket's access log for another writer of this key",
        )
    return f"wrote and read s3://{experiment.bucket}/{key}"


def artifacts_come_back_identical(smoke: Smoke) -> str:
    """Download as a user would; every byte of the file is as it left, and the plot is a picture."""
    import mlflow

    run = smoke.recall(LoggedRun)
    destination = smoke.scratch / "downloaded"
    destination.mkdir(exist_ok=True)
    with watch() as traffic:
        _ = smoke.mlflow
        paths = {
            artifact: Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run.id, artifact_path=artifact, dst_path=str(destination)
                )
            )
            for artifact in (FILE_ARTIFACT, PLOT_ARTIFACT)
        }
    content = paths[FILE_ARTIFACT].read_bytes()
    if hashlib.sha256(content).hexdigest() != run.file_sha256:
        raise StepFailed(
            f"{FILE_ARTIFACT} came back different: {len(content)} bytes where {run.file_bytes} were logged, "
            "SHA-256 does not match",
            next_action="list the object's versions in S3: somebody wrote it after this client did",
        )
    if not paths[PLOT_ARTIFACT].read_bytes().startswith(_PNG_SIGNATURE):
        raise StepFailed(
            f"{PLOT_ARTIFACT} came back as something other than a PNG picture",
            next_action="list the object's versions in S3: somebody wrote it after this client did",
        )
    carried = _artifact_requests(traffic.requests_to(smoke.target.host, smoke.target.port))
    if carried:
        raise StepFailed(
            f"the download went through the server: {carried[0]}",
            next_action="start the server with --no-serve-artifacts --default-artifact-root s3://BUCKET/",
        )
    return f"{run.file_bytes:,} bytes with SHA-256 {run.file_sha256[:12]}…, and a PNG"


def objects_are_versioned_and_encrypted(smoke: Smoke) -> str:
    """Ask S3 itself for each object: size, version id, SSE-KMS and its key."""
    run = smoke.recall(LoggedRun)
    location = urlsplit(run.artifact_uri)
    sizes = {}
    keys = set()
    for artifact in (FILE_ARTIFACT, PLOT_ARTIFACT):
        key = f"{location.path.lstrip('/')}/{artifact}"
        head = smoke.s3.head_object(Bucket=location.netloc, Key=key)
        where = f"s3://{location.netloc}/{key}"
        if head.get("VersionId") in {None, "null"}:
            raise StepFailed(
                f"{where} has no version id", next_action="turn on versioning of the artifact bucket"
            )
        encryption, kms_key = head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")
        if not str(encryption).startswith("aws:kms") or not kms_key:
            raise StepFailed(
                f"{where} is encrypted with {encryption or 'nothing'}, not with a KMS key",
                next_action="make SSE-KMS with the artifact key the bucket's default encryption",
            )
        sizes[artifact] = head["ContentLength"]
        keys.add(str(kms_key).rsplit("/", 1)[-1])
    if sizes[FILE_ARTIFACT] != run.file_bytes:
        raise StepFailed(
            f"{FILE_ARTIFACT} has {sizes[FILE_ARTIFACT]} bytes in S3, {run.file_bytes} were logged",
            next_action="list the object's versions in S3: somebody wrote it after this client did",
        )
    return f"{len(sizes)} objects with version ids, aws:kms, key {', '.join(sorted(keys))}"


def server_never_carries_artifacts(smoke: Smoke) -> str:
    """Count the bytes this process sent to the server and to S3, and try the server's proxy routes."""
    run = smoke.recall(LoggedRun)
    fix = "start the server with --no-serve-artifacts --default-artifact-root s3://BUCKET/"
    to_server = run.traffic.to(smoke.target.host, smoke.target.port)
    to_s3 = run.traffic.elsewhere(smoke.target.host, smoke.target.port)
    if to_server >= run.file_bytes or to_s3 < run.file_bytes:
        raise StepFailed(
            f"while logging a file of {run.file_bytes:,} bytes, {to_server:,} bytes went to the server "
            f"and {to_s3:,} elsewhere",
            next_action=fix,
        )
    proxy = "/api/2.0/mlflow-artifacts/artifacts"
    name = f"smoke-probe-{smoke.identifier}"
    attempts = (("GET", proxy, None), ("PUT", f"{proxy}/{name}", b"probe"), ("GET", f"{proxy}/{name}", None))
    statuses = []
    for method, path, data in attempts:
        status = smoke.request(method, path, data=data).status_code
        if status < 400:
            if method == "PUT":
                smoke.request("DELETE", path)
            raise StepFailed(
                f"{method} {path} answered {status}: the server proxies artifacts", next_action=fix
            )
        statuses.append(f"{method} {status}")
    return f"{to_server:,} bytes to the server, {to_s3:,} to S3; proxy refused ({', '.join(statuses)})"


def _artifact_requests(lines: list[str]) -> list[str]:
    return [line for line in lines if any(route in line for route in _ARTIFACT_ROUTES)]
