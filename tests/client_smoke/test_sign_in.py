"""What a browser without a session is shown."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from client_smoke.sign_in import people_are_shown_the_sign_in_page
from client_smoke.smoke import Smoke
from client_smoke.verdict import StepFailed

Offline = Callable[..., Smoke]
_HOST = "https://mlflow-1.auth.eu-central-1.amazoncognito.com"
_AUTHORIZE = f"{_HOST}/oauth2/authorize?client_id=1"


def answer(status: int, location: str = "") -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={"Location": location} if location else {})


def shown(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, first: SimpleNamespace, pages: dict[str, Any]
) -> str:
    monkeypatch.setattr("requests.Session.get", lambda _self, url, **_: pages[url])
    return people_are_shown_the_sign_in_page(offline(request_as=lambda *_: first))


def test_it_is_the_page_of_cognito_s_host(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {_AUTHORIZE: answer(302, "/login?client_id=1"), f"{_HOST}/login?client_id=1": answer(200)}
    assert "answers with a page" in shown(offline, monkeypatch, answer(302, _AUTHORIZE), pages)


def test_a_provider_of_one_s_own_may_be_next(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {_AUTHORIZE: answer(302, "https://idp.example.com/saml")}
    assert "idp.example.com" in shown(offline, monkeypatch, answer(302, _AUTHORIZE), pages)


@pytest.mark.parametrize(
    ("first", "pages"),
    [
        (answer(200), {}),
        (answer(401), {}),
        (answer(302, "/elsewhere"), {}),
        (answer(302, _AUTHORIZE), {_AUTHORIZE: answer(400)}),
        (
            answer(302, _AUTHORIZE),
            {_AUTHORIZE: answer(302, "/error?error=x"), f"{_HOST}/error?error=x": answer(200)},
        ),
        (answer(302, _AUTHORIZE), {_AUTHORIZE: answer(302, "/oauth2/authorize?client_id=1")}),
    ],
)
def test_anything_else_fails_the_step(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, first: SimpleNamespace, pages: dict[str, Any]
) -> None:
    with pytest.raises(StepFailed):
        shown(offline, monkeypatch, first, pages)
