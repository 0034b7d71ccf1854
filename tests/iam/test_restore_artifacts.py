"""Who may bring back what was deleted: an admin, by the deployed policies, and no contributor."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
from botocore.exceptions import ClientError

from operations import restore_artifacts
from operations.command import Report
from tests.iam.conftest import PREFIX, Deployed
from tests.operations.answers import deployment

KEY = f"{PREFIX}/1/restored/model.bin"


def restore(deployed: Deployed, role: str) -> Report:
    s3 = deployed.roles[role].client("s3")
    base = deployment({"s3": s3})
    artifacts = base.environment.artifacts.model_copy(update={"prefix": PREFIX})
    here = dataclasses.replace(
        base,
        environment=base.environment.model_copy(update={"artifacts": artifacts}),
        outputs={"ArtifactBucket": deployed.bucket},
    )
    options = argparse.Namespace(of="1/restored", at=None, apply=True)
    return restore_artifacts.run(here, options, lambda _: None)


def test_an_admin_brings_back_what_a_contributor_deleted_and_a_contributor_does_not(
    deployed: Deployed,
) -> None:
    contributor = deployed.roles["contributor"].client("s3")
    contributor.put_object(Bucket=deployed.bucket, Key=KEY, Body=b"weights")
    contributor.delete_object(Bucket=deployed.bucket, Key=KEY)
    with pytest.raises(ClientError, match="AccessDenied"):
        restore(deployed, "contributor")
    assert restore(deployed, "admin").document["restored"] == 1
    assert contributor.get_object(Bucket=deployed.bucket, Key=KEY)["Body"].read() == b"weights"
