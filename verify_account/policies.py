"""Checks of who may do what: every grant that lives stands in a stack, and none was added by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from verify_account.account import Account, Check, listed
from verify_account.database import database
from verify_account.templates import Resource, agrees, text

Statement = Mapping[str, Any]
_AGAIN = "remove what was added by hand, or put it into the stacks and deploy"
_SETS = ("Action", "NotAction", "Resource", "NotResource")


def _statements(document: Any) -> list[Statement]:
    return listed((json.loads(document) if isinstance(document, str) else document)["Statement"])


def _normal(statement: Statement) -> dict[str, Any]:
    """The same statement in one spelling: flat, lists everywhere, and actions without case."""
    normal: dict[str, Any] = {"Effect": statement["Effect"]}
    for key in _SETS:
        if key in statement:
            values = [str(each) for each in listed(statement[key])]
            normal[key] = [each.lower() for each in values] if key.endswith("Action") else values
    for key in ("Principal", "NotPrincipal"):
        if key in statement:
            who = {"AWS": "*"} if statement[key] == "*" else statement[key]
            for kind, names in who.items():
                normal[f"{key} {kind}"] = [_principal(each) for each in listed(names)]
    for operator, condition in statement.get("Condition", {}).items():
        for name, values in condition.items():
            normal[f"Condition {operator} {name}".lower()] = [text(each) for each in listed(values)]
    return normal


def _principal(name: str) -> str:
    # Either way of writing an account.
    match = re.fullmatch(r"arn:[\w-]+:iam::(\d{12}):root", name)
    return match[1] if match else name


def _same(one: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    return set(one) == set(live) and agrees(one, live)


def differences(wanted: Iterable[Statement], live: Iterable[Statement]) -> list[str]:
    """What lives and is not wanted, if it allows; what is wanted and does not live, if it denies."""
    normal_wanted, normal_live = [_normal(each) for each in wanted], [_normal(each) for each in live]
    added = [
        each
        for each in normal_live
        if each["Effect"] == "Allow" and not any(_same(one, each) for one in normal_wanted)
    ]
    gone = [
        each
        for each in normal_wanted
        if each["Effect"] == "Deny" and not any(_same(each, one) for one in normal_live)
    ]
    return [f"added: {json.dumps(each)}" for each in added] + [f"gone: {json.dumps(each)}" for each in gone]


def _nothing(found: Iterable[object]) -> tuple[bool, object]:
    told = list(found)
    return not told, told or "as the stacks say"


def role_statements(account: Account, role: str) -> list[Statement]:
    """What a role may do by policies of its own."""
    names = account.ask("iam", "list_role_policies", RoleName=role)["PolicyNames"]
    return [
        each
        for name in names
        for each in _statements(
            account.ask("iam", "get_role_policy", RoleName=role, PolicyName=name)["PolicyDocument"]
        )
    ]


def _wanted_of_role(account: Account, role: Resource) -> list[Statement]:
    documents = [each["PolicyDocument"] for each in role.properties.get("Policies", [])]
    documents += [
        each.properties["PolicyDocument"]
        for each in account.of_type("AWS::IAM::Policy")
        if role.physical_id in each.properties.get("Roles", [])
    ]
    return [each for document in documents for each in _statements(document)]


def _roles(account: Account) -> tuple[bool, object]:
    found = []
    for role in account.of_type("AWS::IAM::Role"):
        changed = differences(_wanted_of_role(account, role), role_statements(account, role.physical_id))
        attached = account.ask("iam", "list_attached_role_policies", RoleName=role.physical_id)
        wanted = [*role.properties.get("ManagedPolicyArns", [])] + [
            each.physical_id
            for each in account.of_type("AWS::IAM::ManagedPolicy")
            if role.physical_id in each.properties.get("Roles", [])
        ]
        changed += [
            f"attached: {each['PolicyArn']}"
            for each in attached["AttachedPolicies"]
            if not any(agrees(one, each["PolicyArn"]) for one in wanted)
        ]
        found += [f"{role.physical_id} {each}" for each in changed]
    return _nothing(found)


def _trust(account: Account) -> tuple[bool, object]:
    found = []
    for role in account.of_type("AWS::IAM::Role"):
        live = account.ask("iam", "get_role", RoleName=role.physical_id)["Role"]
        wanted = _statements(role.properties["AssumeRolePolicyDocument"])
        found += [
            f"{role.physical_id} {each}"
            for each in differences(wanted, _statements(live["AssumeRolePolicyDocument"]))
        ]
        boundary = role.properties.get("PermissionsBoundary")
        kept = live.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        if boundary is not None and not agrees(boundary, kept):
            found.append(f"{role.physical_id} has the permissions boundary {kept}")
    return _nothing(found)


def managed_statements(account: Account, arn: str) -> list[Statement]:
    """The statements of a managed policy as it is in force."""
    version = account.ask("iam", "get_policy", PolicyArn=arn)["Policy"]["DefaultVersionId"]
    answer = account.ask("iam", "get_policy_version", PolicyArn=arn, VersionId=version)
    return _statements(answer["PolicyVersion"]["Document"])


def _managed(account: Account) -> tuple[bool, object]:
    return _nothing(
        f"{policy.physical_id} {each}"
        for policy in account.of_type("AWS::IAM::ManagedPolicy")
        for each in differences(
            _statements(policy.properties["PolicyDocument"]), managed_statements(account, policy.physical_id)
        )
    )


def _keys(account: Account) -> tuple[bool, object]:
    found = []
    for key in account.of_type("AWS::KMS::Key"):
        answer = account.ask("kms", "get_key_policy", KeyId=key.physical_id, PolicyName="default")
        wanted = _statements(key.properties["KeyPolicy"])
        found += [
            f"key {key.physical_id} {each}" for each in differences(wanted, _statements(answer["Policy"]))
        ]
    return _nothing(found)


def _rotation(account: Account) -> tuple[bool, object]:
    found = []
    for key in account.of_type("AWS::KMS::Key"):
        state = account.ask("kms", "describe_key", KeyId=key.physical_id)["KeyMetadata"]["KeyState"]
        turns = account.ask("kms", "get_key_rotation_status", KeyId=key.physical_id)["KeyRotationEnabled"]
        if state != "Enabled" or not turns:
            found.append(f"key {key.physical_id} is {state}, rotation {'on' if turns else 'off'}")
    return _nothing(found)


def bucket_statements(account: Account, bucket: str) -> list[Statement]:
    """The statements of a bucket's policy."""
    return _statements(account.ask("s3", "get_bucket_policy", Bucket=bucket)["Policy"])


def _buckets(account: Account) -> tuple[bool, object]:
    found = []
    for policy in account.of_type("AWS::S3::BucketPolicy"):
        bucket = policy.properties["Bucket"]
        wanted = _statements(policy.properties["PolicyDocument"])
        found += [f"{bucket} {each}" for each in differences(wanted, bucket_statements(account, bucket))]
    return _nothing(found)


def _secret(account: Account) -> tuple[bool, object]:
    arn = (database(account).get("MasterUserSecret") or {}).get("SecretArn", "")
    policy = account.ask("secretsmanager", "get_resource_policy", SecretId=arn).get("ResourcePolicy")
    # A service that manages the secret may have a statement of its own.
    open_to = [
        each
        for each in _statements(policy or '{"Statement": []}')
        if each["Effect"] == "Allow" and set(each.get("Principal", "*")) != {"Service"}
    ]
    return not open_to, open_to or "nobody beside the account's own policies"


CHECKS = (
    Check("the stacks' roles may do what the stacks say, and nothing more", _roles, _AGAIN),
    Check("the stacks' roles are taken by whom the stacks say, and nobody else", _trust, _AGAIN),
    Check("the policies of clients give what the stacks say, and nothing more", _managed, _AGAIN),
    Check("the keys may be used by whom the stacks say, and nobody else", _keys, _AGAIN),
    Check("the keys are enabled, and rotate", _rotation, "enable the key and its rotation in KMS"),
    Check("the buckets' policies say what the stacks say, and nothing more", _buckets, _AGAIN),
    Check(
        "no policy opens the administrator's secret",
        _secret,
        "aws secretsmanager delete-resource-policy",
    ),
)
