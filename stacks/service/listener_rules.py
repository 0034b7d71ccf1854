"""Who passes the load balancer, and how."""

import base64
import json
from collections.abc import Sequence

from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from stacks.service.sign_in import SignIn

# Paths that a page fetches or a program calls, but nobody visits: a redirect to a sign-in page would break
# the page and mislead the program. Five, the most that a rule takes.
FETCHED = ("/ajax-api/*", "/graphql", "/get-artifact", "/model-versions/get-artifact", "/api/*")
UNAUTHENTICATED = {
    "error_code": "UNAUTHENTICATED",
    "message": "sign in, or send a bearer token: see how to connect in the documentation of this deployment",
}


class ListenerRules(Construct):
    """Programs pass with a token, people with a session; whoever has neither is refused.

    In this order, since a program's request has no session and a page's has no token:

    1 to 8. `Authorization: Bearer …` with a token that says it is another account's — checked as below, with
       that account's issuer and keys, since a rule knows one issuer.
    10. `Authorization: Bearer …` — the token's signature, issuer, audience and times are checked here.
    20. What is fetched rather than visited — a session, or 401.
    30. Everything else — a session, or the sign-in page.

    The server checks the same again, and alone decides what a principal may do.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        listener: elb.ApplicationListener,
        target_group: elb.ApplicationTargetGroup,
        sign_in: SignIn,
        token_issuer: str,
        token_audience: str,
        trusted_issuers: Sequence[str],
        edge_jwt_check: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        self._listener = listener
        forward = elb.ListenerAction.forward([target_group])

        def programs(name: str, priority: int, tokens: Sequence[str], issuer: str) -> None:
            jwks = f"{issuer}/.well-known/jwks.json"
            checked = elb.ListenerAction.authenticate_jwt(issuer=issuer, jwks_endpoint=jwks, next=forward)
            _require_audience(self._rule(name, priority, _bearer(*tokens), checked), token_audience)

        if edge_jwt_check:
            for number, issuer in enumerate(trusted_issuers):
                # Ids by position, not by account: two rules never want one priority during an update.
                first, second = 2 * number + 1, 2 * number + 2
                *two, third = _issued_by(issuer)
                programs(f"Programs{first}", first, two, issuer)
                programs(f"Programs{second}", second, [third], issuer)
            programs("Programs", 10, ["*"], token_issuer)
        else:
            self._rule("Programs", 10, _bearer("*"), forward)
        fetched = elb.ListenerCondition.path_patterns(list(FETCHED))
        self._rule("Fetched", 20, fetched, sign_in.or_refusal(forward))
        visited = elb.ListenerCondition.path_patterns(["/*"])
        self._rule("Visited", 30, visited, sign_in.or_sign_in_page(forward))

    def _rule(
        self, name: str, priority: int, condition: elb.ListenerCondition, action: elb.ListenerAction
    ) -> elb.ApplicationListenerRule:
        return elb.ApplicationListenerRule(
            self, name, listener=self._listener, priority=priority, conditions=[condition], action=action
        )


def refuse() -> elb.ListenerAction:
    """The response to a request that no rule matches."""
    return elb.ListenerAction.fixed_response(
        401, content_type="application/json", message_body=json.dumps(UNAUTHENTICATED)
    )


def _bearer(*tokens: str) -> elb.ListenerCondition:
    return elb.ListenerCondition.http_header("Authorization", [f"Bearer {token}" for token in tokens])


def _issued_by(issuer: str) -> list[str]:
    """Return the three patterns of tokens that name this issuer.

    Nothing is decided by them but whose keys check the token. A token's claims are JSON in base64url, which
    writes three bytes as four characters: a text in it looks one of three ways, by where it begins. The text
    is the host with the characters around it in JSON, of which the pattern's ends hold a part only. A value
    may have 128 characters, and a rule five wildcards, so that three patterns take two rules.
    """
    text = f'/{issuer.removeprefix("https://")}"'.encode()[:80]
    patterns = []
    for before in range(3):
        written = base64.urlsafe_b64encode(bytes(before) + text).decode()
        whole = written[-(-8 * before // 6) : 8 * (before + len(text)) // 6]
        patterns.append(f"*{whole}*")
    return patterns


def _require_audience(rule: elb.ApplicationListenerRule, audience: str) -> None:
    # The L2 action cannot require further claims; STS writes a single audience as a string.
    resource = rule.node.default_child
    assert isinstance(resource, elb.CfnListenerRule)  # noqa: S101
    resource.add_property_override(
        "Actions.0.JwtValidationConfig.AdditionalClaims",
        [{"Name": "aud", "Format": "single-string", "Values": [audience]}],
    )
