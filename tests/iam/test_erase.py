"""Who may erase: the break-glass role by the documented policy, and nobody else, whatever else they may."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.parts.aws import Aws
from operations import erase, task
from stacks.roles import BY_NAME as ROLES
from tests.documents import blocks
from tests.iam.conftest import BREAK_GLASS, PREFIX, SERVER, STRANGER, Deployed, session_of, session_with
from tests.iam.test_matrix import DENIALS, client_of
from tests.local.conftest import ACCOUNT
from tests.operations.answers import deployment

FORGED = f"{PREFIX}/erasures/forged/request.json"
PLACE = f"{PREFIX}/2/erased/"


@pytest.fixture(scope="module")
def break_glass(deployed: Deployed) -> Aws:
    (policy,) = (each.text for each in blocks("docs/operations.md") if "DeleteObjectVersion" in each.text)
    policy = policy.replace("BUCKET/erasures", f"BUCKET/{PREFIX}/erasures").replace("BUCKET", deployed.bucket)
    made = deployed.root.client("iam").create_policy(
        PolicyName="break-glass", PolicyDocument=policy.replace("KEY_ARN", deployed.key_arn)
    )
    return session_of(deployed.root, BREAK_GLASS.removeprefix("test-"), policy_arn=str(made["Policy"]["Arn"]))


def run(deployed: Deployed, who: Aws, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    planned = {
        "things": {"runs": {"erased": [PLACE]}}, "rows": {}, "kept": {}, "elsewhere": [], "more": False,
    }  # fmt: skip

    def ran(*_: Any, arguments: list[str], **__: Any) -> dict[str, Any]:
        return planned if arguments[0].startswith("--what") else {"kept": {}, "rows_left": {}}

    monkeypatch.setattr(task, "run", ran)
    base = deployment({name: client_of(who, name) for name in ("s3", "sts")})
    artifacts = base.environment.artifacts.model_copy(
        update={"prefix": PREFIX, "break_glass_role_arn": f"arn:aws:iam::{ACCOUNT}:role/{BREAK_GLASS}"}
    )
    environment = base.environment.model_copy(update={"artifacts": artifacts})
    here = dataclasses.replace(base, environment=environment, outputs={"ArtifactBucket": deployed.bucket})
    options = argparse.Namespace(**dict.fromkeys(erase.WHAT), dry_run=False, yes=True)
    options.run = "erased"
    return dict(erase.run(here, options, lambda _: None).document)


def test_the_break_glass_role_erases_with_the_documented_policy(
    deployed: Deployed, break_glass: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    contributor = client_of(deployed.roles["contributor"], "s3")
    for body in (b"first", b"second"):
        contributor.put_object(Bucket=deployed.bucket, Key=f"{PLACE}model.bin", Body=body)
    contributor.delete_object(Bucket=deployed.bucket, Key=f"{PLACE}model.bin")
    document = run(deployed, break_glass, monkeypatch)
    assert [document[each] for each in ("versions", "markers", "bytes")] == [2, 1, 11]
    left = client_of(deployed.root, "s3").list_object_versions(Bucket=deployed.bucket, Prefix=PLACE)
    assert left.get("Versions", []) + left.get("DeleteMarkers", []) == []


@pytest.mark.parametrize("role", [*ROLES, STRANGER, SERVER, "everything"])
def test_nobody_else_writes_a_request_or_deletes_a_version(role: str, deployed: Deployed) -> None:
    who = deployed.roles.get(role) or session_with(
        deployed.root, {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"}
    )
    root, s3 = client_of(deployed.root, "s3"), client_of(who, "s3")
    key = f"{PREFIX}/2/kept/model.bin"
    version = root.put_object(Bucket=deployed.bucket, Key=key, Body=b"x")["VersionId"]
    asks: list[Callable[[], Any]] = [
        lambda: s3.put_object(Bucket=deployed.bucket, Key=FORGED, Body=json.dumps({"things": {}}).encode()),
        lambda: s3.create_multipart_upload(Bucket=deployed.bucket, Key=FORGED),
        lambda: s3.copy_object(
            Bucket=deployed.bucket, Key=FORGED, CopySource={"Bucket": deployed.bucket, "Key": key}
        ),
        lambda: s3.delete_object(Bucket=deployed.bucket, Key=key, VersionId=version),
    ]
    for ask in asks:
        with pytest.raises(ClientError) as caught:
            ask()
        assert caught.value.response["Error"]["Code"] in DENIALS
    found = root.list_object_versions(Bucket=deployed.bucket, Prefix=f"{PREFIX}/erasures/forged")
    assert "Versions" not in found
