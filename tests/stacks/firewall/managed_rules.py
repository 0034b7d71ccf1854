"""AWS's managed rules, as far as AWS documents them, and wider: what they match is not published.

Each pattern contains the examples of the documentation and whatever else looks like them, so that a request
which passes here passes there with some certainty. Attacks are tested with the documented examples only.
https://docs.aws.amazon.com/waf/latest/developerguide/aws-managed-rule-groups-list.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

# Of a body, AWS WAF sees no more before a load balancer: "Handling oversize web request components".
INSPECTED_BODY = 8192


@dataclass(frozen=True)
class Request:
    """What AWS WAF sees. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    body_bytes: int = 0
    address: str = "198.51.100.7"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def arguments(self) -> str:
        return "\n".join(f"{name}\n{value}" for name, value in parse_qsl(self.query, keep_blank_values=True))

    @property
    def agent(self) -> str:
        return self.headers.get("user-agent", "")


Matches = Callable[[Request], bool]


@dataclass(frozen=True)
class ManagedRule:
    name: str
    label: str
    matches: Matches
    action: str = "Block"


def _looks(pattern: str, part: Callable[[Request], str]) -> Matches:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda request: found.search(part(request)) is not None


def _everywhere(name: str, label: str, pattern: str, parts: str) -> list[ManagedRule]:
    return [
        ManagedRule(f"{name}_{part.upper()}", f"{label}_{part}", _looks(pattern, _PARTS[part]))
        for part in parts.split()
    ]


_PARTS: Mapping[str, Callable[[Request], str]] = {
    "Body": lambda request: request.body[:INSPECTED_BODY],
    "Cookie": lambda request: request.headers.get("cookie", ""),
    "Header": lambda request: "\n".join(map(": ".join, request.headers.items())),
    "QueryArguments": lambda request: request.arguments,
    "QueryString": lambda request: unquote(request.query),
    "URIPath": lambda request: unquote(request.path),
}
_CORE, _BAD = "core-rule-set:", "known-bad-inputs:"
_EXTENSIONS = r"\.(log|ini|conf|cfg|bak|old|sql|sh|bat|exe|dll|env|key|pem|yaml|yml|config|backup)(\W|$)"
_LIBRARIES = r"python|requests|urllib|curl|wget|java|go-http|okhttp|axios"


def _listed(name: str, label: str, action: str = "Block") -> ManagedRule:
    """A list of addresses, of which a test names one in the header `listed`."""
    return ManagedRule(name, label, lambda request: request.headers.get("listed") == name, action)


# AWS's lists of addresses are no part of any documentation.
GROUPS: Mapping[str, list[ManagedRule]] = {
    "AWSManagedRulesCommonRuleSet": [
        ManagedRule("NoUserAgent_HEADER", f"{_CORE}NoUserAgent_Header", lambda request: not request.agent),
        ManagedRule(
            "UserAgent_BadBots_HEADER",
            f"{_CORE}BadBots_Header",
            _looks("nessus|nmap|nikto|sqlmap", lambda request: request.agent),
        ),
        ManagedRule(
            "SizeRestrictions_QUERYSTRING",
            f"{_CORE}SizeRestrictions_QueryString",
            lambda request: len(request.query) > 2048,
        ),
        ManagedRule(
            "SizeRestrictions_Cookie_HEADER",
            f"{_CORE}SizeRestrictions_Cookie_Header",
            lambda request: len(request.headers.get("cookie", "")) > 10_240,
        ),
        ManagedRule(
            "SizeRestrictions_BODY",
            f"{_CORE}SizeRestrictions_Body",
            lambda request: request.body_bytes > INSPECTED_BODY,
        ),
        ManagedRule(
            "SizeRestrictions_URIPATH",
            f"{_CORE}SizeRestrictions_URIPath",
            lambda request: len(request.path) > 1024,
        ),
        *_everywhere(
            "EC2MetaDataSSRF",
            f"{_CORE}EC2MetaDataSSRF",
            r"169\.254\.|meta-?data/|security-credentials|//localhost",
            "Body Cookie URIPath QueryArguments",
        ),
        *_everywhere(
            "GenericLFI", f"{_CORE}GenericLFI", r"\.\.[/\\]|/etc/|/proc/", "QueryArguments URIPath Body"
        ),
        *_everywhere(
            "RestrictedExtensions", f"{_CORE}RestrictedExtensions", _EXTENSIONS, "URIPath QueryArguments"
        ),
        *_everywhere(
            "GenericRFI", f"{_CORE}GenericRFI", r"(https?|ftps?|file)://\d", "QueryArguments Body URIPath"
        ),
        *_everywhere(
            "CrossSiteScripting",
            f"{_CORE}CrossSiteScripting",
            r"<[a-z!/?]|\bon\w+\s*=|javascript:",
            "Cookie QueryArguments Body URIPath",
        ),
    ],
    "AWSManagedRulesKnownBadInputsRuleSet": [
        *_everywhere(
            "JavaDeserializationRCE",
            f"{_BAD}JavaDeserializationRCE",
            r"java\.|getRuntime|\.class\.",
            "Header Body URIPath QueryString",
        ),
        ManagedRule(
            "Host_localhost_HEADER",
            f"{_BAD}Host_Localhost_Header",
            _looks("localhost", lambda request: request.headers.get("host", "")),
        ),
        ManagedRule(
            "PROPFIND_METHOD", f"{_BAD}Propfind_Method", lambda request: request.method == "PROPFIND"
        ),
        *_everywhere(
            "ExploitablePaths", f"{_BAD}ExploitablePaths", r"web-inf|/\.(env|git|aws)|/wp-|\.php", "URIPath"
        ),
        *_everywhere("Log4JRCE", f"{_BAD}Log4JRCE", r"\$\{", "Header QueryString Body URIPath"),
        *_everywhere("ReactJSRCE", f"{_BAD}ReactJSRCE", r"__proto__|:constructor|\$@\d", "Body"),
    ],
    "AWSManagedRulesAmazonIpReputationList": [
        _listed("AWSManagedIPReputationList", "amazon-ip-list:AWSManagedIPReputationList"),
        _listed("AWSManagedReconnaissanceList", "amazon-ip-list:AWSManagedReconnaissanceList"),
        _listed("AWSManagedIPDDoSList", "amazon-ip-list:AWSManagedIPDDoSList", "Count"),
    ],
    "AWSManagedRulesAnonymousIpList": [
        _listed("AnonymousIPList", "anonymous-ip-list:AnonymousIPList"),
        _listed("HostingProviderIPList", "anonymous-ip-list:HostingProviderIPList"),
    ],
    "AWSManagedRulesBotControlRuleSet": [
        ManagedRule(
            "CategoryHttpLibrary",
            "bot-control:bot:category:http_library",
            _looks(_LIBRARIES, lambda request: request.agent),
        ),
        ManagedRule(
            "SignalNonBrowserUserAgent",
            "bot-control:signal:non_browser_user_agent",
            lambda request: not request.agent.startswith("Mozilla/"),
        ),
    ],
}
# In web ACL capacity units, as documented with each group.
CAPACITY = {
    "AWSManagedRulesCommonRuleSet": 700,
    "AWSManagedRulesKnownBadInputsRuleSet": 200,
    "AWSManagedRulesAmazonIpReputationList": 25,
    "AWSManagedRulesAnonymousIpList": 50,
    "AWSManagedRulesBotControlRuleSet": 50,
}
