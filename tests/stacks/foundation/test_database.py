"""The database: closed, encrypted, backed up, and without a password in any template."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.stacks.templates import Assembly, Properties

INSTANCE = "DatabaseInstance"


def instance(assembly: Assembly) -> Properties:
    return assembly.foundation.one("AWS::RDS::DBInstance", id_starts=INSTANCE)


def test_database_refuses_public_access(either: Assembly) -> None:
    assert instance(either)["PubliclyAccessible"] is False


def test_database_lives_in_isolated_subnets(either: Assembly) -> None:
    for subnet in either.foundation.one("AWS::RDS::DBSubnetGroup")["SubnetIds"]:
        assert "IsolatedSubnet" in subnet["Ref"]


def test_database_is_encrypted_with_a_key_of_its_own(either: Assembly) -> None:
    assert instance(either)["StorageEncrypted"] is True
    assert instance(either)["KmsKeyId"]["Fn::GetAtt"][0].startswith("DatabaseKey")


def test_every_key_rotates(either: Assembly) -> None:
    keys = either.foundation.all("AWS::KMS::Key")
    assert len(keys) == 3 + len(either.foundation.all("AWS::Backup::BackupVault"))
    assert all(key["EnableKeyRotation"] for key in keys)


def test_database_accepts_only_tls(either: Assembly) -> None:
    parameters = either.foundation.one("AWS::RDS::DBParameterGroup")
    assert parameters["Parameters"]["rds.force_ssl"] == "1"
    assert parameters["Family"] == "postgres18"
    assert instance(either)["DBParameterGroupName"]["Ref"].startswith("DatabaseParameters")


def test_users_sign_in_with_iam(either: Assembly) -> None:
    assert instance(either)["EnableIAMDatabaseAuthentication"] is True


def test_rds_makes_and_keeps_the_administrators_password(either: Assembly) -> None:
    database = instance(either)
    assert database["ManageMasterUserPassword"] is True
    assert database["MasterUserSecret"]["KmsKeyId"]["Fn::GetAtt"][0].startswith("DatabaseKey")
    assert "MasterUserPassword" not in database


def test_no_template_makes_a_password_or_reads_a_secret(either: Assembly) -> None:
    for template in (either.foundation, either.service):
        assert "AWS::SecretsManager::SecretTargetAttachment" not in template.types()
        assert "{{resolve:secretsmanager" not in template.text


def test_port_and_administrator_are_not_the_defaults(either: Assembly) -> None:
    assert instance(either)["Port"] == "5433"
    assert instance(either)["MasterUsername"] == "mlflow_administrator"


@pytest.mark.parametrize(("environment", "days"), [("dev", 7), ("prod", 35)])
def test_database_is_backed_up_for_a_week_or_more(
    environment: str, days: int, request: pytest.FixtureRequest
) -> None:
    assembly: Assembly = request.getfixturevalue(environment)
    assert instance(assembly)["BackupRetentionPeriod"] == days
    assert instance(assembly)["DeleteAutomatedBackups"] is False


def test_deleting_the_database_is_refused_and_leaves_a_snapshot(either: Assembly) -> None:
    assert instance(either)["DeletionProtection"] is True
    (resource,) = (
        each for each in either.foundation.resources.values() if each["Type"] == "AWS::RDS::DBInstance"
    )
    assert resource["DeletionPolicy"] == "Snapshot"
    assert resource["UpdateReplacePolicy"] == "Retain"


def test_prod_survives_losing_a_zone_and_dev_does_not_pay_for_it(dev: Assembly, prod: Assembly) -> None:
    assert instance(prod)["MultiAZ"] is True
    assert instance(dev)["MultiAZ"] is False


def test_storage_grows_by_itself(either: Assembly) -> None:
    database = instance(either)
    assert database["MaxAllocatedStorage"] > int(database["AllocatedStorage"])


def test_connections_are_those_the_configuration_reckons_with(dev: Assembly, prod: Assembly) -> None:
    def accepted(assembly: Assembly) -> Any:
        return assembly.foundation.one("AWS::RDS::DBParameterGroup")["Parameters"]["max_connections"]

    assert (accepted(dev), accepted(prod)) == ("100", "800")


def test_another_number_of_connections_restarts_the_database_by_another_parameter_group(
    build: Callable[..., Assembly], dev: Assembly
) -> None:
    larger = build("dev", {"database": {"instance_class": "t4g.small", "max_connections": 150}})
    assert instance(larger)["DBParameterGroupName"] != instance(dev)["DBParameterGroupName"]


def test_minor_versions_are_left_to_rds(either: Assembly) -> None:
    # A pinned minor version would make the next deployment a downgrade, which RDS refuses.
    assert instance(either)["EngineVersion"] == "18"
    assert instance(either)["AutoMinorVersionUpgrade"] is True


def test_a_new_major_version_in_the_file_is_an_upgrade_with_parameters_of_its_family(
    build: Callable[..., Assembly], dev: Assembly
) -> None:
    older = build("dev", {"database": {"engine_version": "17"}}).foundation
    assert older.one("AWS::RDS::DBParameterGroup")["Family"] == "postgres17"
    assert {each for each in older.resources if "Database" in each} == {
        each for each in dev.foundation.resources if "Database" in each
    }
    # Without a name of its own, a group of another family is a new one beside the old.
    assert "DBParameterGroupName" not in older.one("AWS::RDS::DBParameterGroup")
    assert instance(dev)["AllowMajorVersionUpgrade"] is True


def test_logs_are_exported_to_encrypted_groups_that_end(either: Assembly) -> None:
    name = instance(either)["DBInstanceIdentifier"]
    assert instance(either)["EnableCloudwatchLogsExports"] == ["postgresql", "upgrade"]
    groups = {
        group["LogGroupName"]: group
        for group in either.foundation.all("AWS::Logs::LogGroup", id_starts=INSTANCE)
    }
    assert set(groups) == {f"/aws/rds/instance/{name}/{kind}" for kind in ("postgresql", "upgrade")}
    for group in groups.values():
        assert group["RetentionInDays"] >= 30
        assert group["KmsKeyId"]["Fn::GetAtt"][0].startswith("LogKey")


def test_the_database_waits_for_its_log_groups(either: Assembly) -> None:
    (resource,) = (
        each for each in either.foundation.resources.values() if each["Type"] == "AWS::RDS::DBInstance"
    )
    logs = [each for each in resource["DependsOn"] if each.startswith(INSTANCE) and "Log" in each]
    assert {each[: len(INSTANCE) + 5] for each in logs} == {
        "DatabaseInstancePostg",
        "DatabaseInstanceUpgra",
    }


def test_the_database_leaves_to_nowhere(either: Assembly) -> None:
    group = either.foundation.one("AWS::EC2::SecurityGroup", id_starts="DatabaseSecurityGroup")
    # What CDK writes for "nothing": EC2 would otherwise add a rule for everything.
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["255.255.255.255/32"]
    assert "SecurityGroupIngress" not in group


def test_only_our_tasks_may_enter_the_database(either: Assembly) -> None:
    entries = [
        rule
        for rule in either.service.all("AWS::EC2::SecurityGroupIngress")
        if "Database" in str(rule["GroupId"])
    ]
    assert {(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in entries} == {
        (5433, 5433, "tcp")
    }
    assert {rule["SourceSecurityGroupId"]["Fn::GetAtt"][0][:19] for rule in entries} == {
        "ServerTaskSecurityG",
        "MigrationTaskSecuri",
        "ImportTaskSecurityG",
        "RelocateTaskSecurit",
        "CleanupEraseTaskSec",
        "CleanupGcTaskSecuri",
    }
    assert either.foundation.all("AWS::EC2::SecurityGroupIngress") == []


def test_insights_can_be_turned_off(given: Assembly, dev: Assembly, prod: Assembly) -> None:
    assert instance(dev)["DatabaseInsightsMode"] == "standard"
    assert instance(prod)["DatabaseInsightsMode"] == "advanced"
    assert instance(given)["EnablePerformanceInsights"] is False
    assert "DatabaseInsightsMode" not in instance(given)


def test_a_restored_database_has_a_name_of_its_own_and_what_its_snapshot_has(
    build: Callable[..., Assembly], dev: Assembly
) -> None:
    restored = build("dev", {"database": {"restore_from": "before-upgrade"}})
    found, replaced = instance(restored), instance(dev)
    assert found["DBSnapshotIdentifier"] == "before-upgrade"
    assert found["DBInstanceIdentifier"].startswith(f"{replaced['DBInstanceIdentifier']}-")
    # What RDS refuses beside a snapshot.
    assert {each for each in replaced if each not in found} == {
        "DBName", "KmsKeyId", "MasterUsername", "StorageEncrypted",
    }  # fmt: skip
    assert found["ManageMasterUserPassword"] is True
    group = restored.foundation.one("AWS::Logs::LogGroup", id_starts=f"{INSTANCE}Postgresql")
    assert group["LogGroupName"] == f"/aws/rds/instance/{found['DBInstanceIdentifier']}/postgresql"
    other = build("dev", {"database": {"restore_from": "another"}})
    waits = [
        {each for each in built.service.resources if each.startswith("MigrationCompleted")}
        for built in (dev, restored, other)
    ]
    assert len(set.union(*waits)) == 3, "the migration does not run on each database"
    assert instance(other)["DBInstanceIdentifier"] != found["DBInstanceIdentifier"]


def test_the_service_follows_to_a_restored_database_by_no_export(either: Assembly) -> None:
    imported = re.findall(r'"Fn::ImportValue": *"([^"]+)"', either.service.text)
    assert imported
    assert not [name for name in imported if INSTANCE in name]
    # A service that was deployed with the exports still has them.
    assert [name for name in either.foundation.outputs if "ExportsOutput" in name and INSTANCE in name]
