"""A listener's rules, as ELBv2 describes them."""

from __future__ import annotations

from typing import Any

import pytest

from local.edge import listener
from local.edge.listener import Request, UnsupportedError

FIXED_401 = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "401"}}


def rule(priority: str, *conditions: dict[str, Any], status: str = "200") -> dict[str, Any]:
    action = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": status}}
    return {"Priority": priority, "Conditions": list(conditions), "Actions": [action]}


def header(name: str, *values: str) -> dict[str, Any]:
    return {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": name, "Values": list(values)}}


def path(*values: str) -> dict[str, Any]:
    return {"Field": "path-pattern", "PathPatternConfig": {"Values": list(values)}}


def status(described: list[dict[str, Any]], **request: Any) -> str:
    seen = Request(**{"method": "GET", "path": "/", "host": "localhost:8443", **request})
    action = listener.choose(listener.rules(described), seen).actions[0]
    return str(action.settings["FixedResponseConfig"]["StatusCode"])


def test_the_lowest_priority_that_matches_wins_and_the_default_comes_last() -> None:
    described = [
        rule("default", status="401"),
        rule("20", status="220"),
        rule("3", path("/a*"), status="203"),
    ]
    assert status(described, path="/abc") == "203"
    assert status(described, path="/b") == "220"


def test_without_a_matching_rule_the_default_applies() -> None:
    assert status([rule("1", path("/a")), rule("default", status="401")], path="/ab") == "401"


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("/ajax-api/*", "/ajax-api/2.0/x", True),
        ("/ajax-api/*", "/api/2.0/x", False),
        ("/a?c", "/abc", True),
        ("/a?c", "/ac", False),
        ("/A", "/a", False),
        ("/a.c", "/abc", False),
        ("/a+(b", "/a+(b", True),
    ],
)
def test_path_patterns_have_two_wildcards_and_heed_case(pattern: str, text: str, matches: bool) -> None:
    assert (status([rule("1", path(pattern)), rule("default", status="401")], path=text) == "200") is matches


def test_header_conditions_ignore_case_and_see_every_value() -> None:
    described = [rule("1", header("Authorization", "Bearer *")), rule("default", status="401")]
    assert status(described, headers={"authorization": ["Bearer x"]}) == "200"
    assert status(described, headers={"authorization": ["bearer x"]}) == "200"
    assert status(described, headers={"authorization": ["Basic x", "Bearer y"]}) == "200"
    assert status(described, headers={"authorization": ["Basic x"]}) == "401"
    assert status(described) == "401"


def test_all_conditions_of_a_rule_must_hold() -> None:
    described = [rule("1", path("/a"), header("X", "y")), rule("default", status="401")]
    assert status(described, path="/a", headers={"x": ["y"]}) == "200"
    assert status(described, path="/a") == "401"


@pytest.mark.parametrize(
    ("condition", "request_", "matches"),
    [
        ({"Field": "host-header", "HostHeaderConfig": {"Values": ["LOCALHOST"]}}, {}, True),
        ({"Field": "host-header", "HostHeaderConfig": {"Values": ["*.example.com"]}}, {}, False),
        (
            {"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["POST"]}},
            {"method": "POST"},
            True,
        ),
        ({"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["POST"]}}, {}, False),
        ({"Field": "source-ip", "SourceIpConfig": {"Values": ["127.0.0.0/8"]}}, {}, True),
        ({"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.0/8"]}}, {}, False),
        (
            {"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "a", "Value": "1*"}]}},
            {"query": (("a", "12"),)},
            True,
        ),
        (
            {"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "a", "Value": "1"}]}},
            {"query": (("b", "1"),)},
            False,
        ),
    ],
)
def test_other_conditions(condition: dict[str, Any], request_: dict[str, Any], matches: bool) -> None:
    described = [rule("1", condition), rule("default", status="401")]
    assert (status(described, **request_) == "200") is matches


def test_actions_follow_their_order() -> None:
    described = [{"Type": "forward", "Order": 2}, {"Type": "jwt-validation", "Order": 1}]
    assert [each.type for each in listener.actions(described)] == ["jwt-validation", "forward"]


@pytest.mark.parametrize(
    "unknown",
    [{"Field": "moon-phase"}, {"Field": "path-pattern", "PathPatternConfig": {"RegexValues": ["^/a"]}}],
)
def test_an_unsupported_condition_is_an_error_not_a_match(unknown: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        listener.rules([rule("1", unknown)])


def test_the_security_policy_decides_the_oldest_tls_version() -> None:
    assert listener.minimum_tls("ELBSecurityPolicy-TLS13-1-3-2021-06") == "1.3"
    assert listener.minimum_tls("ELBSecurityPolicy-TLS13-1-2-2021-06") == "1.2"
    with pytest.raises(UnsupportedError, match="2016-08"):
        listener.minimum_tls("ELBSecurityPolicy-2016-08")


@pytest.mark.parametrize(
    ("name", "valid"), [("X-Forwarded-For", True), ("x_forwarded_for", False), ("a b", False)]
)
def test_valid_header_names(name: str, valid: bool) -> None:
    assert listener.is_valid_header(name) is valid
