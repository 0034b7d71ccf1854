"""What AWS WAF blocks before the load balancer, and what it only counts: docs/waf.md."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from stacks.operational_log import OperationalLog
from stacks.waf_config import WafConfig

Json = dict[str, Any]

# Where MLflow takes what people write: HTML in notes, paths in parameters, attacks in traces, long lists of
# runs, files called train.log. The server reads it as data, behind the gate, within its budgets. The last one
# is the load balancer's own, where people return from signing in with a state of its making.
_TAKES_TEXT: Json = {
    "RegexMatchStatement": {
        "FieldToMatch": {"UriPath": {}},
        "RegexString": "^/((ajax-)?api/|(v1/traces|graphql|(model-versions/)?get-artifact"
        "|oauth2/idpresponse)$)",
        "TextTransformations": [{"Priority": 0, "Type": "NONE"}],
    }
}
_BEARER: Json = {
    "ByteMatchStatement": {
        "FieldToMatch": {"SingleHeader": {"Name": "authorization"}},
        "PositionalConstraint": "STARTS_WITH",
        "SearchString": "bearer ",
        "TextTransformations": [{"Priority": 0, "Type": "LOWERCASE"}],
    }
}
# Managed rules that meet such text, and the labels they leave, which do not follow from the names:
# https://docs.aws.amazon.com/waf/latest/developerguide/aws-managed-rule-groups-baseline.html
# Elsewhere than at the places above, what has such a label is blocked.
COUNTED: Mapping[str, Mapping[str, str]] = {
    "AWSManagedRulesCommonRuleSet": {
        "SizeRestrictions_BODY": "core-rule-set:SizeRestrictions_Body",
        "SizeRestrictions_QUERYSTRING": "core-rule-set:SizeRestrictions_QueryString",
        "EC2MetaDataSSRF_BODY": "core-rule-set:EC2MetaDataSSRF_Body",
        "GenericLFI_BODY": "core-rule-set:GenericLFI_Body",
        "GenericRFI_BODY": "core-rule-set:GenericRFI_Body",
        "RestrictedExtensions_QUERYARGUMENTS": "core-rule-set:RestrictedExtensions_QueryArguments",
        "CrossSiteScripting_BODY": "core-rule-set:CrossSiteScripting_Body",
        "CrossSiteScripting_QUERYARGUMENTS": "core-rule-set:CrossSiteScripting_QueryArguments",
    },
    "AWSManagedRulesKnownBadInputsRuleSet": {
        "JavaDeserializationRCE_BODY": "known-bad-inputs:JavaDeserializationRCE_Body",
        "Log4JRCE_BODY": "known-bad-inputs:Log4JRCE_Body",
        "ReactJSRCE_BODY": "known-bad-inputs:ReactJSRCE_Body",
    },
}
# A session is up to four cookies of 4 KB, and goes along with every request.
_COUNTED_ANYWHERE = {"AWSManagedRulesCommonRuleSet": ["SizeRestrictions_Cookie_HEADER"]}
# What AWS calls each in its log: https://docs.aws.amazon.com/waf/latest/developerguide/logging-management.html
_LOGGED = {"blocked": ["BLOCK"], "counted": ["BLOCK", "COUNT", "EXCLUDED_AS_COUNT"]}
_SECRET_HEADERS = ("authorization", "cookie")


class Firewall(Construct):
    """A web ACL that blocks attacks on any web server, and passes whatever a client of MLflow may send."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        load_balancer: elb.IApplicationLoadBalancer,
        log_key: kms.IKey,
        log_days: int,
        config: WafConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        acl = waf.CfnWebACL(
            self,
            "WebAcl",
            scope="REGIONAL",
            default_action=waf.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=waf.CfnWebACL.VisibilityConfigProperty(
                cloud_watch_metrics_enabled=True, metric_name="WebAcl", sampled_requests_enabled=True
            ),
        )
        # In CloudFormation's words, which are a third as long as the classes made of them.
        acl.add_property_override(
            "CustomResponseBodies",
            {
                "Blocked": _body("PERMISSION_DENIED", "the web application firewall blocks this request"),
                "TooMany": _body("REQUEST_LIMIT_EXCEEDED", "too many requests from this address"),
            },
        )
        acl.add_property_override("Rules", list(self._rules(config)))
        waf.CfnWebACLAssociation(
            self, "Association", resource_arn=load_balancer.load_balancer_arn, web_acl_arn=acl.attr_arn
        )
        self._log(acl, key=log_key, days=log_days, kept=_LOGGED[config.logged])

    def _rules(self, config: WafConfig) -> Iterator[Json]:
        """The rules, in the order in which a request meets them; the first that allows or blocks decides."""
        priority = count()

        def rule(name: str, statement: Json, **action: Json) -> Json:
            return {
                "Name": name,
                "Priority": next(priority),
                "Statement": statement,
                **action,
                "VisibilityConfig": {
                    "CloudWatchMetricsEnabled": True,
                    "MetricName": name,
                    "SampledRequestsEnabled": True,
                },
            }

        def managed(name: str, counted: Sequence[str] = (), **more: Any) -> Json:
            overrides = [{"Name": each, "ActionToUse": {"Count": {}}} for each in counted]
            group = {"VendorName": "AWS", "Name": name, "RuleActionOverrides": overrides, **more}
            return rule(name, {"ManagedRuleGroupStatement": group}, OverrideAction={"None": {}})

        if config.exempt_cidrs:
            yield rule("Exempt", self._networks("Exempt", config.exempt_cidrs), Action={"Allow": {}})
        if config.blocked_cidrs:
            yield rule(
                "Blocked", self._networks("Blocked", config.blocked_cidrs), Action=_block(403, "Blocked")
            )
        rate = {"Limit": config.requests_per_minute, "EvaluationWindowSec": 60, "AggregateKeyType": "IP"}
        wait = {"Name": "Retry-After", "Value": "60"}
        yield rule("TooMany", {"RateBasedStatement": rate}, Action=_block(429, "TooMany", wait))
        yield managed("AWSManagedRulesAmazonIpReputationList")
        if config.anonymous == "block":
            yield managed("AWSManagedRulesAnonymousIpList", ["HostingProviderIPList"])
        for group, counted in COUNTED.items():
            yield managed(group, [*counted, *_COUNTED_ANYWHERE.get(group, ())])
        yield rule("OutOfPlace", _out_of_place(), Action=_block(403, "Blocked"))
        if config.bot_control:
            yield managed(
                "AWSManagedRulesBotControlRuleSet",
                ManagedRuleGroupConfigs=[{"AWSManagedRulesBotControlRuleSet": {"InspectionLevel": "COMMON"}}],
                # Programs are no bots: they call what takes text, or come with a token, which is checked.
                ScopeDownStatement={
                    "NotStatement": {"Statement": {"OrStatement": {"Statements": [_TAKES_TEXT, _BEARER]}}}
                },
            )

    def _networks(self, construct_id: str, cidrs: Sequence[str]) -> Json:
        networks = waf.CfnIPSet(
            self, construct_id, scope="REGIONAL", ip_address_version="IPV4", addresses=list(cidrs)
        )
        return {"IPSetReferenceStatement": {"Arn": networks.attr_arn}}

    def _log(self, acl: waf.CfnWebACL, *, key: kms.IKey, days: int, kept: Sequence[str]) -> None:
        stack = cdk.Stack.of(self)
        # AWS WAF writes to groups of such names only.
        self.log = OperationalLog(self, "Log", key=key, days=days, name=f"aws-waf-logs-{stack.stack_name}")
        conditions = [{"ActionCondition": {"Action": action}} for action in kept]
        logging = waf.CfnLoggingConfiguration(
            self,
            "Logging",
            resource_arn=acl.attr_arn,
            # The group's own ARN ends with ":*", which AWS WAF refuses.
            log_destination_configs=[
                stack.format_arn(
                    service="logs",
                    resource="log-group",
                    resource_name=self.log.log_group_name,
                    arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                )
            ],
            logging_filter={
                "DefaultBehavior": "DROP",
                "Filters": [{"Behavior": "KEEP", "Requirement": "MEETS_ANY", "Conditions": conditions}],
            },
        )
        logging.add_property_override(
            "RedactedFields", [{"SingleHeader": {"Name": name}} for name in _SECRET_HEADERS]
        )


def _out_of_place() -> Json:
    labels = [
        {"LabelMatchStatement": {"Scope": "LABEL", "Key": f"awswaf:managed:aws:{label}"}}
        for rules in COUNTED.values()
        for label in rules.values()
    ]
    elsewhere = {"NotStatement": {"Statement": _TAKES_TEXT}}
    return {"AndStatement": {"Statements": [{"OrStatement": {"Statements": labels}}, elsewhere]}}


def _block(status: int, body: str, *headers: Json) -> Json:
    response: Json = {"ResponseCode": status, "CustomResponseBodyKey": body}
    return {"Block": {"CustomResponse": response | ({"ResponseHeaders": [*headers]} if headers else {})}}


def _body(error_code: str, message: str) -> Json:
    content = json.dumps({"error_code": error_code, "message": message})
    return {"ContentType": "APPLICATION_JSON", "Content": content}
