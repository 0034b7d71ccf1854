from __future__ import annotations

import pytest

from client_smoke.target import TrackingTarget
from client_smoke.verdict import CannotRun


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("https://mlflow.example.com", "https://mlflow.example.com"),
        ("https://mlflow.example.com/", "https://mlflow.example.com"),
        (" https://mlflow.example.com:443 ", "https://mlflow.example.com"),
        ("https://localhost:8443", "https://localhost:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_https_origin_is_accepted_in_one_normal_form(uri: str, normal: str) -> None:
    assert TrackingTarget.parse(uri).url == normal


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://mlflow.example.com", "not an https:// address"),
        ("mlflow.example.com", "not an https:// address"),
        ("", "not an https:// address"),
        ("https://", "names no host"),
        ("https://mlflow.example.com/#/experiments", "path, query or fragment"),
        ("https://mlflow.example.com/mlflow", "path, query or fragment"),
        ("https://mlflow.example.com:port", "not a URL"),
        ("https://[::1", "not a URL"),
    ],
)
def test_anything_else_cannot_run_and_says_why(uri: str, reason: str) -> None:
    with pytest.raises(CannotRun) as refusal:
        TrackingTarget.parse(uri)
    assert reason in refusal.value.seen
    assert "https://mlflow.example.com" in refusal.value.next_action


def test_credentials_in_the_address_are_refused_without_repeating_them() -> None:
    with pytest.raises(CannotRun) as refusal:
        TrackingTarget.parse("https://someone:hunter2@mlflow.example.com")
    assert "hunter2" not in refusal.value.seen + refusal.value.next_action
