"""What AWS WAF does with a request, by a web ACL as the template has it.

Rules run by priority until one allows or blocks; a match that is counted leaves its label for later rules:
https://docs.aws.amazon.com/waf/latest/developerguide/web-acl-processing.html
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.stacks.firewall.managed_rules import GROUPS, Request
from tests.stacks.templates import Template

Json = Mapping[str, Any]
_TRANSFORMATIONS: Mapping[str, Callable[[str], str]] = {"NONE": str, "LOWERCASE": str.lower}


@dataclass(frozen=True)
class Verdict:
    """What happens to a request: the rule that decided, its answer, and every managed rule that matched."""

    action: str
    rule: str = "default"
    answer: Json = field(default_factory=dict)
    matched: tuple[str, ...] = ()


class WebAcl:
    """The web ACL of a template, with its memory of who sent how much."""

    def __init__(self, template: Template) -> None:
        self.properties = template.one("AWS::WAFv2::WebACL")
        self._rules = sorted(self.properties["Rules"], key=lambda rule: int(rule["Priority"]))
        self._networks = {
            logical_id: [ipaddress.ip_network(each) for each in resource["Properties"]["Addresses"]]
            for logical_id, resource in template.resources.items()
            if resource["Type"] == "AWS::WAFv2::IPSet"
        }
        self._sent: dict[str, list[float]] = defaultdict(list)

    def judge(self, request: Request, *, at: float = 0) -> Verdict:
        """The verdict on a request at this second."""
        labels: set[str] = set()
        matched: list[str] = []
        for rule in self._rules:
            group = rule["Statement"].get("ManagedRuleGroupStatement")
            if group is None:
                action = rule["Action"] if self._meets(rule["Statement"], request, labels, at) else {}
            else:
                assert rule["OverrideAction"] == {"None": {}}
                action = self._managed(group, request, labels, matched, at)
            for kind in ("Allow", "Block"):
                if kind in action:
                    return Verdict(kind, rule["Name"], self._answer(action[kind]), tuple(matched))
        (default,) = self.properties["DefaultAction"]
        return Verdict(default, matched=tuple(matched))

    def _managed(
        self, group: Json, request: Request, labels: set[str], matched: list[str], at: float
    ) -> Json:
        overrides = {each["Name"]: each["ActionToUse"] for each in group["RuleActionOverrides"]}
        rules = GROUPS[group["Name"]]
        assert set(overrides) <= {rule.name for rule in rules}, "the group has no such rule"
        if "ScopeDownStatement" in group and not self._meets(
            group["ScopeDownStatement"], request, labels, at
        ):
            return {}
        for rule in rules:
            if rule.matches(request):
                matched.append(rule.name)
                labels.add(f"awswaf:managed:aws:{rule.label}")
                action: Json = overrides.get(rule.name, {rule.action: {}})
                if "Block" in action:
                    return action
        return {}

    def _meets(self, statement: Json, request: Request, labels: set[str], at: float) -> bool:
        ((kind, it),) = statement.items()
        if kind == "NotStatement":
            return not self._meets(it["Statement"], request, labels, at)
        if kind in ("AndStatement", "OrStatement"):
            each = (self._meets(inner, request, labels, at) for inner in it["Statements"])
            return all(each) if kind == "AndStatement" else any(each)
        if kind == "LabelMatchStatement":
            assert it["Scope"] == "LABEL"
            return str(it["Key"]) in labels
        if kind == "IPSetReferenceStatement":
            networks = self._networks[it["Arn"]["Fn::GetAtt"][0]]
            return any(ipaddress.ip_address(request.address) in network for network in networks)
        if kind == "RegexMatchStatement":
            return re.search(it["RegexString"], _part(it, request)) is not None
        if kind == "ByteMatchStatement":
            assert it["PositionalConstraint"] == "STARTS_WITH"
            return _part(it, request).startswith(str(it["SearchString"]))
        assert kind == "RateBasedStatement"
        assert it["AggregateKeyType"] == "IP"
        sent = self._sent[request.address]
        sent.append(at)
        recently = [then for then in sent if then > at - it["EvaluationWindowSec"]]
        return len(recently) > int(it["Limit"])

    def _answer(self, action: Json) -> Json:
        response = action.get("CustomResponse")
        if response is None:
            return {"status": 403, "headers": {}}
        return {
            "status": response["ResponseCode"],
            "headers": {each["Name"]: each["Value"] for each in response.get("ResponseHeaders", [])},
            "body": self.properties["CustomResponseBodies"][response["CustomResponseBodyKey"]]["Content"],
        }


def _part(it: Json, request: Request) -> str:
    field = it["FieldToMatch"]
    text = request.path if "UriPath" in field else request.headers.get(field["SingleHeader"]["Name"], "")
    for each in it["TextTransformations"]:
        text = _TRANSFORMATIONS[each["Type"]](text)
    return text
