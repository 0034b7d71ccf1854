"""Programs pass with a token, people with a session, nobody else."""

import json

import pytest

from tests.stacks.templates import Assembly, Properties

RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
AUDIENCE = "https://mlflow.dev.example.com"


def rules(assembly: Assembly) -> dict[int, Properties]:
    return {each["Priority"]: each for each in assembly.service.all(RULE)}


def steps(rule: Properties) -> list[str]:
    return [each["Type"] for each in sorted(rule["Actions"], key=lambda each: int(each.get("Order", 1)))]


def test_there_are_three_rules_in_this_order(either: Assembly) -> None:
    assert sorted(rules(either)) == [10, 20, 30]
    assert steps(rules(either)[10]) == ["jwt-validation", "forward"]
    assert steps(rules(either)[20]) == ["authenticate-cognito", "forward"]
    assert steps(rules(either)[30]) == ["authenticate-cognito", "forward"]


def test_a_bearer_token_is_a_program_s(either: Assembly) -> None:
    assert rules(either)[10]["Conditions"] == [
        {
            "Field": "http-header",
            "HttpHeaderConfig": {"HttpHeaderName": "Authorization", "Values": ["Bearer *"]},
        }
    ]


def test_a_program_s_token_is_for_us_by_the_account_s_issuer(dev: Assembly) -> None:
    check = rules(dev)[10]["Actions"][0]["JwtValidationConfig"]
    assert check["AdditionalClaims"] == [{"Name": "aud", "Format": "single-string", "Values": [AUDIENCE]}]
    assert check["JwksEndpoint"] == {"Fn::Join": ["", [check["Issuer"], "/.well-known/jwks.json"]]}
    assert dev.service.outputs["TokenAudience"]["Value"] == AUDIENCE


def test_with_the_edge_check_off_a_program_goes_to_the_server_s_own_check(given: Assembly) -> None:
    assert steps(rules(given)[10]) == ["forward"]
    assert steps(rules(given)[20]) == ["authenticate-cognito", "forward"]


@pytest.mark.parametrize("path", ["/ajax-api/*", "/api/*", "/graphql", "/get-artifact"])
def test_what_is_fetched_is_refused_rather_than_redirected(either: Assembly, path: str) -> None:
    (condition,) = rules(either)[20]["Conditions"]
    assert path in condition["PathPatternConfig"]["Values"]
    action = rules(either)[20]["Actions"][0]["AuthenticateCognitoConfig"]
    assert action["OnUnauthenticatedRequest"] == "deny"


def test_a_rule_has_no_more_values_than_a_load_balancer_takes(either: Assembly) -> None:
    (condition,) = rules(either)[20]["Conditions"]
    assert len(condition["PathPatternConfig"]["Values"]) <= 5


def test_everything_else_leads_to_the_sign_in_page(either: Assembly) -> None:
    assert rules(either)[30]["Conditions"] == [
        {"Field": "path-pattern", "PathPatternConfig": {"Values": ["/*"]}}
    ]
    action = rules(either)[30]["Actions"][0]["AuthenticateCognitoConfig"]
    assert action["OnUnauthenticatedRequest"] == "authenticate"


def test_no_rule_ignores_a_missing_identity(either: Assembly, given: Assembly) -> None:
    for assembly in (either, given):
        for rule in assembly.service.all(RULE):
            assert "allow" not in str(rule["Actions"]).lower()


def test_only_a_bearer_token_is_ever_forwarded_without_a_session(given: Assembly) -> None:
    unauthenticated = [each for each in given.service.all(RULE) if steps(each) == ["forward"]]
    assert [each["Conditions"][0]["Field"] for each in unauthenticated] == ["http-header"]


def test_what_no_rule_takes_is_refused_in_the_shape_of_mlflow_s_errors(either: Assembly) -> None:
    (action,) = either.service.one("AWS::ElasticLoadBalancingV2::Listener")["DefaultActions"]
    assert action["Type"] == "fixed-response"
    answer = action["FixedResponseConfig"]
    assert (answer["StatusCode"], answer["ContentType"]) == ("401", "application/json")
    assert json.loads(answer["MessageBody"])["error_code"] == "UNAUTHENTICATED"


def test_the_service_waits_for_the_rules_that_lead_to_it(either: Assembly) -> None:
    (service,) = (each for each in either.service.resources.values() if each["Type"] == "AWS::ECS::Service")
    named = {each for each, it in either.service.resources.items() if it["Type"] == RULE}
    assert named <= set(service["DependsOn"])
