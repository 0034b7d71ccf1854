"""Missing or wrong credentials are one message, before anything slow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preflight.credentials import CredentialsError, Deployer, deployer
from stacks.config_file import CONFIG, load_environment
from tests.preflight.conftest import ACCOUNT, ARN, run

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAKNOWN", "AWS_SECRET_ACCESS_KEY": "x"}


def test_without_credentials_the_message_says_how_to_sign_in() -> None:
    done = run("preflight.credentials", "dev")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "`aws sso login`" in done.stderr
    assert "`export AWS_PROFILE=…`" in done.stderr


def test_an_environment_that_does_not_exist_is_told_before_credentials() -> None:
    done = run("preflight.credentials", "nope")
    assert done.returncode == 2
    assert "configuration error" in done.stderr
    assert "aws sso login" not in done.stderr


def test_it_says_who_deploys_where(sts: str) -> None:
    done = run("preflight.credentials", "dev", **KEYS, AWS_ENDPOINT_URL=sts, AWS_REGION="eu-central-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"dev: account {ACCOUNT}, region eu-central-1, as {ARN}\n"


def test_expired_credentials_are_told_like_missing_ones(sts: str) -> None:
    expired = {**KEYS, "AWS_ACCESS_KEY_ID": "AKIAEXPIRED"}
    done = run("preflight.credentials", "dev", **expired, AWS_ENDPOINT_URL=sts, AWS_REGION="eu-central-1")
    assert done.returncode == 2
    assert "(ExpiredToken)" in done.stderr
    assert "`aws sso login`" in done.stderr


def test_a_profile_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile team]\nregion = eu-central-1\n")
    file = str(tmp_path / "config")
    done = run("preflight.credentials", "dev", AWS_CONFIG_FILE=file, AWS_PROFILE="taem")
    assert done.returncode == 2
    assert "AWS_PROFILE=taem is not a profile" in done.stderr
    assert "which has team" in done.stderr


def test_without_a_region_the_message_says_where_to_set_it() -> None:
    done = run("preflight.credentials", "dev", **KEYS)
    assert done.returncode == 2
    assert "set `region` in the configuration" in done.stderr


def test_a_shell_s_region_without_sign_in_is_refused_as_one_in_the_file_is() -> None:
    done = run("preflight.credentials", "dev", **KEYS, AWS_REGION="cn-north-1")
    assert done.returncode == 2
    assert "region cn-north-1 is in aws-cn, where Cognito has no user pools" in done.stderr


def test_a_network_without_aws_is_told_as_such() -> None:
    done = run(
        "preflight.credentials", "dev", **KEYS, AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_REGION="a-b-1"
    )
    assert done.returncode == 2
    assert "AWS does not answer" in done.stderr


@pytest.fixture
def known(sts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": sts}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("known")
def test_another_account_than_the_configured_one_is_refused() -> None:
    environment = load_environment(name="dev", path=None, directory=CONFIG)
    other = environment.model_copy(update={"account": "444455556666"})
    with pytest.raises(CredentialsError, match=f"says account 444455556666, and you are .* {ACCOUNT}: "):
        deployer(other, os.environ)


@pytest.mark.usefixtures("known")
def test_the_configured_region_comes_before_that_of_the_shell() -> None:
    environment = load_environment(name="dev", path=None, directory=CONFIG)
    configured = environment.model_copy(update={"account": ACCOUNT, "region": "ap-southeast-2"})
    assert deployer(configured, os.environ) == Deployer(ARN, ACCOUNT, "ap-southeast-2")
