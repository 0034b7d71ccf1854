"""The service's outputs are what a client and an operator need."""

from mlflow_aws_server.settings import VARIABLES

from stacks.roles import ROLES
from tests.stacks.templates import Assembly


def test_outputs_name_what_one_needs(either: Assembly) -> None:
    assert set(either.service.outputs) == {
        "TrackingUrl",
        "EventBusName",
        "ArtifactBucket",
        "FoundationStack",
        "ServiceStack",
        "VerifierPolicy",
        "ClusterName",
        "ServiceName",
        "LogGroup",
        "DatabaseEndpoint",
        "ArtifactKeyArn",
        "BreakGlassPolicy",
        "LoadBalancerDnsName",
        "SignInUrl",
        "UserPoolId",
        "UserPoolClientId",
        "TokenIssuer",
        "TokenAudience",
        "OperationImport",
        "OperationGc",
        "OperationErase",
        "OperationRelocate",
        *(f"{role.construct_id}PolicyArn" for role in ROLES),
    }


def test_the_tracking_url_is_that_of_the_file(dev: Assembly) -> None:
    assert dev.service.outputs["TrackingUrl"]["Value"] == "https://mlflow.dev.example.com"


def test_the_service_stack_holds_nothing_one_would_miss(either: Assembly) -> None:
    for resource in either.service.resources.values():
        assert resource.get("DeletionPolicy", "Delete") == "Delete"
        assert resource["Type"].split("::")[1] not in {"S3", "RDS", "KMS"}


def test_container_insights_are_those_of_the_file(dev: Assembly, prod: Assembly) -> None:
    def insights(assembly: Assembly) -> object:
        return assembly.service.one("AWS::ECS::Cluster")["ClusterSettings"]

    assert insights(dev) == [{"Name": "containerInsights", "Value": "disabled"}]
    assert insights(prod) == [{"Name": "containerInsights", "Value": "enhanced"}]


def test_no_task_sets_a_variable_that_the_server_would_refuse(either: Assembly) -> None:
    given = {
        variable["Name"]
        for task in either.service.all("AWS::ECS::TaskDefinition")
        for container in task["ContainerDefinitions"]
        # What has an entry point of its own is no command of the server.
        if "EntryPoint" not in container
        for variable in container["Environment"]
    }
    ours = {name for name in given if name.startswith("MLFLOW_AWS_")}
    assert ours
    assert ours <= VARIABLES
