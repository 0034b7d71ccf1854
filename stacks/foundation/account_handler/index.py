"""Gives the account what it has only once: outbound federation, service-linked roles, OIDC providers.

Each is looked for, made if it is missing, and never removed: others in the account may depend on it.
Needs nothing but AWS Lambda's Python runtime; the template carries this file as it is. IAM is asked by signed
queries: the operations of outbound federation date from November 2025, and a runtime's SDK may be older.
"""

import json
import logging
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

API_VERSION = "2010-05-08"
# A permission granted by the same deployment takes seconds to be known everywhere; IAM also throttles.
ATTEMPTS = 12
PAUSE_SECONDS = 5
PASSING = ("AccessDenied", "Throttling", "ServiceFailure", "ServiceUnavailable", "InternalFailure")
# Where IAM, which is global, has its endpoint: requests are signed for that region.
SIGNING_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

logger = logging.getLogger()
logger.setLevel(logging.INFO)

# A service that is asked at once cannot assume the role that was just made for it, and refuses.
SETTLE_SECONDS = 10

Ask = Callable[..., Mapping[str, str]]
Properties = Mapping[str, Any]


class IamError(Exception):
    """IAM refused; `code` is the one of its answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code

    @property
    def passes(self) -> bool:
        """Whether time helps; it never does against an explicit deny, such as an organization's policy."""
        return self.code.startswith(PASSING) and "explicit deny" not in str(self)


class AccountError(Exception):
    """The account cannot be given something; the text is for the events of the stack."""


def handler(event: Mapping[str, Any], _context: Any) -> None:
    """Answer one request of CloudFormation; never leave it waiting."""
    data: Mapping[str, str] = {}
    status, reason = "SUCCESS", ""
    try:
        if event["RequestType"] == "Delete":
            reason = "it stays: others in the account may depend on it"
        else:
            data = MAKERS[event["ResourceType"]](signed_queries(), event["ResourceProperties"])
    except Exception as error:
        logger.exception("the account could not be prepared")
        status, reason = "FAILED", str(error) or repr(error)
    answer(event, status=status, reason=reason, data=data)


def federation(ask: Ask, _properties: Properties) -> Mapping[str, str]:
    """Return the issuer URL of this account's tokens; turn outbound federation on if it is off."""
    found = unless(("FeatureDisabled",), ask, "GetOutboundWebIdentityFederationInfo")
    if found.get("JwtVendingEnabled", "").lower() != "true":
        remedy = "aws iam enable-outbound-web-identity-federation"
        made = make(("FeatureEnabled",), remedy, ask, "EnableOutboundWebIdentityFederation")
        found = made or patiently(ask, "GetOutboundWebIdentityFederationInfo")
    issuer = found.get("IssuerIdentifier", "")
    if not issuer.startswith("https://"):
        raise AccountError(f"IAM named no issuer for this account's tokens: {dict(found)}")
    return {"IssuerUrl": issuer.rstrip("/")}


def service_linked_roles(ask: Ask, properties: Properties) -> Mapping[str, str]:
    """Make the roles by which AWS's services act in this account; `Roles` has their names by service."""
    made = False
    for service, role in properties["Roles"].items():
        if unless(("NoSuchEntity",), ask, "GetRole", RoleName=role):
            continue
        remedy = f"aws iam create-service-linked-role --aws-service-name {service}"
        # How IAM says that another deployment has made it meanwhile.
        taken = ("InvalidInput: Service role name", "EntityAlreadyExists")
        made |= bool(make(taken, remedy, ask, "CreateServiceLinkedRole", AWSServiceName=service))
    if made:
        time.sleep(SETTLE_SECONDS)
    return {}


def oidc_provider(ask: Ask, properties: Properties) -> Mapping[str, str]:
    """Return the ARN of the provider, which knows the audience `ClientId` afterwards."""
    arn, client, url = (properties[name] for name in ("Arn", "ClientId", "Url"))
    remedy = f"aws iam create-open-id-connect-provider --url {url} --client-id-list {client}"
    found = unless(("NoSuchEntity",), ask, "GetOpenIDConnectProvider", OpenIDConnectProviderArn=arn)
    if not found:
        create = {"Url": url, "ClientIDList.member.1": client}
        found = make(("EntityAlreadyExists",), remedy, ask, "CreateOpenIDConnectProvider", **create)
    elif client not in found.get("member", "").split():
        remedy = (
            f"aws iam add-client-id-to-open-id-connect-provider --client-id {client} "
            f"--open-id-connect-provider-arn {arn}"
        )
        add = {"OpenIDConnectProviderArn": arn, "ClientID": client}
        make((), remedy, ask, "AddClientIDToOpenIDConnectProvider", **add)
    return {"Arn": arn}


MAKERS: Mapping[str, Callable[[Ask, Properties], Mapping[str, str]]] = {
    "Custom::OutboundWebIdentityFederation": federation,
    "Custom::ServiceLinkedRoles": service_linked_roles,
    "Custom::OidcProvider": oidc_provider,
}


def unless(refusals: tuple[str, ...], ask: Ask, action: str, **parameters: str) -> Mapping[str, str]:
    """Return IAM's answer, or nothing where it refuses with one of the codes and beginnings of a text."""
    try:
        return patiently(ask, action, **parameters)
    except IamError as error:
        if not str(error).startswith(refusals):
            raise
        return {}


def make(exists: tuple[str, ...], remedy: str, ask: Ask, action: str, **parameters: str) -> Mapping[str, str]:
    """Return IAM's answer, or nothing where it refuses because somebody else was faster."""
    try:
        return unless(exists, ask, action, **parameters)
    except IamError as error:
        if not error.code.startswith("AccessDenied"):
            raise
        raise AccountError(
            f"iam:{action} is denied here; have an administrator allow it, or run once in this account: "
            f"{remedy}; then deploy again ({error})"
        ) from error


def patiently(ask: Ask, action: str, **parameters: str) -> Mapping[str, str]:
    """Ask again while the refusal is one that passes."""
    for _ in range(ATTEMPTS - 1):
        try:
            return ask(action, **parameters)
        except IamError as error:
            if not error.passes:
                raise
            logger.info("%s, asking again", error)
            time.sleep(PAUSE_SECONDS)
    return ask(action, **parameters)


def signed_queries() -> Ask:
    """Return a function that asks IAM, at the endpoint and with the credentials that boto3 would use."""
    session = boto3.Session()
    endpoint = session.client("iam").meta.endpoint_url
    credentials = session.get_credentials()
    partition = session.get_partition_for_region(session.region_name or "us-east-1")
    signer = SigV4Auth(credentials.get_frozen_credentials(), "iam", SIGNING_REGIONS[partition])
    http = URLLib3Session(timeout=30)

    def ask(action: str, **parameters: str) -> Mapping[str, str]:
        body = urlencode({"Action": action, "Version": API_VERSION, **parameters})
        form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = AWSRequest("POST", endpoint, headers=form, data=body)
        signer.add_auth(request)
        response = http.send(request.prepare())
        return parse(response.status_code, response.content)

    return ask


def parse(status: int, content: bytes) -> Mapping[str, str]:
    """Return the values of IAM's answer by name, those of one name with spaces between.

    Raises IamError if it is a refusal.
    """
    values: dict[str, str] = {}
    try:
        # AWS's answer over an authenticated connection: not the untrusted XML that the parser warns of.
        for each in ElementTree.fromstring(content).iter():  # noqa: S314
            name, text = each.tag.rsplit("}", 1)[-1], (each.text or "").strip()
            values[name] = f"{values[name]} {text}" if name in values else text
    except ElementTree.ParseError:
        values = {}
    if status >= 400 or not values:
        raise IamError(values.get("Code", f"ServiceFailure {status}"), values.get("Message", ""))
    return values


def answer(event: Mapping[str, Any], *, status: str, reason: str, data: Mapping[str, str]) -> None:
    """Tell CloudFormation the outcome, at the URL it gave us."""
    outcome = {
        "Status": status,
        "Reason": reason[:2000],
        # One identity for all times: at a new one, CloudFormation would delete the former.
        "PhysicalResourceId": event.get("PhysicalResourceId") or event["LogicalResourceId"],
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        "Data": data,
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        event["ResponseURL"], data=json.dumps(outcome).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
