"""The server is told whom to believe and who may do what, and nothing that is secret."""

import json
from typing import Any

from stacks.roles import ROLES
from tests.stacks.templates import Assembly


def environment(assembly: Assembly) -> dict[str, Any]:
    task = assembly.service.one("AWS::ECS::TaskDefinition", id_starts="ServerTaskDefinition")
    return {each["Name"]: each["Value"] for each in task["ContainerDefinitions"][0]["Environment"]}


def roles(assembly: Assembly) -> dict[str, Any]:
    """The mapping, with what is known only at deployment in angle brackets."""
    value = environment(assembly)["MLFLOW_AWS_ROLES"]
    parts = [value] if isinstance(value, str) else value["Fn::Join"][1]
    text = "".join(each if isinstance(each, str) else f"<{next(iter(each.values()))}>" for each in parts)
    mapping: dict[str, Any] = json.loads(text)
    return mapping


def test_members_of_the_file_and_the_groups_of_the_pool_are_mapped(replicated: Assembly) -> None:
    mapping = roles(replicated)
    assert list(mapping) == [*(role.name for role in ROLES), "canary"]
    assert mapping["approver"]["groups"] == ["mlflow-approver", "release-board"]
    assert mapping["contributor"]["iam_roles"][0] == "arn:aws:iam::111122223333:role/data-science/*"
    assert mapping["auditor"] == {
        "permissions": ["read", "audit"],
        "iam_roles": [],
        "groups": ["mlflow-auditor"],
    }


def test_ready_made_roles_are_mapped_without_being_named_again(replicated: Assembly) -> None:
    def made(role: str) -> list[str]:
        return [arn.rsplit(":role/", 1)[1] for arn in roles(replicated)[role]["iam_roles"] if "<" in arn]

    assert made("viewer") == ["mlflow-irsa"]
    assert made("contributor") == ["mlflow-train", "mlflow-deploy", "mlflow-pod"]
    assert made("approver") == ["mlflow-release"]
    assert made("admin") == []


def test_a_ready_made_role_is_named_in_full_where_the_account_is_known(given: Assembly) -> None:
    (arn,) = roles(given)["contributor"]["iam_roles"]
    assert arn.endswith(":iam::111122223333:role/mlflow-train")


def test_everybody_of_a_provider_has_the_role_that_the_file_gives_them(replicated: Assembly) -> None:
    assert [each for each in roles(replicated)["viewer"]["groups"] if each.endswith("_Company")]
    groups = [group for mapping in roles(replicated).values() for group in mapping["groups"]]
    assert not [each for each in groups if each.endswith("_Partner")]


def test_the_pool_and_its_application_are_the_deployed_ones(either: Assembly) -> None:
    found = environment(either)
    assert "PeoplePool" in found["MLFLOW_AWS_USER_POOL_ISSUER"]["Fn::ImportValue"]
    assert "ProviderURL" in found["MLFLOW_AWS_USER_POOL_ISSUER"]["Fn::ImportValue"]
    assert found["MLFLOW_AWS_USER_POOL_CLIENT_ID"] == either.service.outputs["UserPoolClientId"]["Value"]
