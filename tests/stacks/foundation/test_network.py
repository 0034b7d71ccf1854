"""The network lets through what is named, and records the rest."""

from collections.abc import Callable

import pytest

from tests.stacks.conftest import EXISTING_VPC
from tests.stacks.templates import Assembly, as_list


def test_database_subnets_have_no_route_out(either: Assembly) -> None:
    routes = [
        logical_id
        for logical_id, resource in either.foundation.resources.items()
        if resource["Type"] == "AWS::EC2::Route"
    ]
    assert any("Private" in each for each in routes)
    assert not [each for each in routes if "Isolated" in each]


def test_there_are_three_kinds_of_subnet_in_every_zone(dev: Assembly, prod: Assembly) -> None:
    assert len(dev.foundation.all("AWS::EC2::Subnet")) == 3 * 2
    assert len(prod.foundation.all("AWS::EC2::Subnet")) == 3 * 3


def test_no_subnet_hands_out_public_addresses(either: Assembly) -> None:
    for subnet in either.foundation.all("AWS::EC2::Subnet"):
        assert subnet["MapPublicIpOnLaunch"] is False


def test_adding_the_third_zone_does_not_renumber_the_first_two(dev: Assembly, prod: Assembly) -> None:
    def blocks(assembly: Assembly, name: str) -> object:
        return assembly.foundation.one("AWS::EC2::Subnet", id_starts=f"NetworkVpc{name}Subnet")["CidrBlock"]

    for name in ("PublicSubnet1", "PublicSubnet2", "PrivateSubnet1", "IsolatedSubnet2"):
        assert blocks(dev, name) == blocks(prod, name)


def test_s3_is_reached_without_the_nat(either: Assembly) -> None:
    endpoint = either.foundation.one("AWS::EC2::VPCEndpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert endpoint["ServiceName"]["Fn::Join"][1][-1] == ".s3"


def test_every_flow_is_recorded(either: Assembly) -> None:
    flow_log = either.foundation.one("AWS::EC2::FlowLog")
    assert flow_log["TrafficType"] == "ALL"
    assert flow_log["ResourceType"] == "VPC"


def test_the_default_security_group_is_emptied(either: Assembly) -> None:
    assert either.foundation.one("Custom::VpcRestrictDefaultSG")


def test_dev_has_one_nat_instance_and_no_gateway(dev: Assembly) -> None:
    assert len(dev.foundation.all("AWS::EC2::Instance")) == 1
    assert dev.foundation.all("AWS::EC2::NatGateway") == []


def test_the_nat_instance_takes_https_from_private_subnets_only(dev: Assembly) -> None:
    group = dev.foundation.one("AWS::EC2::SecurityGroup", id_starts="NetworkVpcNatSecurityGroup")
    private = {
        subnet["CidrBlock"]
        for subnet in dev.foundation.all("AWS::EC2::Subnet", id_starts="NetworkVpcPrivate")
    }
    assert {rule["CidrIp"] for rule in group["SecurityGroupIngress"]} == private
    assert {(rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupIngress"]} == {(443, 443)}


def test_the_nat_instance_is_encrypted_and_guards_its_metadata(dev: Assembly) -> None:
    instance = dev.foundation.one("AWS::EC2::Instance")
    assert instance["MetadataOptions"] == {"HttpTokens": "required"}
    assert all(each["Ebs"]["Encrypted"] for each in instance["BlockDeviceMappings"])


def test_prod_has_a_nat_gateway_in_every_zone(prod: Assembly) -> None:
    assert len(prod.foundation.all("AWS::EC2::NatGateway")) == 3
    assert prod.foundation.all("AWS::EC2::Instance") == []


def test_an_existing_network_is_used_and_none_is_made(given: Assembly) -> None:
    assert not [
        each for each in given.foundation.types() if each.startswith("AWS::EC2::") and "Group" not in each
    ]
    assert given.foundation.one("AWS::RDS::DBSubnetGroup")["SubnetIds"] == [
        "subnet-0ccccccccccccccc1",
        "subnet-0ccccccccccccccc2",
    ]


def test_nothing_is_asked_of_aws_during_synthesis(
    dev: Assembly, prod: Assembly, given: Assembly, replicated: Assembly
) -> None:
    for assembly in (dev, prod, given, replicated):
        assert "missing" not in assembly.manifest


def test_no_security_group_lets_the_internet_in(either: Assembly) -> None:
    for template in (either.foundation, either.service):
        for group in template.all("AWS::EC2::SecurityGroup"):
            for rule in as_list(group.get("SecurityGroupIngress", [])):
                assert rule["CidrIp"] != "0.0.0.0/0"
        for rule in template.all("AWS::EC2::SecurityGroupIngress"):
            assert "CidrIp" not in rule


@pytest.mark.parametrize(
    ("way", "property_name"),
    [
        ({"transit_gateway_id": "tgw-1"}, "TransitGatewayId"),
        ({"peering_connection_id": "pcx-1"}, "VpcPeeringConnectionId"),
    ],
)
def test_networks_of_clients_are_routed_from_every_private_subnet(
    way: dict[str, str], property_name: str, build: Callable[..., Assembly]
) -> None:
    networks = ["10.0.0.0/16", "192.168.0.0/24"]
    foundation = build("dev", {"network": {**way, "routed_cidrs": networks}}).foundation
    routes = [each for each in foundation.all("AWS::EC2::Route") if property_name in each]
    assert {each[property_name] for each in routes} == set(way.values())
    assert sorted(each["DestinationCidrBlock"] for each in routes) == sorted(networks * 2)
    tables = {str(each["RouteTableId"]) for each in routes}
    assert len(tables) == 2
    assert all("PrivateSubnet" in each for each in tables)


def test_a_route_waits_for_the_attachment_to_the_transit_gateway(build: Callable[..., Assembly]) -> None:
    way = {"transit_gateway_id": "tgw-1", "routed_cidrs": ["10.0.0.0/16"]}
    foundation = build("dev", {"network": way}).foundation
    attachment = foundation.one("AWS::EC2::TransitGatewayAttachment")
    assert all("PrivateSubnet" in str(each) for each in attachment["SubnetIds"])
    for resource in foundation.resources.values():
        if "TransitGatewayId" in resource.get("Properties", {}) and resource["Type"] == "AWS::EC2::Route":
            assert any("TransitGateway" in each for each in resource["DependsOn"])


def test_an_existing_network_needs_no_public_subnet_for_an_internal_load_balancer(
    build: Callable[..., Assembly],
) -> None:
    existing = {key: value for key, value in EXISTING_VPC.items() if key != "public_subnet_ids"}
    assembly = build("dev", {"network": {"existing": existing}})
    balancer = assembly.service.one("AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Subnets"] == EXISTING_VPC["private_subnet_ids"]


def test_an_existing_network_causes_no_warning_of_the_cdk(given: Assembly) -> None:
    assert not [each for each in given.warnings if "mlflow-on-aws" not in each]
