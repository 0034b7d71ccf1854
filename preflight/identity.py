"""What an account has once, names that must be free, and what the configuration refers to."""

from __future__ import annotations

import re

from findings.reader import AbsentError
from preflight.subject import Answer, Probe, Subject, bad, good

_SERVICE_LINKED = (
    "AWSServiceRoleForECS",
    "AWSServiceRoleForRDS",
    "AWSServiceRoleForElasticLoadBalancing",
    "AWSServiceRoleForApplicationAutoScaling_ECSService",
)
_GITHUB = "token.actions.githubusercontent.com"
_ASSUMED = re.compile(r"arn:[\w-]+:sts::\d{12}:assumed-role/(?P<role>[^/]+)/.+")


def _denied_by_organization(subject: Subject, action: str) -> str:
    """Why a service control policy would refuse the action, or nothing."""
    arn = subject.deployer.arn
    if match := _ASSUMED.fullmatch(arn):
        # The path of a role is not in the ARN of its session.
        arn = subject.ask("iam", "get_role", RoleName=match["role"])["Role"]["Arn"]
    if arn.endswith(":root"):
        return ""
    answer = subject.ask(
        "iam", "simulate_principal_policy", PolicySourceArn=arn, ActionNames=[action], ResourceArns=["*"]
    )
    denied = [
        each
        for each in answer["EvaluationResults"]
        if each.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is False
    ]
    return f"a service control policy of the organization denies {action}" if denied else ""


def _federation(subject: Subject) -> Answer:
    identity = subject.environment.identity
    if identity.token_issuer is not None:
        return good(f"identity.token_issuer = {identity.token_issuer}; nothing is switched")
    try:
        info = subject.ask("iam", "get_outbound_web_identity_federation_info")
        if info.get("JwtVendingEnabled"):
            return good(f"on, with the issuer {info['IssuerIdentifier']}")
    except AbsentError as error:
        if "Disabled" not in error.code and "NotFound" not in error.code:
            raise
    refused = _denied_by_organization(subject, "iam:EnableOutboundWebIdentityFederation")
    if refused:
        return bad(
            f"off, and {refused}",
            "have it enabled by an administrator (aws iam enable-outbound-web-identity-federation), and set "
            "identity.token_issuer",
        )
    return good("off; the foundation switches it on, for the whole account")


def _service_linked_roles(subject: Subject) -> Answer:
    missing = []
    for name in _SERVICE_LINKED:
        try:
            subject.ask("iam", "get_role", RoleName=name)
        except AbsentError:
            missing.append(name)
    if not missing:
        return good("all there")
    told = f"missing: {', '.join(missing)}"
    refused = _denied_by_organization(subject, "iam:CreateServiceLinkedRole")
    if refused:
        return bad(f"{told}; {refused}", "have them made: aws iam create-service-linked-role")
    return good(f"{told}; the foundation makes them")


def _github(subject: Subject) -> Answer | None:
    identity = subject.environment.identity
    if not identity.github:
        return None
    found = subject.ask("iam", "list_open_id_connect_providers")["OpenIDConnectProviderList"]
    arns = [each["Arn"] for each in found]
    if identity.github_provider_arn is not None and identity.github_provider_arn not in arns:
        return bad(
            f"{identity.github_provider_arn} does not exist",
            "remove identity.github_provider_arn, or correct it",
        )
    there = [each for each in arns if each.endswith(f"/{_GITHUB}")]
    return good(f"{there[0]} is used" if there else "there is none; the foundation makes it")


def _domain_prefix(subject: Subject) -> Answer | None:
    prefix = subject.environment.identity.domain_prefix
    if prefix is None:
        return None
    found = subject.ask("cognito-idp", "describe_user_pool_domain", Domain=prefix)["DomainDescription"]
    if not found.get("UserPoolId"):
        return good(f"{prefix} is free")
    owner = found.get("AWSAccountId", "another account")
    if owner == subject.deployer.account and subject.is_deployed:
        return good(f"{prefix} is ours")
    return bad(f"{prefix} belongs to a user pool of {owner}", "choose another identity.domain_prefix")


def _role_names(subject: Subject) -> Answer | None:
    names = [each.name for each in subject.environment.identity.ready_made]
    if not names:
        return None
    foreign = [
        name for name in names if _exists(subject, name) and _stack_of(subject, name) != subject.foundation
    ]
    if foreign:
        return bad(
            f"{', '.join(foreign)} exists already, and is not of {subject.foundation}",
            "give the role another name in [[identity.github]] or [[identity.eks]]",
        )
    return good(", ".join(names))


def _exists(subject: Subject, role: str) -> bool:
    try:
        subject.ask("iam", "get_role", RoleName=role)
    except AbsentError:
        return False
    return True


def _stack_of(subject: Subject, physical_id: str) -> str | None:
    try:
        found = subject.ask("cloudformation", "describe_stack_resources", PhysicalResourceId=physical_id)
    except AbsentError:
        return None
    return next((str(each["StackName"]) for each in found["StackResources"]), None)


def _referred(subject: Subject) -> Answer | None:
    environment = subject.environment
    asked = {
        "database.key_arn": (environment.database.key_arn, "kms", "describe_key", "KeyId"),
        "log_key_arn": (environment.log_key_arn, "kms", "describe_key", "KeyId"),
        "server.registry_secret_arn": (
            environment.server.registry_secret_arn,
            "secretsmanager",
            "describe_secret",
            "SecretId",
        ),
        "identity.oidc.client_secret_name": (
            environment.identity.oidc and environment.identity.oidc.client_secret_name,
            "secretsmanager",
            "describe_secret",
            "SecretId",
        ),
        "permissions_boundary": (_policy(subject), "iam", "get_policy", "PolicyArn"),
    }
    given = {key: value for key, value in asked.items() if value[0]}
    if not given:
        return None
    wrong = []
    for key, (value, service, operation, parameter) in given.items():
        try:
            answer = subject.ask(service, operation, **{parameter: value})
        except AbsentError as error:
            wrong.append(f"{key} = {value}: {error.code}")
        else:
            state = answer.get("KeyMetadata", {}).get("KeyState", "Enabled")
            if state != "Enabled":
                wrong.append(f"{key} = {value}: the key is {state}")
    return (
        bad("; ".join(wrong), "correct the setting, or make what it names")
        if wrong
        else good(", ".join(given))
    )


def _policy(subject: Subject) -> str | None:
    boundary = subject.environment.permissions_boundary
    if boundary is None or boundary.startswith("arn:"):
        return boundary
    partition = subject.deployer.arn.split(":")[1]
    return f"arn:{partition}:iam::{subject.deployer.account}:policy/{boundary}"


PROBES = (
    Probe("outbound identity federation is on, or may be switched on", _federation),
    Probe("the service-linked roles exist, or may be made", _service_linked_roles),
    Probe("the OIDC provider of GitHub", _github),
    Probe("the sign-in page's host name is free", _domain_prefix),
    Probe("the names of ready-made roles are free", _role_names),
    Probe("what the configuration refers to exists", _referred),
)
