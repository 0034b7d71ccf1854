"""An Aurora cluster: as closed, encrypted and backed up as an instance, with readers."""

from collections.abc import Callable

import pytest

from tests.stacks.conftest import AURORA
from tests.stacks.templates import Assembly, Properties, as_list

CLUSTER = "DatabaseCluster"


@pytest.fixture(scope="module")
def serverless(build: Callable[..., Assembly]) -> Assembly:
    return build(
        "prod",
        {
            "database": {
                **AURORA,
                "instance_class": "serverless",
                "min_acu": 0.5,
                "max_acu": 4,
                "readers": 0,
                "storage_type": None,
                "engine_version": "17",
                "deletion_protection": False,
                "insights": "off",
                "monitoring_seconds": 0,
            }
        },
    )


def cluster(assembly: Assembly) -> Properties:
    return assembly.foundation.one("AWS::RDS::DBCluster")


def instances(assembly: Assembly) -> list[Properties]:
    return assembly.foundation.all("AWS::RDS::DBInstance")


def test_a_cluster_takes_the_place_of_the_instance_under_an_id_of_its_own(replicated: Assembly) -> None:
    resources = replicated.foundation.resources
    # Pinned: another id would be another, empty database.
    assert resources["DatabaseCluster5B53A178"]["Type"] == "AWS::RDS::DBCluster"
    assert all(
        each["DBClusterIdentifier"]["Ref"] == "DatabaseCluster5B53A178" for each in instances(replicated)
    )


def test_the_file_decides_the_number_of_readers(replicated: Assembly, serverless: Assembly) -> None:
    assert [each["PromotionTier"] for each in instances(replicated)] == [0, 2, 2]
    assert [each["PromotionTier"] for each in instances(serverless)] == [0]


def test_a_cluster_is_encrypted_with_the_key_of_the_database(replicated: Assembly) -> None:
    assert cluster(replicated)["StorageEncrypted"] is True
    assert cluster(replicated)["KmsKeyId"]["Fn::GetAtt"][0].startswith("DatabaseKey")


def test_no_instance_of_a_cluster_is_public(replicated: Assembly) -> None:
    assert {each["PubliclyAccessible"] for each in instances(replicated)} == {False}
    for subnet in replicated.foundation.one("AWS::RDS::DBSubnetGroup")["SubnetIds"]:
        assert "IsolatedSubnet" in subnet["Ref"]


def test_users_of_a_cluster_sign_in_with_iam_over_tls(replicated: Assembly) -> None:
    assert cluster(replicated)["EnableIAMDatabaseAuthentication"] is True
    group = replicated.foundation.one("AWS::RDS::DBClusterParameterGroup")
    assert group["Family"] == "aurora-postgresql18"
    assert group["Parameters"]["rds.force_ssl"] == "1"
    assert cluster(replicated)["DBClusterParameterGroupName"]["Ref"].startswith("DatabaseClusterParameters")


def test_the_administrator_s_password_is_kept_by_rds(replicated: Assembly) -> None:
    found = cluster(replicated)
    assert found["ManageMasterUserPassword"] is True
    assert found["MasterUserSecret"]["KmsKeyId"]["Fn::GetAtt"][0].startswith("DatabaseKey")
    assert found["MasterUsername"] == "mlflow_administrator"
    assert "MasterUserPassword" not in found
    assert "AWS::SecretsManager::SecretTargetAttachment" not in replicated.foundation.types()


def test_every_instance_of_a_cluster_accepts_the_connections_that_the_configuration_reckons_with(
    replicated: Assembly,
) -> None:
    group = replicated.foundation.one("AWS::RDS::DBClusterParameterGroup")
    assert group["Parameters"]["max_connections"] == "800"
    # A group of the instances would win over it, and RDS would refuse the next major version.
    assert not [each for each in instances(replicated) if "DBParameterGroupName" in each]


def test_a_cluster_is_backed_up_protected_and_leaves_a_snapshot(replicated: Assembly) -> None:
    found = cluster(replicated)
    assert found["BackupRetentionPeriod"] == 35
    assert found["DeleteAutomatedBackups"] is False
    assert found["DeletionProtection"] is True
    assert found["CopyTagsToSnapshot"] is True
    resource = replicated.foundation.resources["DatabaseCluster5B53A178"]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Snapshot", "Retain")


def test_a_cluster_s_log_is_exported_to_an_encrypted_group_that_ends(replicated: Assembly) -> None:
    found = cluster(replicated)
    group = replicated.foundation.one("AWS::Logs::LogGroup", id_starts=CLUSTER)
    assert found["EnableCloudwatchLogsExports"] == ["postgresql"]
    assert group["LogGroupName"] == f"/aws/rds/cluster/{found['DBClusterIdentifier']}/postgresql"
    assert group["KmsKeyId"]["Fn::GetAtt"][0].startswith("LogKey")
    assert group["RetentionInDays"] == 365
    depends = replicated.foundation.resources["DatabaseCluster5B53A178"]["DependsOn"]
    assert any(each.startswith("DatabaseClusterPostgresqlLog") for each in depends)


def test_io_optimized_storage_is_a_value(replicated: Assembly, serverless: Assembly) -> None:
    assert cluster(replicated)["StorageType"] == "aurora-iopt1"
    assert cluster(serverless)["StorageType"] == "aurora"


def test_a_serverless_cluster_scales_between_the_capacities_of_the_file(
    replicated: Assembly, serverless: Assembly
) -> None:
    assert cluster(serverless)["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 4}
    assert {each["DBInstanceClass"] for each in instances(serverless)} == {"db.serverless"}
    assert "ServerlessV2ScalingConfiguration" not in cluster(replicated)
    assert {each["DBInstanceClass"] for each in instances(replicated)} == {"db.r7g.large"}


def test_insights_are_watched_for_the_whole_cluster(replicated: Assembly, serverless: Assembly) -> None:
    assert cluster(replicated)["DatabaseInsightsMode"] == "advanced"
    assert cluster(replicated)["PerformanceInsightsRetentionPeriod"] == 465
    assert cluster(replicated)["MonitoringInterval"] == 60
    assert "DatabaseInsightsMode" not in cluster(serverless)


def test_minor_versions_of_a_cluster_are_left_to_rds(replicated: Assembly, serverless: Assembly) -> None:
    assert (cluster(replicated)["EngineVersion"], cluster(serverless)["EngineVersion"]) == ("18", "17")
    assert {each["AutoMinorVersionUpgrade"] for each in instances(replicated)} == {True}


def test_the_tasks_may_sign_in_to_every_instance_of_the_cluster_as_their_users_only(
    replicated: Assembly,
) -> None:
    users = {
        "ServerRole": (replicated.foundation, ["mlflow_server"]),
        "MigrationTaskRole": (replicated.service, ["mlflow_administrator", "mlflow_migrator"]),
    }
    for role, (template, expected) in users.items():
        resources = [
            resource["Fn::Join"][1]
            for each in template.statements(id_starts=role)
            if each["Action"] == "rds-db:connect"
            for resource in as_list(each["Resource"])
        ]
        assert sorted(parts[-1] for parts in resources) == [f"/{user}" for user in expected]
        assert all("DBClusterResourceId" in str(parts[-2]) for parts in resources)


def test_only_the_server_of_a_cluster_with_readers_knows_the_reader_endpoint(
    either: Assembly, replicated: Assembly, serverless: Assembly
) -> None:
    def variables(assembly: Assembly, task: str) -> dict[str, object]:
        definition = assembly.service.one("AWS::ECS::TaskDefinition", id_starts=task)
        return {each["Name"]: each["Value"] for each in definition["ContainerDefinitions"][0]["Environment"]}

    name = "MLFLOW_AWS_DATABASE_READER_HOST"
    assert "ReadEndpoint" in str(variables(replicated, "ServerTask")[name])
    assert name not in variables(replicated, "MigrationTask")
    for assembly in (either, serverless):
        assert name not in variables(assembly, "ServerTask")


def test_every_finding_about_a_serverless_cluster_is_acknowledged(serverless: Assembly) -> None:
    assert serverless.findings == ()
    assert [each for each in serverless.warnings if "aws-cdk" in each] == []
