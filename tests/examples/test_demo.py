"""The whole life of a model, as `make demo-lifecycle` shows it: real server, tokens, S3 versions and IAM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_smoke.verdict import StepFailed
from examples.credit_risk.demo import Demo, play
from local.environment import clean
from local.parts.processes import Ledger
from tests.lifecycle.conftest import Site, identity, site
from tests.local.conftest import account

if TYPE_CHECKING:
    from tests.local.conftest import Account

__all__ = ["account", "identity", "site"]

_WRITES = ("contributor", "approver", "admin")


def _demo(tmp_path: Path) -> Demo:
    return Demo(lambda _role: clean(), tmp_path / "lifecycle", Ledger(tmp_path / "processes").tracked)


def test_the_demo_stops_at_the_first_step_that_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def broken(demo: Demo) -> str:
        tried.append("broken")
        demo.run("viewer", "-c", "import sys; sys.exit('no such model')")
        return ""

    def never(_demo: Demo) -> str:
        tried.append("never")
        return ""

    monkeypatch.setattr("examples.credit_risk.demo._STEPS", (("this holds", broken), ("this too", never)))
    assert play(_demo(tmp_path), url="https://localhost") == 1
    assert tried == ["broken"]
    assert "no such model" in capsys.readouterr().out


def test_a_step_that_should_be_refused_and_is_not_fails_the_step(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ended with 0, not 4"):
        _demo(tmp_path).run("contributor", "-c", "pass", expect=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_of_a_models_life_holds(site: Site, account: Account, tmp_path: Path) -> None:
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
        return clean() | {
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

    demo = Demo(environment, tmp_path / "lifecycle", Ledger(tmp_path / "processes").tracked)
    assert play(demo, url=site.url) == 0
    better = json.loads((tmp_path / "lifecycle" / "better.json").read_text())
    assert (tmp_path / "lifecycle" / f"credit-risk-{better['version']}-tampered.html").is_file()
