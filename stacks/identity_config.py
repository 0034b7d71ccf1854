"""The schema of `[identity]`: who may do what, and how they prove who they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, create_model, model_validator

from stacks.roles import BY_NAME, FOR_EVERYONE, ROLES
from stacks.section import DISTINCT, Section, matching, refusal, require_both

_ACCOUNT_OF_ROLE = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::(?P<account>[^:]*):(?P<rest>.*)", re.DOTALL)
_ROLE_PATH = re.compile(r"role/[A-Za-z0-9_+=,.@*/-]+")


def account_of(arn: str) -> str:
    """Return the account of an IAM role's ARN, or of a pattern of one."""
    return arn.split(":")[4]


def _role_pattern(value: str) -> str:
    match = _ACCOUNT_OF_ROLE.fullmatch(value)
    if match is None:
        raise ValueError("is not an IAM role's ARN; write arn:aws:iam::ACCOUNT:role/NAME")
    if not re.fullmatch(r"\d{12}", match["account"]):
        raise ValueError("has no account; write its 12 digits: a wildcard there would admit strangers")
    if not _ROLE_PATH.fullmatch(match["rest"]):
        raise ValueError("has no role; write `role/` and a name: `*` may stand only after `role/`")
    return value


def _one_of(names: Iterable[str]) -> Any:
    """Return the type of a name that must be one of `names`."""
    choice = tuple(names)

    def check(value: str) -> str:
        if value not in choice:
            raise ValueError(f"is not a role here; use {' or '.join(choice)}")
        return value

    return Annotated[str, AfterValidator(check), WithJsonSchema({"enum": choice, "type": "string"})]


AccountId = Annotated[str, matching(r"\d{12}", "is not an account's number", "write its 12 digits in quotes")]
RolePattern = Annotated[str, AfterValidator(_role_pattern)]
RoleArn = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+",
        "is not an IAM role's ARN",
        "write arn:aws:iam::ACCOUNT:role/NAME",
    ),
]
# In any partition; or a laptop's.
TokenIssuerUrl = Annotated[
    str,
    matching(
        r"https://([A-Za-z0-9-]{1,63}\.tokens\.sts\.([a-z0-9-]{1,63}\.)+[a-z]{2,63}|localhost:\d{2,5})",
        "is not the issuer of an account's tokens",
        "write what IAM says, https://….tokens.sts.global.api.aws and nothing more",
    ),
]
Group = Annotated[
    str,
    matching(r"[\w.-]{1,128}", "is not a group's name", "use up to 128 letters, digits, _ . and -"),
]
NewRoleName = Annotated[
    str,
    matching(r"[\w+=.@-]{1,64}", "is not a role's name", "use up to 64 letters, digits and _ + = . @ -"),
]
HttpsUrl = Annotated[
    str,
    matching(r"https://[^\s?#]{1,1000}", "is not an https:// URL", "write one without ? and #"),
]
ProviderName = Annotated[
    str,
    matching(
        r"[A-Za-z][A-Za-z0-9-]{2,31}",
        "is not a provider's name",
        "use 3 to 32 letters, digits and hyphens, a letter first",
    ),
]
PRINTABLE = matching(
    r"[\w.:/#@+=~-]{1,128}", "is not a name", "use up to 128 letters, digits and . : / # @ + = ~ - _"
)
_PLACE = matching(r"[^\s*?:]{1,255}", "is not one name", "write it in full: no pattern, no colon, no space")

ROLE_DESCRIPTION = f"Role that the principal gets: {', '.join(f'`{name}`' for name in BY_NAME)}."
EVERYONE_DESCRIPTION = (
    f"Role of everybody who comes from this provider, {' or '.join(f'`{name}`' for name in FOR_EVERYONE)}; "
    "without it, nobody has one before an administrator adds them to a group."
)
# At the load balancer each takes two of the priorities before the rule for the account's own tokens.
MOST_ISSUERS_AT_THE_EDGE = 4
NEW_ROLE_DESCRIPTION = "Name of the IAM role to make; unique in the account, part of its ARN, and kept."


EmailAddress = Annotated[
    str,
    matching(
        r"[\w.+-]{1,64}@([a-zA-Z0-9-]+\.)+[a-zA-Z]{2,63}",
        "is not an e-mail address",
        "write name@example.com",
    ),
]


class MembersConfig(Section):
    """Who has one role. A principal that has several may do what any of them permits."""

    iam_roles: Annotated[tuple[RolePattern, ...], Field(strict=False), DISTINCT] = Field(
        default=(),
        description="ARNs of IAM roles, in full; `*` stands for any text, only after `role/`.",
    )
    people: Annotated[tuple[EmailAddress, ...], Field(strict=False), DISTINCT] = Field(
        default=(),
        description="E-mail addresses of people to invite into the user pool; removed, they lose the role.",
    )
    groups: Annotated[tuple[Group, ...], Field(strict=False), DISTINCT] = Field(
        default=(), description="More groups of the user pool, beside `mlflow-` and the role's name."
    )


if TYPE_CHECKING:  # The types of the table are made at run time.
    RoleName = str
    EveryonesRole = str
    RolesConfig = Section
else:
    RoleName, EveryonesRole = _one_of(BY_NAME), _one_of(FOR_EVERYONE)
    RolesConfig = create_model(
        "RolesConfig",
        __base__=Section,
        __doc__="Members of each role.",
        **{
            role.name: (MembersConfig, Field(default_factory=MembersConfig, description=role.summary))
            for role in ROLES
        },
    )


class TrustedIssuerConfig(Section):
    """Another AWS account whose IAM roles may be members of roles: the issuer of its tokens."""

    account: AccountId = Field(description="The account, 12 digits in quotes; never the deployment's own.")
    issuer: TokenIssuerUrl = Field(
        description="Issuer of that account's tokens, as `aws iam get-outbound-web-identity-federation-info` "
        "there says it; believed about roles of that account only."
    )


class SamlConfig(Section):
    """Sign-in by a SAML identity provider."""

    name: ProviderName = Field(description="Name of the provider on the sign-in page; 3 to 32 characters.")
    metadata_url: HttpsUrl = Field(description="Where the provider publishes its SAML metadata.")
    email_attribute: Annotated[str, PRINTABLE] = Field(
        default="http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
        description="Attribute of the assertion that holds the e-mail address.",
    )
    everyone: EveryonesRole | None = Field(default=None, description=EVERYONE_DESCRIPTION)


class OidcConfig(Section):
    """Sign-in by an OpenID Connect identity provider."""

    name: ProviderName = Field(description="Name of the provider on the sign-in page; 3 to 32 characters.")
    issuer: HttpsUrl = Field(description="Issuer URL of the provider, as in its discovery document.")
    client_id: Annotated[str, PRINTABLE] = Field(
        description="Client id that the provider gave the user pool."
    )
    client_secret_name: Annotated[
        str,
        matching(
            r"[\w/+=.@-]{1,512}", "is not a secret's name", "use letters, digits and / _ + = . @ - only"
        ),
    ] = Field(
        description="Name of the secret in Secrets Manager whose text is the client secret.",
    )
    everyone: EveryonesRole | None = Field(default=None, description=EVERYONE_DESCRIPTION)


class GithubConfig(Section):
    """A role for one repository's workflows on GitHub Actions, on one branch or in one environment."""

    name: NewRoleName = Field(description=NEW_ROLE_DESCRIPTION)
    role: RoleName = Field(description=ROLE_DESCRIPTION)
    repository: Annotated[
        str,
        matching(
            r"[A-Za-z0-9-]{1,39}(@\d+)?/[\w.-]{1,100}(@\d+)?",
            "is not a repository",
            "write OWNER/NAME, without patterns",
        ),
    ] = Field(
        description="Repository as in its tokens: `OWNER/NAME`, or with immutable ids `OWNER@ID/NAME@ID`.",
    )
    branch: Annotated[str, _PLACE] | None = Field(
        default=None,
        description="Branch whose workflows may assume the role, exactly.",
    )
    environment: Annotated[str, _PLACE] | None = Field(
        default=None,
        description="Environment whose jobs may assume the role, exactly; in place of a branch.",
    )
    deploys: bool = Field(
        default=False,
        description="Its jobs may also deploy this environment, through the roles of the CDK's bootstrap; "
        "needs `environment`, which people protect.",
    )

    @property
    def subject(self) -> str:
        """The `sub` claim of this workflow's tokens, as GitHub documents it."""
        where = f"ref:refs/heads/{self.branch}" if self.branch else f"environment:{self.environment}"
        return f"repo:{self.repository}:{where}"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.branch is None) == (self.environment is None):
            raise refusal(
                "branch",
                self.branch,
                "is missing, and so is environment"
                if self.branch is None
                else "is set, and so is environment",
                "set exactly one of the two: with neither, any pull request could take the role",
            )
        if self.deploys and self.environment is None:
            raise refusal(
                "deploys",
                self.deploys,
                "lets whoever may push to a branch administer the account",
                "set environment in place of branch, and have people approve its jobs",
            )
        return self


class EksConfig(Section):
    """A role for one Kubernetes service account on EKS, by IRSA or by Pod Identity."""

    name: NewRoleName = Field(description=NEW_ROLE_DESCRIPTION)
    role: RoleName = Field(description=ROLE_DESCRIPTION)
    namespace: Annotated[
        str,
        matching(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "is not a namespace",
            "use up to 63 lower-case letters, digits and hyphens",
        ),
    ] = Field(description="Namespace of the service account.")
    service_account: Annotated[
        str,
        matching(
            r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
            "is not a service account's name",
            "use lower-case letters, digits, hyphens and dots",
        ),
    ] = Field(description="Name of the service account.")
    oidc_provider_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws[a-z-]*:iam::\d{12}:oidc-provider/[\w./-]+",
                "is not the ARN of an IAM OIDC provider",
                "write arn:aws:iam::ACCOUNT:oidc-provider/ISSUER",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="IAM OIDC provider of the cluster: for IRSA.",
    )
    cluster_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws[a-z-]*:eks:[a-z0-9-]+:\d{12}:cluster/[\w-]+",
                "is not the ARN of an EKS cluster",
                "write arn:aws:eks:REGION:ACCOUNT:cluster/NAME",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="ARN of the cluster: for Pod Identity.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.oidc_provider_arn is None) == (self.cluster_arn is None):
            raise refusal(
                "oidc_provider_arn",
                self.oidc_provider_arn,
                "is missing, and so is cluster_arn"
                if self.cluster_arn is None
                else "is set, and so is cluster_arn",
                "set oidc_provider_arn for IRSA, or cluster_arn for Pod Identity",
            )
        return self


class IdentityConfig(Section):
    """Who may do what, and how they prove who they are."""

    session_hours: int = Field(
        default=8, ge=1, le=168, description="Hours that a person stays signed in; then they sign in again."
    )
    edge_jwt_check: bool = Field(
        default=True,
        description="The load balancer checks programs' tokens too; the server always does.",
    )
    token_issuer: TokenIssuerUrl | None = Field(
        default=None,
        description="Issuer of the deployment's own account, where an administrator has enabled outbound web "
        "identity federation; without it, the first deployment enables it. Choose before that.",
    )
    mfa: Literal["optional", "required"] = Field(
        default="optional",
        description="A second factor (an authenticator app) for the user pool's own users; a federated "
        "provider asks for its own.",
    )
    plan: Literal["essentials", "plus"] = Field(
        default="plus",
        description="Cognito plan; `plus` adds protection from leaked passwords and odd sign-ins.",
    )
    domain_prefix: (
        Annotated[
            str,
            matching(
                r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
                "is not the first label of a host name",
                "use up to 63 lower-case letters, digits and hyphens",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="First label of the sign-in page's host name, unique in the region; without it, one "
        "made of the account's number and the stack's name.",
    )
    sign_in_domain: (
        Annotated[
            str,
            matching(
                r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.){2,}[a-z]{2,63}",
                "is not a host name below a domain",
                "write one such as login.example.com, in lower case",
            ),
        ]
        | None
    ) = Field(default=None, description="Host name of the sign-in page, in place of one of Cognito's own.")
    sign_in_certificate_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws:acm:us-east-1:\d{12}:certificate/[\w-]+",
                "is not the ARN of a certificate in us-east-1",
                "write one of ACM there, which is where Cognito reads it",
            ),
        ]
        | None
    ) = Field(default=None, description="Certificate of that host name in ACM, in us-east-1.")
    github_provider_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws[a-z-]*:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com",
                "is not the ARN of GitHub's OIDC provider",
                "write arn:aws:iam::ACCOUNT:oidc-provider/token.actions.githubusercontent.com",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="IAM OIDC provider of GitHub Actions in the account; without it, one is made if needed.",
    )
    roles: RolesConfig = Field(default_factory=RolesConfig, description="Members of each role.")
    trusted_issuers: Annotated[tuple[TrustedIssuerConfig, ...], Field(strict=False, max_length=19)] = Field(
        default=(), description=TrustedIssuerConfig.__doc__
    )
    saml: SamlConfig | None = Field(default=None, description=SamlConfig.__doc__)
    oidc: OidcConfig | None = Field(default=None, description=OidcConfig.__doc__)
    github: Annotated[tuple[GithubConfig, ...], Field(strict=False)] = Field(
        default=(), description=GithubConfig.__doc__
    )
    eks: Annotated[tuple[EksConfig, ...], Field(strict=False)] = Field(
        default=(), description=EksConfig.__doc__
    )

    def members(self, role: str) -> MembersConfig:
        """Return who has this role."""
        members: MembersConfig = getattr(self.roles, role)
        return members

    def members_elsewhere(self, role: str) -> tuple[str, ...]:
        """Return the patterns of this role that are about an account with a trusted issuer."""
        trusted = {each.account for each in self.trusted_issuers}
        return tuple(arn for arn in self.members(role).iam_roles if account_of(arn) in trusted)

    @property
    def untrusted_members(self) -> dict[str, tuple[str, str]]:
        """The accounts in `iam_roles` without a trusted issuer, and where each is named: role and pattern."""
        trusted = {each.account for each in self.trusted_issuers}
        found = {
            account_of(arn): (role.name, arn) for role in ROLES for arn in self.members(role.name).iam_roles
        }
        return {account: where for account, where in found.items() if account not in trusted}

    @property
    def admits_anybody(self) -> bool:
        """Whether at least one program or person has a role."""
        members = [self.members(role) for role in BY_NAME]
        provided = [each.everyone for each in (self.saml, self.oidc) if each is not None]
        return bool(
            self.ready_made
            or any(provided)
            or any(each.iam_roles or each.people or each.groups for each in members)
        )

    @property
    def ready_made(self) -> list[GithubConfig | EksConfig]:
        """Every role that is made for programs outside AWS."""
        return [*self.github, *self.eks]

    @model_validator(mode="after")
    def _one_host_for_sign_in(self) -> Self:
        require_both(self, "sign_in_domain", "sign_in_certificate_arn")
        if self.sign_in_domain and self.domain_prefix:
            raise refusal(
                "domain_prefix",
                self.domain_prefix,
                f"has no effect beside sign_in_domain = {self.sign_in_domain}",
                "remove one of the two",
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        prefix = self.domain_prefix
        if prefix is not None and (
            word := next((w for w in ("aws", "amazon", "cognito") if w in prefix), None)
        ):
            raise refusal(
                "domain_prefix", prefix, f"contains {word}, which Cognito reserves", "choose another prefix"
            )
        if self.saml and self.oidc and self.saml.name == self.oidc.name:
            raise refusal(
                "oidc.name", self.oidc.name, "is also the name of the SAML provider", "give each its own name"
            )
        self._refuse_ambiguous_issuers()
        names = [each.name for each in self.ready_made]
        for name in names:
            if names.count(name) > 1:
                raise refusal(
                    "github.name" if any(each.name == name for each in self.github) else "eks.name",
                    name,
                    "names more than one role",
                    "give each role its own name",
                )
        if self.github_provider_arn is not None and not self.github:
            raise refusal(
                "github_provider_arn",
                self.github_provider_arn,
                "has no effect: there is no [[identity.github]]",
                "add a role for a repository, or remove it",
            )
        return self

    def _refuse_ambiguous_issuers(self) -> None:
        accounts = [each.account for each in self.trusted_issuers]
        issuers = [*(each.issuer for each in self.trusted_issuers), *filter(None, [self.token_issuer])]
        for key, values in (("account", accounts), ("issuer", issuers)):
            for value in values:
                if values.count(value) > 1:
                    raise refusal(
                        f"trusted_issuers.{key}",
                        value,
                        "is given twice",
                        "give each account its own issuer, once: a token's account follows from its issuer",
                    )
        if self.edge_jwt_check and len(accounts) > MOST_ISSUERS_AT_THE_EDGE:
            raise refusal(
                "trusted_issuers",
                accounts,
                f"are {len(accounts)} accounts, and the load balancer checks the tokens of "
                f"{MOST_ISSUERS_AT_THE_EDGE} beside the deployment's own",
                "set edge_jwt_check = false, which leaves the check to the server, or list fewer accounts",
            )
