"""What a load balancer's listener does with a request: its rules, read from ELBv2's responses.

Pure functions of values; `balancer` does the I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# ELB's wildcards: * for any number of characters, ? for one.
_WILDCARDS = {"*": ".*", "?": "."}


class UnsupportedError(ValueError):
    """The listener asks for something that this load balancer does not support."""


@dataclass(frozen=True)
class Request:
    """What conditions see. Header names are in lower case; a header sent twice has both values."""

    method: str
    path: str
    host: str
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    source_ip: str = "127.0.0.1"


Condition = Callable[[Request], bool]


@dataclass(frozen=True)
class Action:
    """One step of a rule: its ELBv2 type and its settings."""

    type: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Actions, in order, for requests that meet every condition."""

    priority: float
    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]

    def matches(self, request: Request) -> bool:
        """Whether every condition is met; the default rule has none."""
        return all(condition(request) for condition in self.conditions)


def rules(described: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Read what DescribeRules says, the default rule last.

    Raises:
        UnsupportedError: a condition is of a kind that is not supported here.
    """
    parsed = [
        Rule(
            priority=float("inf") if each["Priority"] == "default" else float(each["Priority"]),
            conditions=tuple(condition(part) for part in each.get("Conditions", [])),
            actions=actions(each["Actions"]),
        )
        for each in described
    ]
    return tuple(sorted(parsed, key=lambda rule: rule.priority))


def actions(described: Sequence[Mapping[str, Any]]) -> tuple[Action, ...]:
    """Read the actions of a rule in their order."""
    ordered = sorted(described, key=lambda each: int(each.get("Order", 1)))
    return tuple(Action(each["Type"], each) for each in ordered)


def choose(all_rules: Sequence[Rule], request: Request) -> Rule:
    """The first rule that matches; a listener always has a default rule."""
    return next(rule for rule in all_rules if rule.matches(request))


def condition(described: Mapping[str, Any]) -> Condition:
    """Read one condition.

    Raises:
        UnsupportedError: its kind is not supported here.
    """
    kind = described["Field"]
    config = described.get(_CONFIGS.get(kind, ""), {})
    if kind not in _CONFIGS or config.get("RegexValues") or described.get("RegexValues"):
        raise UnsupportedError(f"the listener has a condition that is not supported here: {described}")
    values = config.get("Values") or described.get("Values") or []
    if kind == "path-pattern":
        return _any(values, lambda request: [request.path], ignore_case=False)
    if kind == "host-header":
        return _any(values, lambda request: [request.host.rpartition(":")[0] or request.host])
    if kind == "http-request-method":
        return lambda request: request.method in values
    if kind == "source-ip":
        networks = [ipaddress.ip_network(value) for value in values]
        return lambda request: any(ipaddress.ip_address(request.source_ip) in each for each in networks)
    if kind == "http-header":
        name = str(config["HttpHeaderName"]).lower()
        return _any(values, lambda request: request.headers.get(name, ()))
    return _query_condition(values)


def minimum_tls(policy: str) -> str:
    """The lowest TLS version that an ELB security policy allows: "1.3" or "1.2".

    Raises:
        UnsupportedError: the policy allows less, or is not known here.
    """
    if policy.startswith("ELBSecurityPolicy-TLS13-1-3-"):
        return "1.3"
    if policy.startswith("ELBSecurityPolicy-TLS13-1-2-"):
        return "1.2"
    raise UnsupportedError(f"the listener's security policy is not supported here: {policy}")


def is_valid_header(name: str) -> bool:
    """Whether a header survives routing.http.drop_invalid_header_fields."""
    return re.fullmatch(r"[A-Za-z0-9-]+", name) is not None


_CONFIGS = {
    "path-pattern": "PathPatternConfig",
    "host-header": "HostHeaderConfig",
    "http-header": "HttpHeaderConfig",
    "http-request-method": "HttpRequestMethodConfig",
    "query-string": "QueryStringConfig",
    "source-ip": "SourceIpConfig",
}


def _any(
    values: Sequence[str], of: Callable[[Request], Sequence[str]], *, ignore_case: bool = True
) -> Condition:
    patterns = [_pattern(value, ignore_case=ignore_case) for value in values]
    return lambda request: any(pattern.fullmatch(text) for text in of(request) for pattern in patterns)


def _query_condition(values: Sequence[Mapping[str, str]]) -> Condition:
    wanted = [
        (_pattern(each["Key"]) if each.get("Key") else None, _pattern(each["Value"])) for each in values
    ]
    return lambda request: any(
        (key is None or key.fullmatch(name)) and value.fullmatch(text)
        for key, value in wanted
        for name, text in request.query
    )


def _pattern(value: str, *, ignore_case: bool = True) -> re.Pattern[str]:
    escaped = re.sub(
        r".", lambda match: _WILDCARDS.get(match[0], re.escape(match[0])), value, flags=re.DOTALL
    )
    return re.compile(escaped, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
