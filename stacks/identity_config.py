"""The schema of `[identity]`: who may do what, and how they prove who they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, create_model, model_validator

from stacks.roles import BY_NAME, FOR_EVERYONE, ROLES
from stacks.section import Section, refusal

_ACCOUNT_OF_ROLE = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::(?P<account>[^:]*):(?P<rest>.*)", re.DOTALL)
_ROLE_PATH = re.compile(r"role/[A-Za-z0-9_+=,.@*/-]+")


def _role_pattern(value: str) -> str:
    match = _ACCOUNT_OF_ROLE.fullmatch(value)
    if match is None:
        raise ValueError("is not an IAM role's ARN, arn:aws:iam::ACCOUNT:role/NAME")
    if not re.fullmatch(r"\d{12}", match["account"]):
        raise ValueError("has no account: 12 digits are needed; a wildcard there would admit strangers")
    if not _ROLE_PATH.fullmatch(match["rest"]):
        raise ValueError("has no role: `role/` and a name are needed; `*` may stand only after `role/`")
    return value


def _one_of(names: Iterable[str]) -> Any:
    """Return the type of a name that must be one of `names`."""
    choice = tuple(names)

    def check(value: str) -> str:
        if value not in choice:
            raise ValueError(f"is not {' or '.join(choice)}")
        return value

    return Annotated[str, AfterValidator(check), WithJsonSchema({"enum": choice, "type": "string"})]


RolePattern = Annotated[str, AfterValidator(_role_pattern)]
Group = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
NewRoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=.@-]{1,64}$")]
HttpsUrl = Annotated[str, Field(pattern=r"^https://[^\s?#]+$")]
ProviderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{2,31}$")]

ROLE_DESCRIPTION = f"Role that the principal gets: {', '.join(f'`{name}`' for name in BY_NAME)}."
EVERYONE_DESCRIPTION = (
    f"Role of everybody who comes from this provider, {' or '.join(f'`{name}`' for name in FOR_EVERYONE)}; "
    "without it, nobody has one before an administrator adds them to a group."
)
NEW_ROLE_DESCRIPTION = "Name of the IAM role to make; unique in the account, part of its ARN, and kept."


class MembersConfig(Section):
    """Who has one role. A principal that has several may do what any of them permits."""

    iam_roles: Annotated[tuple[RolePattern, ...], Field(strict=False)] = Field(
        default=(),
        description="ARNs of IAM roles, in full; `*` stands for any text, only after `role/`.",
    )
    groups: Annotated[tuple[Group, ...], Field(strict=False)] = Field(
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


class SamlConfig(Section):
    """Sign-in by a SAML identity provider."""

    name: ProviderName = Field(description="Name of the provider on the sign-in page; 3 to 32 characters.")
    metadata_url: HttpsUrl = Field(description="Where the provider publishes its SAML metadata.")
    email_attribute: str = Field(
        default="http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
        description="Attribute of the assertion that holds the e-mail address.",
    )
    everyone: EveryonesRole | None = Field(default=None, description=EVERYONE_DESCRIPTION)


class OidcConfig(Section):
    """Sign-in by an OpenID Connect identity provider."""

    name: ProviderName = Field(description="Name of the provider on the sign-in page; 3 to 32 characters.")
    issuer: HttpsUrl = Field(description="Issuer URL of the provider, as in its discovery document.")
    client_id: str = Field(min_length=1, description="Client id that the provider gave the user pool.")
    client_secret_name: str = Field(
        pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$",
        description="Name of the secret in Secrets Manager whose text is the client secret.",
    )
    everyone: EveryonesRole | None = Field(default=None, description=EVERYONE_DESCRIPTION)


class GithubConfig(Section):
    """A role for one repository's workflows on GitHub Actions, on one branch or in one environment."""

    name: NewRoleName = Field(description=NEW_ROLE_DESCRIPTION)
    role: RoleName = Field(description=ROLE_DESCRIPTION)
    repository: str = Field(
        pattern=r"^[A-Za-z0-9-]+(@\d+)?/[A-Za-z0-9_.-]+(@\d+)?$",
        description="Repository as in its tokens: `OWNER/NAME`, or with immutable ids `OWNER@ID/NAME@ID`.",
    )
    branch: str | None = Field(
        default=None,
        pattern=r"^[^\s*?:]+$",
        description="Branch whose workflows may assume the role, exactly.",
    )
    environment: str | None = Field(
        default=None,
        pattern=r"^[^\s*?:]+$",
        description="Environment whose jobs may assume the role, exactly; in place of a branch.",
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
        return self


class EksConfig(Section):
    """A role for one Kubernetes service account on EKS, by IRSA or by Pod Identity."""

    name: NewRoleName = Field(description=NEW_ROLE_DESCRIPTION)
    role: RoleName = Field(description=ROLE_DESCRIPTION)
    namespace: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of the service account."
    )
    service_account: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", description="Name of the service account."
    )
    oidc_provider_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:iam::\d{12}:oidc-provider/[A-Za-z0-9./_-]+$",
        description="IAM OIDC provider of the cluster: for IRSA.",
    )
    cluster_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:eks:[a-z0-9-]+:\d{12}:cluster/[A-Za-z0-9_-]+$",
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
    mfa: Literal["optional", "required"] = Field(
        default="optional",
        description="A second factor (an authenticator app) for the user pool's own users; a federated "
        "provider asks for its own.",
    )
    plan: Literal["essentials", "plus"] = Field(
        default="plus",
        description="Cognito plan; `plus` adds protection from leaked passwords and odd sign-ins.",
    )
    domain_prefix: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="First label of the sign-in page's host name, unique in the region; without it, one "
        "made of the account's number and the stack's name.",
    )
    github_provider_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com$",
        description="IAM OIDC provider of GitHub Actions in the account; without it, one is made if needed.",
    )
    roles: RolesConfig = Field(default_factory=RolesConfig, description="Members of each role.")
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

    @property
    def ready_made(self) -> list[GithubConfig | EksConfig]:
        """Every role that is made for programs outside AWS."""
        return [*self.github, *self.eks]

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
