"""The whole life of a model, as `make demo-lifecycle` shows it: real server, tokens, S3 versions and IAM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lifecycle.conftest import Site
from tests.local.conftest import account

if TYPE_CHECKING:
    from tests.local.conftest import Account

__all__ = ["account"]

_WRITES = ("contributor", "approver", "admin")


@pytest.mark.slow
def test_every_step_of_a_models_life_holds(site: Site, account: Account, tmp_path: Path) -> None:
    from local.lifecycle import Life, live
    from local.processes import Ledger

    account.aws.client("s3").create_bucket(
        Bucket="example-artifacts", CreateBucketConfiguration={"LocationConstraint": account.aws.region}
    )
    account.aws.client("s3").put_bucket_versioning(
        Bucket="example-artifacts", VersioningConfiguration={"Status": "Enabled"}
    )

    def environment(role: str) -> Mapping[str, str]:
        actions = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"]
        actions += ["s3:PutObject"] if role in _WRITES else []
        aws = account.role([{"Effect": "Allow", "Action": actions, "Resource": "*"}])
        return {
            "MLFLOW_TRACKING_URI": site.url,
            "MLFLOW_TRACKING_TOKEN": site.identity.token(role),
            "AWS_ENDPOINT_URL": aws.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": aws.endpoint,
            "AWS_REGION": aws.region,
            "AWS_DEFAULT_REGION": aws.region,
            "AWS_ACCESS_KEY_ID": aws.access_key,
            "AWS_SECRET_ACCESS_KEY": aws.secret_key,
            "AWS_SESSION_TOKEN": aws.session_token or "",
        }

    life = Life(environment, tmp_path / "lifecycle", Ledger(tmp_path / "processes"))
    assert live(life, url=site.url) == 0
    better = json.loads((tmp_path / "lifecycle" / "better.json").read_text())
    assert (tmp_path / "lifecycle" / f"credit-risk-{better['version']}-tampered.html").is_file()
