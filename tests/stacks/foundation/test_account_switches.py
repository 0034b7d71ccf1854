"""What an account has once is made by a function that may do nothing else, and take nothing away."""

from stacks.foundation.account_switches import SERVICE_LINKED_ROLES
from tests.stacks.templates import Assembly, as_list

FEDERATION = "Custom::OutboundWebIdentityFederation"


def test_federation_is_a_resource_of_the_foundation(either: Assembly) -> None:
    function = either.foundation.one(FEDERATION)["ServiceToken"]["Fn::GetAtt"][0]
    assert function in either.foundation.resources
    assert either.service.all(FEDERATION) == []


def actions_on(assembly: Assembly, resource: str) -> set[str]:
    return {
        action
        for each in assembly.foundation.statements(id_starts="FederationRole")
        if resource in str(each["Resource"])
        for action in as_list(each["Action"])
    }


def test_its_function_may_turn_it_on_and_look_but_not_turn_it_off(either: Assembly) -> None:
    statements = either.foundation.statements(id_starts="FederationRole")
    (anywhere,) = (each for each in statements if each["Resource"] == "*")
    assert set(anywhere["Action"]) == {
        "iam:EnableOutboundWebIdentityFederation",
        "iam:GetOutboundWebIdentityFederationInfo",
    }
    actions = {action for each in statements for action in as_list(each["Action"])}
    assert actions - set(anywhere["Action"]) == {
        "iam:CreateServiceLinkedRole",
        "iam:GetRole",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


def test_every_service_has_its_role_before_it_is_used(either: Assembly) -> None:
    made = either.foundation.one("Custom::ServiceLinkedRoles")["Roles"]
    assert made == SERVICE_LINKED_ROLES
    for service, role in made.items():
        path = f":role/aws-service-role/{service}/{role}"
        assert actions_on(either, path) == {"iam:CreateServiceLinkedRole", "iam:GetRole"}
    (subnets,) = (
        logical_id
        for logical_id, each in either.foundation.resources.items()
        if each["Type"] == "AWS::RDS::DBSubnetGroup"
    )
    before = either.foundation.needs(subnets)
    assert any(each.startswith("FederationServiceLinkedRoles") for each in before)


def test_an_oidc_provider_is_adopted_or_made_and_never_taken_away(replicated: Assembly) -> None:
    provider = replicated.foundation.one("Custom::OidcProvider")
    assert provider["Url"] == "https://token.actions.githubusercontent.com"
    assert provider["ClientId"] == "sts.amazonaws.com"
    assert actions_on(replicated, ":oidc-provider/token.actions.githubusercontent.com") == {
        "iam:AddClientIDToOpenIDConnectProvider",
        "iam:CreateOpenIDConnectProvider",
        "iam:GetOpenIDConnectProvider",
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
