"""From a token to a principal with its roles; verified tokens are remembered for a while."""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlflow_aws_server.identity.errors import PermissionDeniedError, UnauthenticatedError
from mlflow_aws_server.identity.keys import KeyStore
from mlflow_aws_server.identity.roles import Lane, Principal
from mlflow_aws_server.identity.settings import IdentitySettings, UserPool
from mlflow_aws_server.identity.tokens import Claims, verify

_REMEMBERED_SECONDS = 300.0
_MOST_REMEMBERED = 4096

_IAM_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]{1,576}")
# AWS's own claims ("Understanding token claims", IAM's guide).
_AWS_CLAIMS = "https://sts.amazonaws.com/"
_USERNAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    until: float
    keys: KeyStore
    generation: int


class Callers:
    """Who sent a token, by the rules of one lane.

    A verified token is remembered, as a digest, for five minutes or until it expires, and forgotten
    when its issuer's keys change.
    """

    def __init__(
        self,
        lane: Lane,
        settings: IdentitySettings,
        issuers: Mapping[str, KeyStore],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`issuers` are the ones of this lane by their URLs, each with its own keys."""
        self._lane = lane
        self._settings = settings
        self._issuers = issuers
        self._find_keys = {url: keys.key for url, keys in issuers.items()}
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def who(self, token: bytes) -> Principal:
        """The principal of this token.

        Raises:
            UnauthenticatedError: the token is not valid.
            PermissionDeniedError: it is valid, but its principal has no role.
            IssuerUnavailableError: the issuer's keys cannot be fetched at the moment.
        """
        digest = hashlib.sha256(token).digest()
        known = self._remembered.get(digest)
        if known is not None:
            if known.until > self._clock() and known.generation == known.keys.generation:
                return known.principal
            del self._remembered[digest]
        if self._lane is Lane.IAM:
            claims, principal = await self._iam(token)
        else:
            claims, principal = await self._cognito(token)
        while len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        now, keys = self._clock(), self._issuers[claims["iss"]]
        self._remembered[digest] = _Remembered(
            principal, min(float(claims["exp"]), now + _REMEMBERED_SECONDS), keys, keys.generation
        )
        return principal

    async def _iam(self, token: bytes) -> tuple[Claims, Principal]:
        settings = self._settings
        claims = await verify(token, issuers=self._find_keys, audience=settings.token_audience)
        arn = claims["sub"]
        if not _IAM_ROLE.fullmatch(arn):
            raise UnauthenticatedError(
                "subject",
                "The token's subject is not the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME).",
            )
        _refuse_other_accounts(claims, settings.token_issuers[claims["iss"]])
        roles = settings.roles.of_iam_role(arn)
        if not roles:
            raise PermissionDeniedError(
                "no-role",
                f"{arn} has no role on this MLflow server. Whoever deploys it can add the ARN to "
                "[identity.roles.…] iam_roles in the environment's configuration.",
                principal=arn,
            )
        return claims, Principal(name=arn, roles=roles, lane=Lane.IAM)

    async def _cognito(self, token: bytes) -> tuple[Claims, Principal]:
        pool = self._settings.user_pool
        if pool is None:
            raise UnauthenticatedError("no-user-pool", "This server has no sign-in for people.")
        claims = await verify(token, issuers=self._find_keys, audience=None)
        username, groups = _user(claims, pool)
        roles = self._settings.roles.of_groups(groups)
        if not roles:
            raise PermissionDeniedError(
                "no-role",
                f"cognito:{username} has no role on this MLflow server. An administrator of its user pool "
                "can add the user to a group that has one: "
                f"{', '.join(group for group, _ in self._settings.roles.groups)}.",
                principal=f"cognito:{username}",
            )
        return claims, Principal(name=f"cognito:{username}", roles=roles, lane=Lane.COGNITO)


def _refuse_other_accounts(claims: Claims, account: str) -> None:
    """An issuer speaks for the roles of its own account (`arn:aws:iam::ACCOUNT`) and for no other."""
    if not claims["sub"].startswith(f"{account}:role/"):
        raise UnauthenticatedError(
            "account", "The token names a role of another AWS account than the one that issued it."
        )
    own = claims.get(_AWS_CLAIMS, {})
    seen = {"aws_account": account.rpartition(":")[2], "principal_id": claims["sub"]}
    # STS can sign for somebody on whose behalf a role acts; the role itself is in `principal_id`.
    if not isinstance(own, dict) or any(own.get(name, value) != value for name, value in seen.items()):
        raise UnauthenticatedError(
            "account", "The token's subject is not the AWS role that asked for the token."
        )


def _user(claims: Claims, pool: UserPool) -> tuple[str, list[str]]:
    """Name and groups in Cognito's access token ("Understanding the access token", Cognito's guide)."""
    if claims.get("token_use") != "access":
        raise UnauthenticatedError("token-use", "The token is not an access token of the user pool.")
    if claims.get("client_id") != pool.client_id:
        raise UnauthenticatedError("client-id", "The token was issued to another application.")
    username = claims.get("username")
    if not isinstance(username, str) or not _USERNAME.fullmatch(username):
        raise UnauthenticatedError("username", "The token names no user.")
    groups = claims.get("cognito:groups", [])
    if not isinstance(groups, list):
        raise UnauthenticatedError("claims", "The token's groups cannot be read.")
    return username, [group for group in groups if isinstance(group, str)]
