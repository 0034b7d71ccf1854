"""The administrator's way into the database, which nobody has until it is needed."""

from tests.stacks.templates import Assembly


def test_the_policy_signs_in_to_this_database_as_the_administrator_and_does_nothing_else(
    either: Assembly,
) -> None:
    policy = either.foundation.one("AWS::IAM::ManagedPolicy", id_starts="BreakGlass")
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == "rds-db:connect"
    resource = str(statement["Resource"])
    assert "/mlflow_administrator" in resource
    assert "ResourceId" in resource
    assert "*" not in resource


def test_the_policy_is_attached_to_nobody(either: Assembly) -> None:
    policy = either.foundation.one("AWS::IAM::ManagedPolicy", id_starts="BreakGlass")
    assert not {"Roles", "Users", "Groups"} & set(policy)
    assert either.service.outputs["BreakGlassPolicy"]
