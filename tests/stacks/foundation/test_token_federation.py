"""The account's federation is turned on by a function that may do nothing else."""

from tests.stacks.templates import Assembly, as_list

FEDERATION = "Custom::OutboundWebIdentityFederation"


def test_federation_is_a_resource_of_the_foundation(either: Assembly) -> None:
    function = either.foundation.one(FEDERATION)["ServiceToken"]["Fn::GetAtt"][0]
    assert function in either.foundation.resources
    assert either.service.all(FEDERATION) == []


def test_its_function_may_turn_it_on_and_look_but_not_turn_it_off(either: Assembly) -> None:
    statements = either.foundation.statements(id_starts="FederationRole")
    actions = {action for each in statements for action in as_list(each["Action"])}
    assert {each for each in actions if each.startswith("iam:")} == {
        "iam:EnableOutboundWebIdentityFederation",
        "iam:GetOutboundWebIdentityFederationInfo",
    }
    assert {each for each in actions if not each.startswith("iam:")} == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


def test_nothing_in_any_template_turns_federation_off(either: Assembly) -> None:
    for template in (either.foundation, either.service):
        assert "DisableOutboundWebIdentityFederation" not in template.text


def test_its_permissions_are_there_before_it_is_asked(either: Assembly) -> None:
    (enabled,) = (each for each in either.foundation.resources.values() if each["Type"] == FEDERATION)
    assert any(each.startswith("FederationRoleDefaultPolicy") for each in enabled["DependsOn"])


def test_server_and_edge_believe_its_issuer(either: Assembly) -> None:
    (rule,) = (
        each
        for each in either.service.all("AWS::ElasticLoadBalancingV2::ListenerRule")
        if each["Priority"] == 10
    )
    issuer = rule["Actions"][0]["JwtValidationConfig"]["Issuer"]
    assert "FederationEnabled" in issuer["Fn::ImportValue"]
    task = either.service.one("AWS::ECS::TaskDefinition", id_starts="ServerTaskDefinition")
    environment = {each["Name"]: each["Value"] for each in task["ContainerDefinitions"][0]["Environment"]}
    account = [{"Ref": "AWS::Partition"}, ":iam::", {"Ref": "AWS::AccountId"}]
    assert environment["MLFLOW_AWS_TOKEN_ISSUERS"] == {"Fn::Join": ["", ["arn:", *account, "=", issuer]]}
    assert either.service.outputs["TokenIssuer"]["Value"] == issuer
