"""The key of webhooks' secrets outlives the stack, and only the server reads it."""

from tests.stacks.templates import Assembly


def test_only_the_server_reads_the_key_and_its_task_definition_names_it_only(either: Assembly) -> None:
    (logical_id,) = [
        each
        for each, resource in either.foundation.resources.items()
        if resource["Type"] == "AWS::SecretsManager::Secret"
    ]
    secret = either.foundation.resources[logical_id]
    assert secret["DeletionPolicy"] == "RetainExceptOnCreate"
    assert secret["UpdateReplacePolicy"] == "Retain"
    assert set(secret["Properties"]) == {"Description", "GenerateSecretString", "KmsKeyId"}
    readers = {
        who
        for template in either.templates
        for who, action, target in template.allowed()
        if action == "secretsmanager:GetSecretValue" and target == {"Ref": logical_id}
    }
    assert len(readers) == 1
    assert readers.pop().startswith("ServerRoleDefaultPolicy")
    named = [
        logical_id
        for logical_id, resource in either.service.resources.items()
        if "MLFLOW_AWS_WEBHOOK_KEY_ARN" in str(resource)
    ]
    assert len(named) == 1
    assert named[0].startswith("ServerTask")
