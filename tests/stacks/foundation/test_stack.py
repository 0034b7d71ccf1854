"""The stack of what you would miss does not go away by accident."""

from tests.stacks.templates import Assembly, Template, as_list

# The only hashed ids in this suite. Changing one of them replaces the resource, and with it what it holds.
STATEFUL = {
    "DatabaseInstanceAA8A5FDE",
    "DatabaseKey5E5D9547",
    "ArtifactsBucket88671897",
    "ArtifactsKeyA4B22E2B",
    "AccessLogsBucketCD784A59",
    "LogKeyE83D0C1B",
    "NetworkVpc7FB7348F",
    "PeoplePoolC64A4D1E",
}
# Where there are backups, as in prod; and what a second region holds.
STATEFUL_OF_BACKUPS = {"BackupBackupsKey9915D010", "BackupBackupsVaultFC4CADB2"}
STATEFUL_OF_RECOVERY = {
    "BackupsKeyC696F888",
    "BackupsVault1F11AFCC",
    "ReplicaKey29E01B67",
    "ReplicaBucket80C984FB",
}
KEPT = {
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::KMS::Key",
    "AWS::EC2::VPC",
    "AWS::Cognito::UserPool",
} | {"AWS::Backup::BackupVault"}
DATABASES = {"AWS::RDS::DBInstance", "AWS::RDS::DBCluster"}


def stateful(template: Template) -> set[str]:
    return {each for each, resource in template.resources.items() if resource["Type"] in KEPT}


def test_logical_ids_of_stateful_resources_never_change(
    dev: Assembly, prod: Assembly, replicated: Assembly
) -> None:
    assert stateful(dev.foundation) == STATEFUL
    assert stateful(prod.foundation) == STATEFUL | STATEFUL_OF_BACKUPS
    assert replicated.recovery
    assert stateful(replicated.recovery) == STATEFUL_OF_RECOVERY


def test_what_holds_data_survives_the_stack(prod: Assembly, replicated: Assembly) -> None:
    assert replicated.recovery
    resources = {**prod.foundation.resources, **replicated.recovery.resources}
    for logical_id in (STATEFUL | STATEFUL_OF_BACKUPS | STATEFUL_OF_RECOVERY) - {"NetworkVpc7FB7348F"}:
        # A first deployment that fails leaves nothing that would be in the way of the second.
        assert resources[logical_id]["DeletionPolicy"] in {"RetainExceptOnCreate", "Snapshot"}, logical_id
        assert resources[logical_id]["UpdateReplacePolicy"] in {"Retain", "Snapshot"}, logical_id


def test_nothing_survives_a_first_deployment_that_fails_but_a_snapshot(
    either: Assembly, replicated: Assembly
) -> None:
    for assembly in (either, replicated):
        policies = {each.get("DeletionPolicy", "Delete") for each in assembly.foundation.resources.values()}
        assert policies == {"Delete", "RetainExceptOnCreate", "Snapshot"}


def test_everything_else_is_there_before_a_database_is_created_so_that_nothing_fails_after_it(
    either: Assembly, given: Assembly, replicated: Assembly
) -> None:
    for assembly in (either, given, replicated):
        resources = assembly.foundation.resources
        databases = {each for each in resources if resources[each]["Type"] in DATABASES}
        before = {each for database in databases for each in assembly.foundation.needs(database)}
        assert databases
        # These policies name the database, and a policy does not fail; nor has it begun without its backups.
        after = {
            each
            for each in resources
            if each.startswith(("BreakGlassPolicy", "ServerRoleDefaultPolicy", "Backup"))
        }
        assert set(resources) - before - databases == after


def test_the_foundation_is_protected_from_termination_and_the_service_is_not(either: Assembly) -> None:
    protected = {
        name.rsplit("-", 1)[-1]: artifact["properties"].get("terminationProtection", False)
        for name, artifact in either.manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert protected == {"Foundation": True, "Service": False}


def test_the_foundation_needs_nothing_of_the_service(either: Assembly) -> None:
    assert "Fn::ImportValue" not in either.foundation.text
    assert "Fn::ImportValue" in either.service.text


def test_stacks_are_named_after_their_environment(dev: Assembly, prod: Assembly) -> None:
    def names(assembly: Assembly) -> set[str]:
        artifacts = assembly.manifest["artifacts"].items()
        return {name for name, artifact in artifacts if artifact["type"] == "aws:cloudformation:stack"}

    assert names(dev) == {"MlflowOnAws-dev-Foundation", "MlflowOnAws-dev-Service"}
    assert names(prod) == {"MlflowOnAws-prod-Foundation", "MlflowOnAws-prod-Service"}


def test_account_and_region_are_those_of_the_file_or_of_the_credentials(
    given: Assembly, dev: Assembly
) -> None:
    def places(assembly: Assembly) -> set[str]:
        artifacts = assembly.manifest["artifacts"].values()
        return {each["environment"] for each in artifacts if each["type"] == "aws:cloudformation:stack"}

    assert places(given) == {"aws://111122223333/eu-central-1"}
    assert places(dev) == {"aws://unknown-account/unknown-region"}


def test_tags_of_the_file_are_on_the_stacks(replicated: Assembly) -> None:
    for artifact in replicated.manifest["artifacts"].values():
        if artifact["type"] == "aws:cloudformation:stack":
            assert artifact["properties"]["tags"] == {
                "cost-centre": "research",
                "mlflow-on-aws": "MlflowOnAws-prod",
            }


def test_every_log_group_is_encrypted_and_ends(either: Assembly) -> None:
    for template in (either.foundation, either.service):
        for group in template.all("AWS::Logs::LogGroup"):
            assert "KmsKeyId" in group
            assert group["RetentionInDays"] > 0


def test_the_log_key_serves_log_groups_and_topics_of_this_account_only(either: Assembly) -> None:
    key = either.foundation.one("AWS::KMS::Key", id_starts="LogKey")
    logs, topics = (each for each in key["KeyPolicy"]["Statement"] if "Service" in each["Principal"])
    arn = logs["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]["Fn::Join"][1]
    assert {"Ref": "AWS::AccountId"} in arn
    assert arn[-1] == ":log-group:*"
    assert set(as_list(topics["Principal"]["Service"])) == {
        "cloudwatch.amazonaws.com",
        "events.amazonaws.com",
    }
    arn = topics["Condition"]["ArnLike"]["kms:EncryptionContext:aws:sns:topicArn"]["Fn::Join"][1]
    assert {"Ref": "AWS::AccountId"} in arn
    assert topics["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
