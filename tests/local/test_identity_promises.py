"""What is found when a deployed listener or policy is not what the stacks promise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from local import identity_promises
from local.deployment import Stack

ISSUER, AUDIENCE = "https://issuer.example.com", "https://mlflow.example.com"
LOAD_BALANCER = ("AWS::ElasticLoadBalancingV2::LoadBalancer", "arn:lb")
SERVICE = Stack(
    name="service",
    outputs={"TokenIssuer": ISSUER, "TokenAudience": AUDIENCE},
    resources={"LoadBalancer": LOAD_BALANCER},
    left_out=[],
)
FORWARD = {"Type": "forward"}


def _people(otherwise: str) -> list[dict[str, Any]]:
    config = {"OnUnauthenticatedRequest": otherwise}
    return [{"Type": "authenticate-cognito", "AuthenticateCognitoConfig": config}, FORWARD]


RULES: dict[str, list[dict[str, Any]]] = {
    "10": [
        {
            "Type": "jwt-validation",
            "JwtValidationConfig": {
                "Issuer": ISSUER,
                "AdditionalClaims": [{"Name": "aud", "Format": "single-string", "Values": [AUDIENCE]}],
            },
        },
        FORWARD,
    ],
    "20": _people("deny"),
    "30": _people("authenticate"),
    "default": [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "401"}}],
}


class Listener:
    """Answers as ELBv2 does about one listener."""

    def __init__(self, rules: dict[str, list[dict[str, Any]]]) -> None:
        self._rules = rules

    def client(self, _service: str) -> Listener:
        return self

    def describe_listeners(self, **_: str) -> dict[str, Any]:
        return {"Listeners": [{"ListenerArn": "arn:listener"}]}

    def describe_rules(self, **_: str) -> dict[str, Any]:
        return {"Rules": [{"Priority": name, "Actions": actions} for name, actions in self._rules.items()]}


def broken(change: Callable[[dict[str, Any]], None]) -> list[str]:
    rules = copy.deepcopy(RULES)
    change(rules)
    aws: Any = Listener(rules)
    return [text for text, kept, _ in identity_promises.rules(aws, SERVICE, SERVICE) if not kept]


def test_the_rules_as_designed_keep_every_promise() -> None:
    assert broken(lambda rules: None) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rules: rules["10"][0]["JwtValidationConfig"].pop("AdditionalClaims"), "checked at the edge"),
        (lambda rules: rules["10"][0]["JwtValidationConfig"].update(Issuer="x"), "checked at the edge"),
        (lambda rules: rules["10"].pop(0), "identifies the caller"),
        (lambda rules: rules.update({"20": _people("authenticate")}), "refused where a page fetches"),
        (lambda rules: rules.update({"30": _people("allow")}), "refused where a page fetches"),
        (lambda rules: rules.update({"40": [FORWARD]}), "identifies the caller"),
        (lambda rules: rules.update({"default": [FORWARD]}), "identifies the caller"),
    ],
    ids=[
        "no audience",
        "another issuer",
        "no token check",
        "a redirect where a page fetches",
        "strangers allowed",
        "a rule that identifies nobody",
        "an open default",
    ],
)
def test_a_listener_that_lets_strangers_in_is_found(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    assert any(told in text for text in broken(change))
