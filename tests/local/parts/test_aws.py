"""Clients of the emulated AWS API: no endpoint beyond this machine, no secret in a repr."""

from __future__ import annotations

import pytest

from local.parts.aws import Aws, require_loopback


@pytest.mark.parametrize(
    "url",
    [
        "https://sts.amazonaws.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1:4566",
        "http://localhost.evil",
    ],
)
def test_an_endpoint_beyond_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="this machine only"):
        Aws(endpoint=url, region="eu-central-1", account_id="0" * 12, access_key="k", secret_key="s")


@pytest.mark.parametrize("url", ["http://127.0.0.1:4566", "http://localhost:1", "http://[::1]:1"])
def test_loopback_is_fine(url: str) -> None:
    require_loopback(url)


def test_secrets_do_not_show_when_an_account_is_printed() -> None:
    aws = Aws(
        endpoint="http://localhost",
        region="eu-central-1",
        account_id="0" * 12,
        access_key="ASIAVISIBLE",
        secret_key="hidden-secret",
        session_token="hidden-token",
    )
    assert "hidden" not in repr(aws)
