"""CloudFormation is told the issuer, whatever the account's switch was, and always gets an answer."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from stacks.foundation.federation_handler import index

ISSUER = "https://abc.tokens.sts.global.api.aws"
ENABLE, INFO = "EnableOutboundWebIdentityFederation", "GetOutboundWebIdentityFederationInfo"


class Iam:
    """Answers from a script, and remembers what it was asked."""

    def __init__(self, *answers: Mapping[str, str] | index.IamError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, action: str) -> Mapping[str, str]:
        self.asked.append(action)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, index.IamError):
            raise answer
        return answer


def event(request_type: str = "Create") -> dict[str, Any]:
    return {
        "RequestType": request_type,
        "RequestId": "9f0c1a2e-0000-4000-8000-000000000000",
        "StackId": "arn:aws:cloudformation:eu-central-1:111122223333:stack/foundation/1",
        "LogicalResourceId": "FederationEnabled",
        "ResponseURL": "https://cloudformation.example/answer",
        "ResourceProperties": {},
    }


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert (request.method, request.full_url) == ("PUT", event()["ResponseURL"])
        assert isinstance(request.data, bytes)
        sent.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return sent


def handle(monkeypatch: pytest.MonkeyPatch, iam: Iam, request_type: str = "Create") -> None:
    monkeypatch.setattr(index, "signed_queries", lambda: iam)
    index.handler(event(request_type), None)


def test_federation_is_turned_on_and_its_issuer_returned() -> None:
    iam = Iam({"IssuerIdentifier": ISSUER})
    assert index.enable(iam) == ISSUER
    assert iam.asked == [ENABLE]


def test_where_it_is_on_already_the_issuer_is_looked_up() -> None:
    iam = Iam(index.IamError("FeatureEnabled", "already"), {"IssuerIdentifier": ISSUER})
    assert index.enable(iam) == ISSUER
    assert iam.asked == [ENABLE, INFO]


def test_an_issuer_has_no_slash_at_its_end() -> None:
    assert index.enable(Iam({"IssuerIdentifier": f"{ISSUER}/"})) == ISSUER


@pytest.mark.parametrize("found", [{}, {"IssuerIdentifier": ""}, {"IssuerIdentifier": "http://abc"}])
def test_an_answer_without_a_secure_issuer_fails(found: dict[str, str]) -> None:
    with pytest.raises(index.FederationError, match="named no issuer"):
        index.enable(Iam(found))


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(pauses: list[float]) -> None:
    refused = index.IamError("AccessDenied", "not authorized")
    assert index.enable(Iam(refused, refused, {"IssuerIdentifier": ISSUER})) == ISSUER
    assert pauses == [index.PAUSE_SECONDS] * 2


def test_a_permission_that_never_comes_fails(pauses: list[float]) -> None:
    with pytest.raises(index.IamError, match="AccessDenied"):
        index.enable(Iam(index.IamError("AccessDenied", "not authorized")))
    assert len(pauses) == index.ATTEMPTS - 1


def test_any_other_refusal_fails_at_once(pauses: list[float]) -> None:
    with pytest.raises(index.IamError, match="InvalidClientTokenId"):
        index.enable(Iam(index.IamError("InvalidClientTokenId", "no")))
    assert pauses == []


def test_waiting_ends_before_lambda_ends_the_function() -> None:
    assert 2 * index.ATTEMPTS * index.PAUSE_SECONDS < 180


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_the_issuer_is_answered(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], request_type: str
) -> None:
    handle(monkeypatch, Iam({"IssuerIdentifier": ISSUER}), request_type)
    (answer,) = answers
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"IssuerUrl": ISSUER})
    assert answer["PhysicalResourceId"] == "outbound-web-identity-federation"
    assert answer["StackId"] == event()["StackId"]


def test_deletion_asks_iam_nothing(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]) -> None:
    iam = Iam(index.IamError("AccessDenied", "the role is gone"))
    handle(monkeypatch, iam, "Delete")
    assert iam.asked == []
    assert [answer["Status"] for answer in answers] == ["SUCCESS"]


def test_a_failure_is_answered_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    handle(monkeypatch, Iam(index.IamError("LimitExceeded", "x" * 9000)))
    (answer,) = answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith("LimitExceeded: ")
    assert len(json.dumps(answer)) < 4096


def test_even_an_unforeseen_error_is_answered(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    def fail() -> Any:
        raise RuntimeError("no network today")

    monkeypatch.setattr(index, "signed_queries", fail)
    index.handler(event(), None)
    assert [(each["Status"], each["Reason"]) for each in answers] == [("FAILED", "no network today")]


ANSWER = f"""<{ENABLE}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
<{ENABLE}Result><IssuerIdentifier>{ISSUER}</IssuerIdentifier></{ENABLE}Result>
</{ENABLE}Response>"""
REFUSAL = """<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type>
<Code>FeatureEnabled</Code><Message>It is on.</Message></Error></ErrorResponse>"""


def test_an_answer_of_iam_is_read_by_name() -> None:
    assert index.parse(200, ANSWER.encode())["IssuerIdentifier"] == ISSUER


def test_a_refusal_of_iam_is_raised_with_its_code() -> None:
    with pytest.raises(index.IamError, match="FeatureEnabled: It is on") as refused:
        index.parse(409, REFUSAL.encode())
    assert refused.value.code == "FeatureEnabled"


@pytest.mark.parametrize("content", [b"", b"Bad gateway", b"<html><body>502"])
def test_an_answer_that_is_not_iam_s_counts_as_a_failure_that_passes(content: bytes) -> None:
    with pytest.raises(index.IamError) as refused:
        index.parse(502, content)
    assert refused.value.code.startswith(index.PASSING)
