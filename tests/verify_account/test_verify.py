"""Each check passes on the deployment as designed, and fails if its resource differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.verify_account.deployed import FORWARD, OUTPUTS, Account, people_rule, program_rule
from verify_account.verify import verify

Answers = dict[str, Any]
Change = Callable[[Answers], object]


def bucket_policy(without: str) -> Change:
    return lambda a: a["get_bucket_policy"].update(
        Policy=a["get_bucket_policy"]["Policy"].replace(without, "-")
    )


def encryption(a: Answers) -> Any:
    return a["get_bucket_encryption"]["ServerSideEncryptionConfiguration"]["Rules"][0]


def instance(**otherwise: Any) -> Change:
    return lambda a: a["describe_db_instances"]["DBInstances"][1].update(otherwise)


def task(**otherwise: Any) -> Change:
    return lambda a: a["describe_task_definition"]["taskDefinition"].update(otherwise)


def container(**otherwise: Any) -> Change:
    return lambda a: a["describe_task_definition"]["taskDefinition"]["containerDefinitions"][0].update(
        otherwise
    )


def task_role(**otherwise: Any) -> Change:
    return lambda a: a["get_role_policy"]["PolicyDocument"]["Statement"][0].update(otherwise)


def listener(**otherwise: Any) -> Change:
    return lambda a: a["describe_listeners"]["Listeners"][0].update(otherwise)


def attribute(number: int) -> Change:
    return lambda a: a["describe_load_balancer_attributes"]["Attributes"][number].update(Value="false")


def rule(priority: str, actions: list[dict[str, Any]]) -> Change:
    def change(answers: Answers) -> None:
        rules = [each for each in answers["describe_rules"]["Rules"] if each["Priority"] != priority]
        answers["describe_rules"]["Rules"] = [*rules, {"Priority": priority, "Actions": actions}]

    return change


def token_check(a: Answers) -> Any:
    return a["describe_rules"]["Rules"][0]["Actions"][0]["JwtValidationConfig"]


def viewer_statements(a: Answers) -> Any:
    return a["get_policy_version"][OUTPUTS["ViewerPolicyArn"]]["PolicyVersion"]["Document"]["Statement"]


def pool(**otherwise: Any) -> Change:
    return lambda a: a["describe_user_pool"]["UserPool"].update(otherwise)


def password(**otherwise: Any) -> Change:
    return lambda a: a["describe_user_pool"]["UserPool"]["Policies"]["PasswordPolicy"].update(otherwise)


BROKEN: tuple[tuple[Change, str], ...] = (
    (lambda a: a["get_bucket_versioning"].update(Status="Suspended"), "artifacts are versioned"),
    (lambda a: encryption(a).update(BucketKeyEnabled=False), "artifacts are encrypted"),
    (
        lambda a: encryption(a)["ApplyServerSideEncryptionByDefault"].update(KMSMasterKeyID="alias/aws/s3"),
        "artifacts are encrypted",
    ),
    (
        lambda a: a["get_public_access_block"]["PublicAccessBlockConfiguration"].popitem(),
        "blocks all public access",
    ),
    (bucket_policy(without="SecureTransport"), "refuses requests without TLS"),
    (bucket_policy(without="DeleteObjectVersion"), "nobody deletes object versions"),
    (
        lambda a: a["get_bucket_ownership_controls"]["OwnershipControls"].update(
            Rules=[{"ObjectOwnership": "ObjectWriter"}]
        ),
        "owner owns its objects",
    ),
    (lambda a: a["get_bucket_lifecycle_configuration"].update(Rules=[]), "incomplete uploads are removed"),
    (lambda a: a["get_bucket_logging"].clear(), "access to the bucket is logged"),
    (instance(IAMDatabaseAuthenticationEnabled=False), "accepts IAM tokens"),
    (instance(StorageEncrypted=False), "database is encrypted"),
    (instance(PubliclyAccessible=True), "database is not public"),
    (instance(BackupRetentionPeriod=1), "backups are kept"),
    (lambda a: a["describe_db_parameters"].update(Parameters=[]), "database requires TLS"),
    (instance(MasterUserSecret=None), "keeps the administrator's password"),
    (task(taskRoleArn="arn:aws:iam::000000000000:role/execution"), "a role of its own"),
    (container(readonlyRootFilesystem=False), "read-only"),
    (container(user="root"), "does not run as root"),
    (container(healthCheck={}), "has a health check"),
    (container(environment=[{"name": "DB_PASSWORD"}]), "no key and no password"),
    (container(secrets=[{"name": "KEY"}]), "no key and no password"),
    (task_role(Resource="arn:aws:rds-db:::dbuser:db-2/mlflow_server"), "one database user"),
    (task_role(Resource="*"), "no wildcard resource"),
    (lambda a: a["describe_services"]["services"][0].update(deploymentConfiguration={}), "rolled back"),
    (listener(Port=80), "the only listener is HTTPS"),
    (listener(SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06"), "the only listener is HTTPS"),
    (attribute(0), "invalid headers are dropped"),
    (attribute(1), "requests are logged"),
    (lambda a: a["describe_target_groups"]["TargetGroups"][0].update(HealthCheckPath="/"), "/ready says so"),
    (lambda a: token_check(a).pop("AdditionalClaims"), "for this deployment"),
    (lambda a: token_check(a).update(Issuer="https://another.example.com"), "checks a token's issuer"),
    (rule("1", program_rule("https://another.example.com")), "checks a token's issuer"),
    (rule("10", [FORWARD]), "identifies the caller"),
    (rule("20", people_rule("authenticate")), "a page's calls are refused"),
    (rule("30", people_rule("allow")), "a page's calls are refused"),
    (rule("40", [FORWARD]), "identifies the caller"),
    (rule("default", [FORWARD]), "identifies the caller"),
    (
        lambda a: a["get_outbound_web_identity_federation_info"].update(JwtVendingEnabled=False),
        "outbound federation is on",
    ),
    (lambda a: viewer_statements(a)[1].pop("Condition"), "tokens for this deployment only"),
    (lambda a: viewer_statements(a).pop(), "tokens for this deployment only"),
    (lambda a: viewer_statements(a)[0]["Action"].append("s3:PutObject"), "viewers write nothing"),
    (pool(AdminCreateUserConfig={"AllowAdminCreateUserOnly": False}), "nobody signs up"),
    (password(MinimumLength=8), "passwords are long"),
    (password(RequireSymbols=False), "passwords are long"),
    (pool(MfaConfiguration="OFF"), "a second factor"),
    (pool(DeletionProtection="INACTIVE"), "protected from deletion"),
    (lambda a: a["list_groups"]["Groups"].pop(), "each role has its group"),
    (
        lambda a: a["describe_user_pool_client"]["UserPoolClient"].update(AllowedOAuthFlows=["implicit"]),
        "authorization code flow",
    ),
)  # fmt: skip


def failed(change: Change) -> list[str]:
    account = Account()
    change(account.answers)
    return [each.check for each in verify(account, OUTPUTS) if not each.passed]


def test_the_deployment_as_designed_passes_every_check() -> None:
    assert failed(lambda _answers: None) == []


def test_issuers_of_other_accounts_pass_if_the_deployment_trusts_them() -> None:
    account, partner = Account(), "https://partner.example.com"
    rule("1", program_rule(partner))(account.answers)
    rule("2", program_rule(partner))(account.answers)
    results = verify(account, {**OUTPUTS, "TrustedIssuers": partner})
    assert [each.check for each in results if not each.passed] == []


@pytest.mark.parametrize(("change", "told"), BROKEN, ids=range(len(BROKEN)))
def test_a_resource_that_differs_fails_its_check(change: Change, told: str) -> None:
    assert any(told in check for check in failed(change))


def test_every_check_can_fail() -> None:
    told = [told for _, told in BROKEN]
    checks = [each.check for each in verify(Account(), OUTPUTS)]
    assert [check for check in checks if not any(each in check for each in told)] == []


@pytest.mark.parametrize(
    ("output", "told"),
    [("DatabaseEndpoint", "no RDS instance at"), ("LoadBalancerDnsName", "no load balancer has the name")],
)
def test_outputs_of_another_account_are_refused(output: str, told: str) -> None:
    with pytest.raises(LookupError, match=f"{told} elsewhere:1"):
        verify(Account(), {**OUTPUTS, output: "elsewhere:1"})
