"""Requests of MLflow's clients pass, attacks do not: judged by the web ACL of the template.

`recorded.jsonl` has requests as a load balancer got them: of Chromium, the smoke client, the client patterns
of tests/clients and a client that logs odd things. Tokens, cookies and codes are replaced by x.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_kms as kms

from stacks.service.firewall import COUNTED, Firewall
from stacks.waf_config import WafConfig
from tests.stacks.firewall.managed_rules import CAPACITY, GROUPS, Request
from tests.stacks.firewall.web_acl import WebAcl
from tests.stacks.templates import Assembly, Template

RECORDED = [
    Request(**json.loads(line))
    for line in (Path(__file__).parents[1] / "firewall" / "recorded.jsonl").read_text().splitlines()
]
BROWSER = {"user-agent": "Mozilla/5.0", "host": "mlflow.example.com"}
PROGRAM = {"user-agent": "mlflow-python-client/3.17.2", "authorization": "Bearer x"}
XSS, LFI, RFI = '<script>alert("hello")</script>', "../../etc/passwd", "http://192.0.2.1/shell"
LOG4J, JAVA = "${jndi:ldap://example.com/}", '(java.lang.Runtime).getRuntime().exec("whoami")'
STRICT = {
    "requests_per_minute": 1000,
    "exempt_cidrs": ["203.0.113.0/24"],
    "blocked_cidrs": ["192.0.2.0/24"],
    "anonymous": "block",
    "bot_control": True,
    "logged": "counted",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A firewall with every option, before some load balancer."""
    app = cdk.App(outdir=str(tmp_path_factory.mktemp("strict")))
    stack = cdk.Stack(app, "Strict")
    balancer = elb.ApplicationLoadBalancer.from_application_load_balancer_attributes(
        stack,
        "Balancer",
        load_balancer_arn="arn:aws:elasticloadbalancing:eu-central-1:111122223333:loadbalancer/app/a/1",
        security_group_id="sg-1",
    )
    key = kms.Key(stack, "Key")
    Firewall(
        stack,
        "Firewall",
        load_balancer=balancer,
        log_key=key,
        log_days=30,
        config=WafConfig.model_validate(STRICT),
    )
    app.synth()
    return Template.read(Path(app.outdir) / "Strict.template.json")


def get(target: str, **headers: str) -> Request:
    return Request("GET", target, BROWSER | {name.replace("_", "-"): text for name, text in headers.items()})


def post(path: str, body: str) -> Request:
    return Request("POST", path, BROWSER, body, len(body))


def test_dev_has_no_firewall(dev: Assembly) -> None:
    assert not [each for each in dev.service.types() if each.startswith("AWS::WAFv2::")]


def test_it_stands_before_the_load_balancer(prod: Assembly) -> None:
    association = prod.service.one("AWS::WAFv2::WebACLAssociation")
    assert association["ResourceArn"]["Ref"].startswith("IngressLoadBalancer")
    assert association["WebACLArn"] == {"Fn::GetAtt": [_id(prod.service, "AWS::WAFv2::WebACL"), "Arn"]}


@pytest.mark.parametrize("request_", RECORDED, ids=lambda each: f"{each.method} {each.path}")
def test_what_clients_send_passes(request_: Request, prod: Assembly, strict: Template) -> None:
    for template in (prod.service, strict):
        verdict = WebAcl(template).judge(request_)
        assert verdict.action == "Allow", verdict


def test_the_recorded_requests_are_of_every_kind_that_the_rules_would_block() -> None:
    """Without the exceptions, some of them were refused by each excepted rule that knows a client's text."""
    met = {
        rule.name for each in RECORDED for group in GROUPS.values() for rule in group if rule.matches(each)
    }
    excepted = {rule for rules in COUNTED.values() for rule in rules}
    assert excepted - met <= {"ReactJSRCE_BODY"}
    agents = {each.agent.partition("/")[0] for each in RECORDED}
    assert {"mlflow-python-client", "Mozilla", "curl"} <= agents


def test_a_session_of_four_large_cookies_passes(prod: Assembly) -> None:
    cookies = "; ".join(f"AWSELBAuthSessionCookie-{number}={'x' * 4000}" for number in range(4))
    verdict = WebAcl(prod.service).judge(get("/", cookie=cookies))
    assert (verdict.action, verdict.matched) == ("Allow", ("SizeRestrictions_Cookie_HEADER",))


def test_a_long_state_of_the_sign_in_passes(prod: Assembly) -> None:
    returning = get(f"/oauth2/idpresponse?code=x&state={'x' * 2100}")
    assert WebAcl(prod.service).judge(returning).action == "Allow"


ATTACKS = {
    "no user agent": Request("GET", "/", {"host": "mlflow.example.com"}),
    "scanner": get("/", user_agent="Nmap Scripting Engine"),
    "long path": get("/" + "a" * 1025),
    "path traversal": get("/get-artifact?path=../../etc/passwd&run_uuid=0"),
    "path traversal in the path": get("/static-files/..%2f..%2fetc/passwd"),
    "scripts in the path": get(f"/{XSS}"),
    "a file of the system": get("/server.log"),
    "remote file": get(f"/get-artifact?path={RFI}"),
    "instance metadata": get("/get-artifact?path=http://169.254.169.254/latest/meta-data/"),
    "Log4j in a header": get("/", referer=LOG4J),
    "Log4j in a query": get(f"/api/2.0/mlflow/experiments/get?experiment_id={LOG4J}"),
    "Java in a query": get(f"/?class={JAVA}"),
    "WebDAV": Request("PROPFIND", "/", BROWSER),
    "web-inf": get("/web-inf/web.xml"),
    "localhost": get("/", host="localhost"),
    "a bad address": get("/", listed="AWSManagedIPReputationList"),
    "a scanner's address": get("/", listed="AWSManagedReconnaissanceList"),
    # What is counted in MLflow's own text is refused elsewhere.
    "scripts in another body": post("/login", XSS),
    "remote file in another body": post("/index.html", RFI),
    "Log4j in another body": post("/", LOG4J),
    "Java in another body": post("/functionRouter", JAVA),
    "large body elsewhere": post("/upload", "x" * 9000),
    "a path that begins alike": post("/apiary", XSS),
    "a path below one that is exact": post("/graphql/x", LFI),
    "scripts in another query": get(f"/search?q={XSS}"),
    "long query elsewhere": get("/?" + "a" * 2049),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_blocks(attack: str, prod: Assembly) -> None:
    assert WebAcl(prod.service).judge(ATTACKS[attack]).action == "Block"


@pytest.mark.parametrize("text", [XSS, LFI, RFI, LOG4J, JAVA])
def test_attacks_are_only_text_where_mlflow_takes_text(text: str, prod: Assembly) -> None:
    verdict = WebAcl(prod.service).judge(post("/api/2.0/mlflow/runs/set-tag", json.dumps({"value": text})))
    assert verdict.action == "Allow"
    assert verdict.matched


def test_only_documented_rules_are_counted_and_no_attack_is_left_without_its_rule(strict: Template) -> None:
    """Every other rule of the groups keeps AWS's action; also those that AWS adds."""
    groups = {
        rule["Name"]: {each["Name"] for each in group["RuleActionOverrides"]}
        for rule in strict.one("AWS::WAFv2::WebACL")["Rules"]
        if (group := rule["Statement"].get("ManagedRuleGroupStatement"))
    }
    assert set(groups) == set(GROUPS)
    assert {name: counted for name, counted in groups.items() if counted} == {
        "AWSManagedRulesCommonRuleSet": {
            *COUNTED["AWSManagedRulesCommonRuleSet"],
            "SizeRestrictions_Cookie_HEADER",
        },
        "AWSManagedRulesKnownBadInputsRuleSet": {*COUNTED["AWSManagedRulesKnownBadInputsRuleSet"]},
        "AWSManagedRulesAnonymousIpList": {"HostingProviderIPList"},
    }
    labels = {rule.name: rule.label for group in GROUPS.values() for rule in group}
    for rules in COUNTED.values():
        for name, label in rules.items():
            assert labels[name] == label


def test_an_address_that_sends_too_much_is_told_to_wait_and_the_others_are_not(strict: Template) -> None:
    acl = WebAcl(strict)
    one, other = get("/"), replace(get("/"), address="198.51.100.8")
    assert {acl.judge(one, at=0).action for _ in range(1000)} == {"Allow"}
    verdict = acl.judge(one, at=59)
    assert (verdict.action, verdict.rule, verdict.answer["status"]) == ("Block", "TooMany", 429)
    assert verdict.answer["headers"] == {"Retry-After": "60"}
    assert json.loads(verdict.answer["body"])["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert acl.judge(other, at=59).action == "Allow"
    assert acl.judge(one, at=119.5).action == "Allow"


def test_networks_are_exempt_or_blocked(strict: Template) -> None:
    acl = WebAcl(strict)
    for attack in ATTACKS.values():
        assert acl.judge(replace(attack, address="203.0.113.9")).rule == "Exempt"
    verdict = acl.judge(replace(RECORDED[0], address="192.0.2.9"))
    assert (verdict.rule, verdict.answer["status"]) == ("Blocked", 403)


def test_anonymous_addresses_are_blocked_on_demand_and_ci_in_a_cloud_never(
    prod: Assembly, strict: Template
) -> None:
    hidden, cloud = get("/", listed="AnonymousIPList"), get("/", listed="HostingProviderIPList")
    assert WebAcl(prod.service).judge(hidden).action == "Allow"
    assert WebAcl(strict).judge(hidden).action == "Block"
    assert WebAcl(strict).judge(cloud).action == "Allow"


def test_bot_control_looks_at_visits_without_a_token_only(prod: Assembly, strict: Template) -> None:
    bot = get("/", user_agent="python-requests/2.32")
    assert WebAcl(prod.service).judge(bot).action == "Allow"
    assert WebAcl(strict).judge(bot).rule == "AWSManagedRulesBotControlRuleSet"
    for scheme in ("Bearer x", "bearer x"):
        passing = Request("GET", "/version", PROGRAM | {"authorization": scheme})
        assert WebAcl(strict).judge(passing).matched == ()
    # The load balancer's answer, 401, tells a program without a token more.
    assert WebAcl(strict).judge(replace(bot, target="/api/2.0/mlflow/runs/get")).matched == ()


def test_its_log_is_encrypted_expires_and_holds_no_token(prod: Assembly, strict: Template) -> None:
    group = prod.service.one("AWS::Logs::LogGroup", id_starts="Firewall")
    assert group["LogGroupName"].startswith("aws-waf-logs-")
    assert group["KmsKeyId"]
    assert group["RetentionInDays"] == 365
    kept = {}
    for template in (prod.service, strict):
        logging = template.one("AWS::WAFv2::LoggingConfiguration")
        (destination,) = logging["LogDestinationConfigs"]
        text = json.dumps(destination)
        assert _id(template, "AWS::Logs::LogGroup", starts="Firewall") in text
        assert not text.rstrip(']}"').endswith("*")
        assert [each["SingleHeader"]["Name"] for each in logging["RedactedFields"]] == [
            "authorization",
            "cookie",
        ]
        assert logging["LoggingFilter"]["DefaultBehavior"] == "DROP"
        (kept_here,) = logging["LoggingFilter"]["Filters"]
        kept[id(template)] = {each["ActionCondition"]["Action"] for each in kept_here["Conditions"]}
    assert kept[id(prod.service)] == {"BLOCK"}
    assert kept[id(strict)] == {"BLOCK", "COUNT", "EXCLUDED_AS_COUNT"}


def test_its_capacity_is_within_what_the_price_includes(strict: Template) -> None:
    """1,500 units; more cost extra. Without AWS's groups, the rules need some tens."""
    used = sum(CAPACITY.get(rule["Name"], 0) for rule in strict.one("AWS::WAFv2::WebACL")["Rules"])
    assert used <= 1500 - 100


def _id(template: Template, kind: str, *, starts: str = "") -> Any:
    (found,) = (
        name for name, each in template.resources.items() if each["Type"] == kind and name.startswith(starts)
    )
    return found
