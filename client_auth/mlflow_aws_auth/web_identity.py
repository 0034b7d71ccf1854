"""Tokens from `sts:GetWebIdentityToken`, and what its refusals mean.

AWS Security Token Service API Reference, GetWebIdentityToken: RS256, 60 to 3600 seconds, regional endpoints
only. The token's subject is the ARN of the caller's IAM role, with its path.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from functools import cache
from typing import Any

from mlflow_aws_auth.errors import AwsAuthError
from mlflow_aws_auth.token_cache import Token

# Shorter ones are asked for only if the credentials themselves end sooner.
_LIFETIMES = (900, 300, 60)
_CONNECT_SECONDS, _READ_SECONDS = 5, 10
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}
_TOO_LONG = "SessionDurationEscalationException"
_FEDERATION_OFF = "OutboundWebIdentityFederationDisabledException"
_RENEW = "sign in again (aws sso login, or assume the role), then restart this kernel or process"
_PLATFORM = "who runs the MLflow deployment (it enables federation when it is deployed in this account)"

_loading = threading.Lock()


def _after_fork() -> None:
    # Who held it does not exist in the child.
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _WithoutTokens(logging.Filter):
    # botocore logs whole answers at DEBUG.
    def filter(self, record: logging.LogRecord) -> bool:
        return "WebIdentityToken" not in record.getMessage()


logging.getLogger("botocore.parsers").addFilter(_WithoutTokens())


def default_session() -> Any:
    """boto3's default session: the identity with which MLflow itself goes to S3."""
    import boto3

    with _loading:
        if boto3.DEFAULT_SESSION is None:
            boto3.setup_default_session()
        return boto3.DEFAULT_SESSION


def credentials_of(session: Any) -> Any:
    """The session's credentials, which refresh themselves; the same object while the session lives.

    Raises:
        AwsAuthError: there are none, or they cannot be loaded.
    """
    from botocore.exceptions import BotoCoreError

    try:
        with _loading:  # two threads that load them at once would each get an object of their own
            found = session.get_credentials()
    except BotoCoreError as error:
        raise AwsAuthError(
            f"AWS credentials cannot be loaded: {error}", next_action=_RENEW, who="you"
        ) from error
    if found is None:
        raise AwsAuthError(
            "no AWS credentials were found",
            next_action="sign in (aws sso login, with AWS_PROFILE set), or run where a role is attached: "
            "an EC2 instance profile, an ECS task role, an EKS service account",
            who="you; your AWS administrator if you have no role",
        )
    return found


def region_of(session: Any) -> str:
    """The region whose STS is asked.

    Raises:
        AwsAuthError: none is set.
    """
    # The CLI and the other SDKs read AWS_REGION, boto3 reads AWS_DEFAULT_REGION.
    region = session.region_name or os.environ.get("AWS_REGION")
    if not region:
        raise AwsAuthError(
            "no AWS region is set, and web identity tokens come from regional STS endpoints only",
            next_action="set AWS_REGION to the deployment's region, such as eu-central-1",
            who="you",
        )
    return str(region)


def fetch(session: Any, credentials: Any, *, audience: str) -> Token:
    """A new token of the caller for `audience`.

    Raises:
        AwsAuthError: STS gave none, or gave one for an identity that is not an IAM role.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    region = region_of(session)
    try:
        client = _client(session, credentials, region)
        call = getattr(client, "get_web_identity_token", None)
        if call is None:
            raise _too_old()
        token = _ask(call, audience)
    except ClientError as error:
        raise _refused(error, region, audience) from error
    except BotoCoreError as error:
        raise _unreachable(error, region) from error
    _require_role(subject(token.value))
    return token


def subject(token: str) -> str:
    """The `sub` claim, unverified: verifying is the server's part. Empty if it is no JWT."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return str(claims.get("sub", ""))
    except (IndexError, ValueError, AttributeError):
        return ""


def _client(session: Any, credentials: Any, region: str) -> Any:
    import botocore.session
    from botocore.config import Config

    frozen = credentials.get_frozen_credentials()
    # A session of its own: making clients of the shared one is not thread-safe, and a
    # configured "legacy" STS endpoint, which is global and does not know this operation, is overruled here.
    own = botocore.session.Session(profile=_profile_of(session))
    own.register_component("data_loader", _api_models())
    own.set_config_variable("sts_regional_endpoints", "regional")
    return own.create_client(
        "sts",
        region_name=region,
        aws_access_key_id=frozen.access_key,
        aws_secret_access_key=frozen.secret_key,
        aws_session_token=frozen.token,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )


@cache
def _api_models() -> Any:
    # Reading them anew for every client would take longer than the call.
    from botocore.loaders import create_loader

    return create_loader()


def _profile_of(session: Any) -> str | None:
    name = session.profile_name
    return str(name) if name in session.available_profiles else None


def _ask(call: Any, audience: str) -> Token:
    from botocore.exceptions import ClientError

    for seconds in _LIFETIMES:
        issued = time.time()
        try:
            answer = call(Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=seconds)
        except ClientError as error:
            if error.response["Error"]["Code"] != _TOO_LONG or seconds == _LIFETIMES[-1]:
                raise
            continue
        # By this machine's clock, which may be behind: then AWS's time of the end would come too late.
        expires = min(answer["Expiration"].timestamp(), issued + seconds)
        return Token(value=answer["WebIdentityToken"], issued=issued, expires=expires)
    raise AssertionError("unreachable")


def _require_role(arn: str) -> None:
    if ":user/" not in arn and not arn.endswith(":root"):
        return
    raise AwsAuthError(
        f"you are {arn}: an IAM user, and MLflow on AWS knows roles only",
        next_action="assume a role that the deployment maps (a profile with role_arn, aws sts assume-role)",
        who="you; your AWS administrator if you have no role",
    )


def _too_old() -> AwsAuthError:
    import boto3
    import botocore

    return AwsAuthError(
        f"boto3 {boto3.__version__} (botocore {botocore.__version__}) does not know sts:GetWebIdentityToken",
        next_action="pip install --upgrade 'boto3>=1.41'",
        who="you",
    )


def _refused(error: Any, region: str, audience: str) -> AwsAuthError:
    code = error.response["Error"]["Code"]
    message = " ".join(str(error.response["Error"].get("Message", "")).split())
    seen = f"STS in {region} answered {code}: {message}"
    if code == _FEDERATION_OFF:
        return AwsAuthError(
            f"outbound web identity federation is off in your AWS account ({seen})",
            next_action="enable it: aws iam enable-outbound-web-identity-federation",
            who="an administrator of your AWS account; " + _PLATFORM,
        )
    if code in _DENIED:
        return AwsAuthError(
            f"you may not call sts:GetWebIdentityToken for {audience} ({seen})",
            next_action="attach one of the deployment's policies (its outputs ViewerPolicyArn to "
            "AdminPolicyArn) to your role; if it has one, set MLFLOW_AWS_AUDIENCE to the TokenAudience",
            who="whoever administers your IAM role",
        )
    if code in _EXPIRED or code == _TOO_LONG:
        return AwsAuthError(
            f"your AWS credentials have ended or end within a minute ({seen})", next_action=_RENEW, who="you"
        )
    if code in _UNKNOWN:
        return AwsAuthError(f"AWS does not know your credentials ({seen})", next_action=_RENEW, who="you")
    if code == "InvalidAction":
        return AwsAuthError(
            f"this STS endpoint does not know GetWebIdentityToken ({seen})",
            next_action="unset AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL, or name a regional endpoint",
            who="you",
        )
    return AwsAuthError(seen, next_action="try again; the message is AWS's own", who="you")


def _unreachable(error: Exception, region: str) -> AwsAuthError:
    return AwsAuthError(
        f"STS in {region} cannot be asked: {error}",
        next_action="check the region's name, your network and proxy, and the VPC's endpoint for STS",
        who="you; who runs your network if it has no way to STS",
    )
