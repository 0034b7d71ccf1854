"""Each role's policy holds exactly what the role needs. Whether IAM enforces it is asked in tests/iam."""

from typing import Any

import pytest
from pydantic import ValidationError

from stacks.identity_config import GithubConfig
from stacks.roles import BY_NAME as ROLES
from tests.stacks.conftest import CLUSTER_ISSUER, GITHUB_PROVIDER, GITHUB_ROLES
from tests.stacks.templates import Assembly, Properties, as_list

POLICY = "AWS::IAM::ManagedPolicy"
OBJECTS = {
    "auditor": {"s3:GetObject", "s3:GetObjectVersion"},
    "viewer": {"s3:GetObject"},
    "contributor": {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"},
    "approver": {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"},
    "admin": {
        "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObjectVersion",
    },
}  # fmt: skip


def statements(assembly: Assembly, role: str) -> dict[str, Properties]:
    policy = assembly.foundation.one(POLICY, id_starts=f"Clients{role.capitalize()}Policy")
    return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"]}


def actions(statement: Properties) -> set[str]:
    return set(as_list(statement["Action"]))


def role_named(assembly: Assembly, name: str) -> Properties:
    (found,) = (each for each in assembly.foundation.all("AWS::IAM::Role") if each.get("RoleName") == name)
    return found


def trust(assembly: Assembly, name: str) -> Properties:
    (statement,) = role_named(assembly, name)["AssumeRolePolicyDocument"]["Statement"]
    found: Properties = statement
    return found


WRITES = {"s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"}


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_has_four_statements_an_auditor_s_two_more_and_a_writer_s_one_that_denies(
    either: Assembly, role: str
) -> None:
    found = statements(either, role)
    more = {"SealedIsReadOnly"} if OBJECTS[role] & WRITES else set()
    if role == "auditor":
        more = {"AuditLog", "QueryResults"}
    assert set(found) == {"List", "Artifacts", "KeyThroughS3Only", "TokensForMlflowOnly"} | more
    assert {sid for sid, each in found.items() if each["Effect"] != "Allow"} == more & {"SealedIsReadOnly"}


@pytest.mark.parametrize("role", [role for role in ROLES if OBJECTS[role] & WRITES])
def test_what_is_sealed_can_only_be_read(replicated: Assembly, either: Assembly, role: str) -> None:
    for assembly, place in ((replicated, "/team/models/sealed/*"), (either, "/sealed/*")):
        statement = statements(assembly, role)["SealedIsReadOnly"]
        assert actions(statement) == OBJECTS[role] & WRITES
        assert statement["Resource"]["Fn::Join"][1][-1] == place
        assert "Condition" not in statement


@pytest.mark.parametrize("role", ROLES)
def test_objects_are_reached_by_exact_actions_below_the_prefix(replicated: Assembly, role: str) -> None:
    statement = statements(replicated, role)["Artifacts"]
    assert actions(statement) == OBJECTS[role]
    assert statement["Resource"]["Fn::Join"][1][-1] == "/team/models/*"


@pytest.mark.parametrize("role", ROLES)
def test_a_listing_is_of_the_prefix_only(replicated: Assembly, either: Assembly, role: str) -> None:
    assert statements(replicated, role)["List"]["Condition"] == {"StringLike": {"s3:prefix": "team/models/*"}}
    assert "Condition" not in statements(either, role)["List"]


@pytest.mark.parametrize("role", ROLES)
def test_nobody_deletes_a_version(either: Assembly, role: str) -> None:
    assert "s3:DeleteObjectVersion" not in {
        action for each in statements(either, role).values() for action in actions(each)
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_key_opens_through_s3_of_this_region_only(either: Assembly, role: str) -> None:
    statement = statements(either, role)["KeyThroughS3Only"]
    wanted = {"kms:Decrypt", "kms:GenerateDataKey"} if "s3:PutObject" in OBJECTS[role] else {"kms:Decrypt"}
    assert actions(statement) == wanted
    assert statement["Resource"] == {"Fn::GetAtt": ["ArtifactsKeyA4B22E2B", "Arn"]}
    s3 = ["s3.", {"Ref": "AWS::Region"}, ".", {"Ref": "AWS::URLSuffix"}]
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": {"Fn::Join": ["", s3]}}}


@pytest.mark.parametrize("role", ROLES)
def test_tokens_are_for_this_deployment_by_the_algorithm_it_takes(dev: Assembly, role: str) -> None:
    statement = statements(dev, role)["TokensForMlflowOnly"]
    assert actions(statement) == {"sts:GetWebIdentityToken"}
    assert statement["Condition"] == {
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": "https://mlflow.dev.example.com"},
        "Null": {"sts:IdentityTokenAudience": "false"},
        "StringEquals": {"sts:SigningAlgorithm": "RS256"},
    }


def test_no_policy_has_a_name_or_a_text_whose_change_would_replace_it(either: Assembly) -> None:
    for policy in either.foundation.all(POLICY):
        assert "ManagedPolicyName" not in policy
        assert policy.get("Description", "") == ""


def test_the_policies_are_attached_to_nobody_unless_the_file_says_so(either: Assembly) -> None:
    for policy in either.foundation.all(POLICY):
        assert not {"Roles", "Users", "Groups"} & set(policy)
    assert not [each for each in either.foundation.all("AWS::IAM::Role") if "RoleName" in each]


def test_a_branch_s_workflows_and_nobody_else_s_assume_their_role(given: Assembly) -> None:
    statement = trust(given, "mlflow-train")
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"] == {"Federated": GITHUB_PROVIDER}
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:example/models:ref:refs/heads/main",
        }
    }


def test_an_environment_s_jobs_assume_their_role_by_immutable_ids(replicated: Assembly) -> None:
    subject = trust(replicated, "mlflow-release")["Condition"]["StringEquals"][
        "token.actions.githubusercontent.com:sub"
    ]
    assert subject == "repo:example@17/models@42:environment:production"


def test_a_role_that_deploys_becomes_those_of_the_cdk_in_both_regions_and_no_other(
    replicated: Assembly,
) -> None:
    (statement,) = replicated.foundation.statements(id_starts="ClientsRolemlflowdeploy")
    assert statement["Action"] == "sts:AssumeRole"
    named = [str(each) for each in statement["Resource"]]
    for region in ("eu-central-1", "eu-west-1"):
        for work in ("deploy", "file-publishing", "lookup"):
            (found,) = [
                each for each in named if f":role/cdk-hnb659fds-{work}-role-" in each and region in each
            ]
            assert "*" not in found
            named.remove(found)
    assert named == []
    role = replicated.foundation.one("AWS::IAM::Role", id_starts="ClientsRolemlflowdeploy")
    assert role["MaxSessionDuration"] == 2 * 60 * 60
    assert len(role["ManagedPolicyArns"]) == 2
    others = replicated.foundation.all("AWS::IAM::Policy", id_starts="ClientsRolemlflow")
    assert len(others) == 1


def test_a_branch_s_workflows_may_not_deploy() -> None:
    with pytest.raises(ValidationError, match="whoever may push to a branch"):
        GithubConfig.model_validate(GITHUB_ROLES[0] | {"deploys": True})


def test_github_s_provider_is_adopted_or_made_unless_the_file_names_it(
    replicated: Assembly, given: Assembly, either: Assembly
) -> None:
    assert "FederationGithub" in str(trust(replicated, "mlflow-train")["Principal"])
    for assembly in (replicated, given, either):
        assert assembly.foundation.all("AWS::IAM::OIDCProvider") == []
    for assembly in (given, either):
        assert assembly.foundation.all("Custom::OidcProvider") == []


def test_a_service_account_assumes_its_role_by_irsa(replicated: Assembly) -> None:
    statement = trust(replicated, "mlflow-irsa")
    issuer = CLUSTER_ISSUER
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::111122223333:oidc-provider/{issuer}"}
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": "system:serviceaccount:ml:report",
        }
    }


def test_a_service_account_assumes_its_role_by_pod_identity(replicated: Assembly) -> None:
    statements = role_named(replicated, "mlflow-pod")["AssumeRolePolicyDocument"]["Statement"]
    assert sorted(action for each in statements for action in as_list(each["Action"])) == [
        "sts:AssumeRole",
        "sts:TagSession",
    ]
    for statement in statements:
        assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert statement["Condition"] == {
            "StringEquals": {
                "aws:RequestTag/eks-cluster-arn": "arn:aws:eks:eu-central-1:111122223333:cluster/ml",
                "aws:RequestTag/kubernetes-namespace": "ml",
                "aws:RequestTag/kubernetes-service-account": "train",
            }
        }


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("mlflow-train", "contributor"),
        ("mlflow-release", "approver"),
        ("mlflow-irsa", "viewer"),
        ("mlflow-pod", "contributor"),
    ],
)
def test_a_ready_made_role_has_its_role_s_policy_and_no_other(
    replicated: Assembly, name: str, role: str
) -> None:
    made: dict[str, Any] = dict(role_named(replicated, name))
    (attached,) = made["ManagedPolicyArns"]
    assert attached["Ref"].startswith(f"Clients{role.capitalize()}Policy")
    assert "Policies" not in made
