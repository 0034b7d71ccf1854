"""The gate's part of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.settings import EnvironmentReader, VariableError, public_url

_ISSUER = re.compile(r"https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*")
_ISSUER_EXPECTED = (
    "https://HOST or https://HOST/PATH without a slash at the end, as the tokens' `iss` says it"
)
# The keys of each are fetched and kept.
_MOST_TOKEN_ISSUERS = 20
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}")


@dataclass(frozen=True, kw_only=True)
class UserPool:
    """The Cognito user pool and the app client of the load balancer."""

    issuer: str
    client_id: str


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """Whose tokens are believed, for which audience, and who has which role. Nothing here is secret."""

    # Each issuer's URL, and the account whose roles it may name: `arn:aws:iam::123456789012`. The first is
    # the server's own account.
    token_issuers: Mapping[str, str]
    token_audience: str
    public_url: str
    roles: RoleMap
    user_pool: UserPool | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> IdentitySettings:
        """Read the settings. There is no way to switch identity off: what is missing here ends the start.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        url = public_url(read)
        roles = read.text("MLFLOW_AWS_ROLES")
        try:
            role_map = RoleMap.parse(roles)
        except ValueError as error:
            raise VariableError(
                variable="MLFLOW_AWS_ROLES",
                value=roles,
                problem=str(error),
                remedy='Expected JSON like {"viewer": {"permissions": ["read"], "groups": ["mlflow-viewer"], '
                '"iam_roles": ["arn:aws:iam::123456789012:role/team/*"]}}.',
            ) from None
        return cls(
            token_issuers=_token_issuers(read),
            token_audience=read.matching(
                "MLFLOW_AWS_TOKEN_AUDIENCE",
                re.compile(r"[\x21-\x7e]{1,1000}"),
                expected="the audience that clients ask AWS STS for, normally this deployment's URL",
                default=url,
            ),
            public_url=url,
            roles=role_map,
            user_pool=_user_pool(read),
        )


def _token_issuers(read: EnvironmentReader) -> Mapping[str, str]:
    variable = "MLFLOW_AWS_TOKEN_ISSUERS"
    value = read.text(variable)
    entries = [entry.partition("=") for entry in value.split(" ")]
    issuers = {issuer: account for account, _, issuer in entries}
    if (
        not all(_ACCOUNT.fullmatch(account) and _ISSUER.fullmatch(issuer) for account, _, issuer in entries)
        or len({*issuers.values()}) < len(entries)
        or len(issuers) < len(entries)
        or len(entries) > _MOST_TOKEN_ISSUERS
    ):
        raise VariableError(
            variable=variable,
            value=value,
            problem="it does not give each AWS account its own issuer of tokens",
            remedy="Expected arn:aws:iam::123456789012=https://HOST, the issuer without a slash at the end; "
            f"a space before each further account, {_MOST_TOKEN_ISSUERS} at most.",
        )
    return issuers


def _user_pool(read: EnvironmentReader) -> UserPool | None:
    names = ("MLFLOW_AWS_USER_POOL_ISSUER", "MLFLOW_AWS_USER_POOL_CLIENT_ID")
    missing = [name for name in names if read.optional(name) is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise VariableError(
            variable=missing[0],
            value=None,
            problem=f"{' and '.join(names)} belong together",
            remedy="Set both, or neither for a server that only programs use.",
        )
    return UserPool(
        issuer=read.matching(names[0], _ISSUER, expected=_ISSUER_EXPECTED),
        client_id=read.matching(
            names[1], re.compile(r"[\w+]{1,128}"), expected="the id of the load balancer's app client"
        ),
    )
