"""The directory of people."""

import hashlib
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.identity_config import IdentityConfig, OidcConfig, SamlConfig
from stacks.roles import ROLES

PLANS = {"essentials": cognito.FeaturePlan.ESSENTIALS, "plus": cognito.FeaturePlan.PLUS}
MFA = {"optional": cognito.Mfa.OPTIONAL, "required": cognito.Mfa.REQUIRED}


class UserDirectory(Construct):
    """A user pool that only an administrator, or a federated identity provider, lets anyone into.

    One group for each role. Passwords are long, a second factor is an authenticator app rather than a text
    message, and neither accounts nor groups go away with the stack.
    """

    def __init__(self, scope: Construct, construct_id: str, *, url: str, config: IdentityConfig) -> None:
        super().__init__(scope, construct_id)
        self.pool = _pool(self, config, url=url)
        self.issuer = self.pool.user_pool_provider_url
        self._groups(config)
        self.own_domain = config.sign_in_domain
        self.domain = self._domain(config)
        if config.saml:
            self._saml(config.saml)
        if config.oidc:
            self._oidc(config.oidc)
        providers = [each for each in (config.saml, config.oidc) if each is not None]
        self.provider_names = [each.name for each in providers]
        # Cognito puts whoever comes from a provider into a group of this name.
        self.groups_of_providers: Mapping[str, str] = {
            f"{self.pool.user_pool_id}_{each.name}": each.everyone
            for each in providers
            if each.everyone is not None
        }

    def _domain(self, config: IdentityConfig) -> cognito.UserPoolDomain:
        newer = cognito.ManagedLoginVersion.NEWER_MANAGED_LOGIN
        if config.sign_in_domain and config.sign_in_certificate_arn:
            certificate = acm.Certificate.from_certificate_arn(
                self, "Certificate", config.sign_in_certificate_arn
            )
            return self.pool.add_domain(
                "OwnDomain",
                custom_domain=cognito.CustomDomainOptions(
                    domain_name=config.sign_in_domain, certificate=certificate
                ),
                managed_login_version=newer,
            )
        return self.pool.add_domain(
            "Domain",
            cognito_domain=cognito.CognitoDomainOptions(domain_prefix=config.domain_prefix or _prefix(self)),
            managed_login_version=newer,
        )

    @property
    def sign_in_url(self) -> str:
        """Where people sign in. In GovCloud, Cognito has FIPS endpoints only."""
        region = cdk.Stack.of(self).region
        in_govcloud = not cdk.Token.is_unresolved(region) and region.startswith("us-gov-")
        return self.domain.base_url(fips=in_govcloud)

    def _groups(self, config: IdentityConfig) -> None:
        people: dict[str, cognito.CfnUserPoolUser] = {}
        for precedence, role in enumerate(reversed(ROLES)):
            group = cognito.UserPoolGroup(
                self,
                role.construct_id,
                user_pool=self.pool,
                group_name=role.group,
                description=f"Has the role {role.name} in MLflow",
                precedence=precedence,
            )
            group.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
            for address in config.members(role.name).people:
                person = people.get(address) or people.setdefault(address, self._person(address))
                member = cognito.CfnUserPoolUserToGroupAttachment(
                    self,
                    f"{role.construct_id}{address}",
                    user_pool_id=self.pool.user_pool_id,
                    group_name=group.group_name,
                    username=person.ref,
                )
                member.node.add_dependency(group)

    def _person(self, address: str) -> cognito.CfnUserPoolUser:
        """Invite a person by e-mail; they sign in by address, and are known by a name without an @."""
        person = cognito.CfnUserPoolUser(
            self,
            f"Person{address}",
            user_pool_id=self.pool.user_pool_id,
            # Where an address is an alias, Cognito refuses it as a name.
            username=address.lower().replace("@", "-at-"),
            desired_delivery_mediums=["EMAIL"],
            user_attributes=[
                cognito.CfnUserPoolUser.AttributeTypeProperty(name="email", value=address),
                cognito.CfnUserPoolUser.AttributeTypeProperty(name="email_verified", value="true"),
            ],
        )
        person.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
        return person

    def _saml(self, config: SamlConfig) -> None:
        cognito.UserPoolIdentityProviderSaml(
            self,
            "Saml",
            user_pool=self.pool,
            name=config.name,
            metadata=cognito.UserPoolIdentityProviderSamlMetadata.url(config.metadata_url),
            # An assertion that nobody asked for could be somebody else's.
            idp_initiated=False,
            attribute_mapping=cognito.AttributeMapping(
                email=cognito.ProviderAttribute.other(config.email_attribute)
            ),
        )

    def _oidc(self, config: OidcConfig) -> None:
        secret = cdk.SecretValue.secrets_manager(config.client_secret_name)
        cognito.UserPoolIdentityProviderOidc(
            self,
            "Oidc",
            user_pool=self.pool,
            name=config.name,
            issuer_url=config.issuer,
            client_id=config.client_id,
            # What is unwrapped is a reference, which CloudFormation resolves; the template holds no secret.
            client_secret=secret.unsafe_unwrap(),
            scopes=["openid", "email"],
            attribute_mapping=cognito.AttributeMapping(email=cognito.ProviderAttribute.other("email")),
        )


def _pool(scope: Construct, config: IdentityConfig, *, url: str) -> cognito.UserPool:
    plus = config.plan == "plus"
    pool = cognito.UserPool(
        scope,
        "Pool",
        feature_plan=PLANS[config.plan],
        standard_threat_protection_mode=(
            cognito.StandardThreatProtectionMode.FULL_FUNCTION if plus else None
        ),
        self_sign_up_enabled=False,
        user_invitation=cognito.UserInvitationConfig(
            email_subject="Your access to MLflow",
            email_body=f"Sign in at {url} as {{username}} with the password {{####}} within three days.",
        ),
        sign_in_aliases=cognito.SignInAliases(username=True, email=True),
        sign_in_case_sensitive=False,
        auto_verify=cognito.AutoVerifiedAttrs(email=True),
        # An address counts only once it is proved: it is also a name to sign in by.
        keep_original=cognito.KeepOriginalAttrs(email=True),
        mfa=MFA[config.mfa],
        mfa_second_factor=cognito.MfaSecondFactor(sms=False, otp=True),
        account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
        password_policy=cognito.PasswordPolicy(
            min_length=14,
            require_lowercase=True,
            require_uppercase=True,
            require_digits=True,
            require_symbols=True,
            password_history_size=12,
            temp_password_validity=cdk.Duration.days(3),
        ),
        deletion_protection=True,
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    if plus:
        _judge_risk(scope, pool)
    if config.mfa == "optional":
        acknowledge(
            pool,
            "AwsSolutions-COG2",
            because="the environment's file leaves the second factor to each person, or to the federated "
            "provider (identity.mfa)",
        )
    if not plus:
        acknowledge(
            pool,
            "AwsSolutions-COG8",
            because="the environment's file chose the plan without threat protection (identity.plan)",
        )
    return pool


def _judge_risk(scope: Construct, pool: cognito.UserPool) -> None:
    """Say what the threat protection does, rather than leave it to a default."""
    risk = cognito.CfnUserPoolRiskConfigurationAttachment

    def act(action: str) -> cognito.CfnUserPoolRiskConfigurationAttachment.AccountTakeoverActionTypeProperty:
        return risk.AccountTakeoverActionTypeProperty(event_action=action, notify=False)

    risk(
        scope,
        "Risk",
        user_pool_id=pool.user_pool_id,
        client_id="ALL",
        compromised_credentials_risk_configuration=risk.CompromisedCredentialsRiskConfigurationTypeProperty(
            actions=risk.CompromisedCredentialsActionsTypeProperty(event_action="BLOCK")
        ),
        account_takeover_risk_configuration=risk.AccountTakeoverRiskConfigurationTypeProperty(
            actions=risk.AccountTakeoverActionsTypeProperty(
                medium_action=act("MFA_IF_CONFIGURED"), high_action=act("BLOCK")
            )
        ),
    )


def _prefix(scope: Construct) -> str:
    """A host name is the region's, not the account's; words such as `aws` are refused in it."""
    stack = cdk.Stack.of(scope)
    return f"mlflow-{stack.account}-{hashlib.sha256(stack.stack_name.encode()).hexdigest()[:8]}"
