"""The account gets what it lacks, whatever it had, and CloudFormation always gets an answer."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from stacks.foundation.account_handler import index
from stacks.foundation.account_handler.index import IamError

ISSUER = "https://abc.tokens.sts.global.api.aws"
ENABLE, INFO = "EnableOutboundWebIdentityFederation", "GetOutboundWebIdentityFederationInfo"
ON = {"IssuerIdentifier": ISSUER, "JwtVendingEnabled": "true"}
OFF = IamError("FeatureDisabled", "it is off")
DENIED = IamError("AccessDenied", "not authorized to perform this")
FORBIDDEN = IamError("AccessDenied", "not authorized, with an explicit deny in a service control policy")
PROVIDER = {
    "Arn": "arn:aws:iam::111122223333:oidc-provider/token.example.com",
    "Url": "https://token.example.com",
    "ClientId": "sts.amazonaws.com",
}
ROLES = {"Roles": {"ecs.amazonaws.com": "AWSServiceRoleForECS", "rds.amazonaws.com": "AWSServiceRoleForRDS"}}


class Iam:
    """Answers each action from its script, the last answer again and again, and remembers the questions."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            action: each if isinstance(each, list) else [each] for action, each in answers.items()
        }
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, action: str, **parameters: str) -> Mapping[str, str]:
        self.asked.append((action, *parameters.values()))
        script = self.answers[action]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, IamError):
            raise answer
        found: Mapping[str, str] = answer
        return found


def issuer(iam: Iam) -> str:
    return index.federation(iam, {})["IssuerUrl"]


def event(request_type: str = "Create", **more: Any) -> dict[str, Any]:
    return {
        "RequestType": request_type,
        "ResourceType": "Custom::OutboundWebIdentityFederation",
        "RequestId": "9f0c1a2e-0000-4000-8000-000000000000",
        "StackId": "arn:aws:cloudformation:eu-central-1:111122223333:stack/foundation/1",
        "LogicalResourceId": "FederationEnabled",
        "ResponseURL": "https://cloudformation.example/answer",
        "ResourceProperties": {},
        **more,
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


def handle(monkeypatch: pytest.MonkeyPatch, iam: Iam, request_type: str = "Create", **more: Any) -> None:
    monkeypatch.setattr(index, "signed_queries", lambda: iam)
    index.handler(event(request_type, **more), None)


def test_federation_that_is_on_is_left_alone() -> None:
    iam = Iam(**{INFO: ON})
    assert issuer(iam) == ISSUER
    assert iam.asked == [(INFO,)]


@pytest.mark.parametrize("off", [OFF, {"IssuerIdentifier": ISSUER, "JwtVendingEnabled": "false"}])
def test_federation_that_is_off_is_turned_on(off: Any) -> None:
    iam = Iam(**{INFO: off, ENABLE: {"IssuerIdentifier": ISSUER}})
    assert issuer(iam) == ISSUER
    assert iam.asked == [(INFO,), (ENABLE,)]


def test_federation_that_somebody_else_turns_on_meanwhile_is_looked_up() -> None:
    assert issuer(Iam(**{INFO: [OFF, ON], ENABLE: IamError("FeatureEnabled", "already")})) == ISSUER


def test_federation_that_an_organization_forbids_fails_at_once_and_names_the_remedy(
    pauses: list[float],
) -> None:
    with pytest.raises(index.AccountError) as failure:
        issuer(Iam(**{INFO: OFF, ENABLE: FORBIDDEN}))
    assert "run once in this account: aws iam enable-outbound-web-identity-federation" in str(failure.value)
    assert "service control policy" in str(failure.value)
    assert pauses == []


def test_an_organization_that_forbids_turning_federation_on_does_not_matter_where_it_is_on() -> None:
    assert issuer(Iam(**{INFO: ON, ENABLE: FORBIDDEN})) == ISSUER


def test_an_issuer_has_no_slash_at_its_end() -> None:
    assert issuer(Iam(**{INFO: {**ON, "IssuerIdentifier": f"{ISSUER}/"}})) == ISSUER


@pytest.mark.parametrize("named", ["", "http://abc"])
def test_an_answer_without_a_secure_issuer_fails(named: str) -> None:
    with pytest.raises(index.AccountError, match="named no issuer"):
        issuer(Iam(**{INFO: {**ON, "IssuerIdentifier": named}}))


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(pauses: list[float]) -> None:
    assert issuer(Iam(**{INFO: [DENIED, DENIED, ON]})) == ISSUER
    assert pauses == [index.PAUSE_SECONDS] * 2


def test_a_permission_that_never_comes_fails(pauses: list[float]) -> None:
    with pytest.raises(IamError, match="AccessDenied"):
        issuer(Iam(**{INFO: DENIED}))
    assert len(pauses) == index.ATTEMPTS - 1


def test_any_other_refusal_fails_at_once(pauses: list[float]) -> None:
    with pytest.raises(IamError, match="InvalidClientTokenId"):
        issuer(Iam(**{INFO: IamError("InvalidClientTokenId", "no")}))
    assert pauses == []


def test_waiting_ends_before_lambda_ends_the_function() -> None:
    assert 2 * index.ATTEMPTS * index.PAUSE_SECONDS + index.SETTLE_SECONDS < 300


def test_service_linked_roles_that_are_there_are_left_alone(pauses: list[float]) -> None:
    iam = Iam(GetRole={"RoleName": "there"})
    index.service_linked_roles(iam, ROLES)
    assert iam.asked == [("GetRole", "AWSServiceRoleForECS"), ("GetRole", "AWSServiceRoleForRDS")]
    assert pauses == []


def test_a_service_linked_role_that_is_missing_is_made_and_given_time(pauses: list[float]) -> None:
    missing = IamError("NoSuchEntity", "no such role")
    iam = Iam(GetRole=[{"RoleName": "there"}, missing], CreateServiceLinkedRole={"RoleName": "new"})
    index.service_linked_roles(iam, ROLES)
    assert iam.asked[-1] == ("CreateServiceLinkedRole", "rds.amazonaws.com")
    assert pauses == [index.SETTLE_SECONDS]


@pytest.mark.parametrize(
    "taken",
    [
        IamError("InvalidInput", "Service role name AWSServiceRoleForECS has been taken in this account"),
        IamError("EntityAlreadyExists", "it exists"),
    ],
)
def test_a_service_linked_role_that_somebody_else_makes_meanwhile_will_do(
    taken: IamError, pauses: list[float]
) -> None:
    missing = IamError("NoSuchEntity", "no such role")
    index.service_linked_roles(Iam(GetRole=missing, CreateServiceLinkedRole=taken), ROLES)
    assert pauses == []


def test_a_service_that_iam_does_not_know_fails() -> None:
    unknown = IamError("InvalidInput", "no such service")
    missing = IamError("NoSuchEntity", "no such role")
    with pytest.raises(IamError, match="no such service"):
        index.service_linked_roles(Iam(GetRole=missing, CreateServiceLinkedRole=unknown), ROLES)


def test_a_service_linked_role_that_may_not_be_made_is_named_with_its_remedy() -> None:
    iam = Iam(GetRole=IamError("NoSuchEntity", "no such role"), CreateServiceLinkedRole=FORBIDDEN)
    with pytest.raises(index.AccountError, match="create-service-linked-role --aws-service-name ecs"):
        index.service_linked_roles(iam, ROLES)


def test_an_oidc_provider_that_is_there_is_adopted() -> None:
    iam = Iam(GetOpenIDConnectProvider={"member": "other sts.amazonaws.com 6938fd4d98"})
    assert index.oidc_provider(iam, PROVIDER) == {"Arn": PROVIDER["Arn"]}
    assert [action for action, *_ in iam.asked] == ["GetOpenIDConnectProvider"]


def test_an_oidc_provider_of_another_audience_learns_ours() -> None:
    iam = Iam(GetOpenIDConnectProvider={"member": "other"}, AddClientIDToOpenIDConnectProvider={})
    assert index.oidc_provider(iam, PROVIDER) == {"Arn": PROVIDER["Arn"]}
    added = ("AddClientIDToOpenIDConnectProvider", PROVIDER["Arn"], "sts.amazonaws.com")
    assert iam.asked[-1] == added


@pytest.mark.parametrize(
    "answer", [{"OpenIDConnectProviderArn": PROVIDER["Arn"]}, IamError("EntityAlreadyExists", "just made")]
)
def test_an_oidc_provider_that_is_missing_is_made(answer: Any) -> None:
    iam = Iam(GetOpenIDConnectProvider=IamError("NoSuchEntity", "none"), CreateOpenIDConnectProvider=answer)
    assert index.oidc_provider(iam, PROVIDER) == {"Arn": PROVIDER["Arn"]}
    assert iam.asked[-1] == ("CreateOpenIDConnectProvider", PROVIDER["Url"], "sts.amazonaws.com")


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_the_issuer_is_answered(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], request_type: str
) -> None:
    handle(monkeypatch, Iam(**{INFO: ON}), request_type)
    (answer,) = answers
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"IssuerUrl": ISSUER})
    assert answer["StackId"] == event()["StackId"]


def test_a_resource_keeps_the_identity_that_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    handle(monkeypatch, Iam(**{INFO: ON}))
    handle(monkeypatch, Iam(**{INFO: ON}), "Update", PhysicalResourceId="outbound-web-identity-federation")
    assert [each["PhysicalResourceId"] for each in answers] == [
        "FederationEnabled",
        "outbound-web-identity-federation",
    ]


def test_every_type_in_the_template_has_its_maker(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    iam = Iam(GetRole={"RoleName": "there"}, GetOpenIDConnectProvider={"member": "sts.amazonaws.com"})
    roles, provider = "Custom::ServiceLinkedRoles", "Custom::OidcProvider"
    handle(monkeypatch, iam, ResourceType=roles, ResourceProperties=ROLES)
    handle(monkeypatch, iam, ResourceType=provider, ResourceProperties=PROVIDER)
    assert [(each["Status"], each["Data"]) for each in answers] == [
        ("SUCCESS", {}),
        ("SUCCESS", {"Arn": PROVIDER["Arn"]}),
    ]


def test_deletion_asks_iam_nothing(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]) -> None:
    iam = Iam()
    handle(monkeypatch, iam, "Delete")
    assert iam.asked == []
    assert [answer["Status"] for answer in answers] == ["SUCCESS"]


def test_a_failure_is_answered_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    handle(monkeypatch, Iam(**{INFO: IamError("LimitExceeded", "x" * 9000)}))
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


def test_values_of_one_name_are_all_read() -> None:
    members = "<a><List><member>one</member><member>two</member></List></a>"
    assert index.parse(200, members.encode())["member"] == "one two"


def test_a_refusal_of_iam_is_raised_with_its_code() -> None:
    with pytest.raises(IamError, match="FeatureEnabled: It is on") as refused:
        index.parse(409, REFUSAL.encode())
    assert refused.value.code == "FeatureEnabled"


@pytest.mark.parametrize("content", [b"", b"Bad gateway", b"<html><body>502"])
def test_an_answer_that_is_not_iam_s_counts_as_a_failure_that_passes(content: bytes) -> None:
    with pytest.raises(IamError) as refused:
        index.parse(502, content)
    assert refused.value.code.startswith(index.PASSING)
