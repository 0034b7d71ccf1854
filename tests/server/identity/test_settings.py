"""The gate's part of the configuration."""

from __future__ import annotations

import pytest
from mlflow_aws_server.identity import IdentitySettings
from mlflow_aws_server.settings import SettingsError

from tests.server.conftest import assert_says_what_to_do

_ACCOUNT, _PARTNER = "arn:aws:iam::123456789012", "arn:aws:iam::222233334444"


@pytest.mark.parametrize(
    "variable", ["MLFLOW_AWS_PUBLIC_URL", "MLFLOW_AWS_TOKEN_ISSUERS", "MLFLOW_AWS_ROLES"]
)
def test_missing_variable_is_named(environ: dict[str, str], variable: str) -> None:
    del environ[variable]
    with pytest.raises(SettingsError, match=rf"^{variable} is not set: "):
        IdentitySettings.from_environ(environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_AWS_TOKEN_ISSUERS", "https://example.tokens.sts.global.api.aws"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=http://example.tokens.sts.global.api.aws"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=https://example.tokens.sts.global.api.aws/"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=https://a.example  {_PARTNER}=https://b.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=https://a.example,{_PARTNER}=https://b.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=https://a.example {_PARTNER}=https://a.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", f"{_ACCOUNT}=https://a.example {_ACCOUNT}=https://b.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", "arn:aws:iam::*=https://a.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", "arn:aws:iam::12345678901=https://a.example"),
        ("MLFLOW_AWS_TOKEN_ISSUERS", "arn:aws:iam::123456789012:role/*=https://a.example"),
        ("MLFLOW_AWS_TOKEN_AUDIENCE", "two words"),
        ("MLFLOW_AWS_USER_POOL_ISSUER", "cognito"),
        ("MLFLOW_AWS_USER_POOL_CLIENT_ID", "an id"),
        ("MLFLOW_AWS_ROLES", "everybody"),
        ("MLFLOW_AWS_ROLES", '{"owner": {}}'),
    ],
)
def test_error_names_variable_value_and_remedy(environ: dict[str, str], variable: str, value: str) -> None:
    environ[variable] = value
    with pytest.raises(SettingsError) as caught:
        IdentitySettings.from_environ(environ)
    assert_says_what_to_do(caught.value, variable, value)


def test_tokens_are_for_the_public_url_unless_said_otherwise(environ: dict[str, str]) -> None:
    assert IdentitySettings.from_environ(environ).token_audience == "https://mlflow.example.com"
    environ["MLFLOW_AWS_TOKEN_AUDIENCE"] = "https://another.example.com"
    assert IdentitySettings.from_environ(environ).token_audience == "https://another.example.com"


def test_each_token_issuer_has_its_account(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_TOKEN_ISSUERS"] = f"{_ACCOUNT}=https://a.example {_PARTNER}=https://b.example"
    assert IdentitySettings.from_environ(environ).token_issuers == {
        "https://a.example": _ACCOUNT,
        "https://b.example": _PARTNER,
    }


def test_more_token_issuers_than_a_server_keeps_keys_of_are_refused(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_TOKEN_ISSUERS"] = " ".join(
        f"arn:aws:iam::{number:012}=https://{number}.example" for number in range(21)
    )
    with pytest.raises(SettingsError, match="20 at most"):
        IdentitySettings.from_environ(environ)


def test_user_pool_and_its_client_come_together_or_not_at_all(environ: dict[str, str]) -> None:
    del environ["MLFLOW_AWS_USER_POOL_CLIENT_ID"]
    with pytest.raises(SettingsError, match=r"MLFLOW_AWS_USER_POOL_CLIENT_ID is not set: .*belong together"):
        IdentitySettings.from_environ(environ)
    del environ["MLFLOW_AWS_USER_POOL_ISSUER"]
    assert IdentitySettings.from_environ(environ).user_pool is None


def test_long_values_are_quoted_in_part(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_ROLES"] = '{"owner": ' + "x" * 10_000
    with pytest.raises(SettingsError) as caught:
        IdentitySettings.from_environ(environ)
    assert len(str(caught.value)) < 1000
