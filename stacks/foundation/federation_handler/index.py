"""Turns on the account's outbound web identity federation for CloudFormation, and answers its issuer.

Needs nothing but AWS Lambda's Python runtime; the template carries this file as it is. IAM is asked by signed
queries: the two operations date from November 2025, and a runtime's SDK may be older than they are.
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

Ask = Callable[[str], Mapping[str, str]]


class IamError(Exception):
    """IAM refused; `code` is the one of its answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class FederationError(Exception):
    """The account has no issuer; the text is for the events of the stack."""


def handler(event: Mapping[str, Any], _context: Any) -> None:
    """Answer one request of CloudFormation; never leave it waiting."""
    issuer, status, reason = None, "SUCCESS", ""
    try:
        if event["RequestType"] == "Delete":
            reason = "outbound federation stays on: others in the account may depend on it"
        else:
            issuer = enable(signed_queries())
            reason = f"the issuer is {issuer}"
    except Exception as error:
        logger.exception("outbound federation could not be turned on")
        status, reason = "FAILED", str(error) or repr(error)
    answer(event, status=status, reason=reason, issuer=issuer)


def enable(ask: Ask) -> str:
    """Turn federation on unless it is, and return the issuer URL of this account's tokens."""
    try:
        found = patiently(ask, "EnableOutboundWebIdentityFederation")
    except IamError as error:
        if error.code != "FeatureEnabled":
            raise
        found = patiently(ask, "GetOutboundWebIdentityFederationInfo")
    issuer = found.get("IssuerIdentifier", "")
    if not issuer.startswith("https://"):
        raise FederationError(f"IAM named no issuer for this account's tokens: {dict(found)}")
    return issuer.rstrip("/")


def patiently(ask: Ask, action: str) -> Mapping[str, str]:
    """Ask again while the refusal is one that passes."""
    for _ in range(ATTEMPTS - 1):
        try:
            return ask(action)
        except IamError as error:
            if not error.code.startswith(PASSING):
                raise
            logger.info("%s, asking again", error)
            time.sleep(PAUSE_SECONDS)
    return ask(action)


def signed_queries() -> Ask:
    """Return a function that asks IAM, at the endpoint and with the credentials that boto3 would use."""
    session = boto3.Session()
    endpoint = session.client("iam").meta.endpoint_url
    credentials = session.get_credentials()
    partition = session.get_partition_for_region(session.region_name or "us-east-1")
    signer = SigV4Auth(credentials.get_frozen_credentials(), "iam", SIGNING_REGIONS[partition])
    http = URLLib3Session(timeout=30)

    def ask(action: str) -> Mapping[str, str]:
        body = urlencode({"Action": action, "Version": API_VERSION})
        form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = AWSRequest("POST", endpoint, headers=form, data=body)
        signer.add_auth(request)
        response = http.send(request.prepare())
        return parse(response.status_code, response.content)

    return ask


def parse(status: int, content: bytes) -> Mapping[str, str]:
    """Return the values of IAM's answer by name; raise IamError if it is a refusal."""
    try:
        # AWS's answer over an authenticated connection: not the untrusted XML that the parser warns of.
        values = {
            each.tag.rsplit("}", 1)[-1]: (each.text or "").strip()
            for each in ElementTree.fromstring(content).iter()  # noqa: S314
        }
    except ElementTree.ParseError:
        values = {}
    if status >= 400 or not values:
        raise IamError(values.get("Code", f"ServiceFailure {status}"), values.get("Message", ""))
    return values


def answer(event: Mapping[str, Any], *, status: str, reason: str, issuer: str | None) -> None:
    """Tell CloudFormation the outcome, at the URL it gave us."""
    outcome = {
        "Status": status,
        "Reason": reason[:2000],
        # One identity for all times: at a new one, CloudFormation would delete the former.
        "PhysicalResourceId": "outbound-web-identity-federation",
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        **({"Data": {"IssuerUrl": issuer}} if issuer else {}),
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        event["ResponseURL"], data=json.dumps(outcome).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
