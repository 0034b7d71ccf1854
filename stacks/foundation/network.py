"""The network: public, private and isolated subnets, closed by default, its flows logged."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import ExistingVpcConfig, NetworkConfig
from stacks.operational_log import OperationalLog

MOST_ZONES = 3


def zones_of(config: NetworkConfig) -> list[str]:
    """Return the zones by name, or, if the file names none, the first ones of the region at deployment."""
    if config.zone_names:
        return list(config.zone_names)
    return [cdk.Fn.select(number, cdk.Fn.get_azs()) for number in range(config.zones)]


class Network(Construct):
    """A VPC whose database subnets reach nothing and whose flows are all logged.

    Load balancers live in public subnets, tasks in private ones with egress through a NAT, the database in
    isolated ones. S3 is reached without the NAT. The default security group lets nothing through.
    An existing VPC is used as it is.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, log_key: kms.IKey, config: NetworkConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.vpc = (
            self._existing(config.existing) if config.existing else self._new(log_key=log_key, config=config)
        )

    def _existing(self, config: ExistingVpcConfig) -> ec2.IVpc:
        vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=config.vpc_id,
            availability_zones=list(config.availability_zones),
            public_subnet_ids=list(config.public_subnet_ids) or None,
            private_subnet_ids=list(config.private_subnet_ids),
            isolated_subnet_ids=list(config.isolated_subnet_ids),
        )
        acknowledge(
            vpc,
            "Annotation::@aws-cdk/aws-ec2:noSubnetRouteTableId",
            because="whoever runs the existing network routes it; no route is made here",
        )
        return vpc

    def _new(self, *, log_key: kms.IKey, config: NetworkConfig) -> ec2.IVpc:
        nat = _nat_instances() if config.nat == "instance" else ec2.NatProvider.gateway()
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.cidr),
            max_azs=config.zones,
            # Room for a third zone from the start: without it, adding one later would renumber every subnet.
            reserved_azs=MOST_ZONES - config.zones,
            nat_gateway_provider=nat,
            nat_gateways=config.nat_count,
            restrict_default_security_group=True,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Public", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False
                ),
                ec2.SubnetConfiguration(name="Private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            ],
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        if isinstance(nat, ec2.NatInstanceProviderV2):
            _harden(nat, vpc)
        self._join(vpc, config)
        log = OperationalLog(self, "FlowLog", key=log_key, days=config.flow_log_days)
        vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(log))
        # The CDK's own function, which empties the default security group, would log in the clear, for ever.
        provider = cdk.Stack.of(self).node.find_child("Custom::VpcRestrictDefaultSGCustomResourceProvider")
        function = provider.node.find_child("Handler")
        assert isinstance(function, cdk.CfnResource)  # noqa: S101
        own = OperationalLog(self, "DefaultGroupLog", key=log_key, days=config.flow_log_days)
        function.add_property_override("LoggingConfig", {"LogGroup": own.log_group_name})
        return vpc

    def _join(self, vpc: ec2.Vpc, config: NetworkConfig) -> None:
        """Route the networks of clients from the private subnets, where an internal load balancer lives."""
        gateway, peering = config.transit_gateway_id, config.peering_connection_id
        attachment = _attach(self, vpc, gateway) if gateway else None
        for zone, subnet in enumerate(vpc.private_subnets, start=1):
            for cidr in config.routed_cidrs:
                route = ec2.CfnRoute(
                    self,
                    f"Route{zone}To{cidr.replace('/', '-')}",
                    route_table_id=subnet.route_table.route_table_id,
                    destination_cidr_block=cidr,
                    transit_gateway_id=gateway,
                    vpc_peering_connection_id=peering,
                )
                if attachment:
                    route.add_dependency(attachment)


def _attach(scope: Construct, vpc: ec2.Vpc, gateway: str) -> ec2.CfnTransitGatewayAttachment:
    return ec2.CfnTransitGatewayAttachment(
        scope,
        "TransitGateway",
        transit_gateway_id=gateway,
        vpc_id=vpc.vpc_id,
        subnet_ids=[subnet.subnet_id for subnet in vpc.private_subnets],
    )


def _nat_instances() -> ec2.NatInstanceProviderV2:
    return ec2.NatProvider.instance_v2(
        instance_type=ec2.InstanceType.of(ec2.InstanceClass.T4G, ec2.InstanceSize.NANO),
        # AWS resolves this at deployment: synthesis stays offline, the image stays patched.
        machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
        default_allowed_traffic=ec2.NatTrafficDirection.OUTBOUND_ONLY,
        associate_public_ip_address=True,
    )


def _harden(nat: ec2.NatInstanceProviderV2, vpc: ec2.Vpc) -> None:
    for subnet in vpc.private_subnets:
        nat.connections.allow_from(
            ec2.Peer.ipv4(subnet.ipv4_cidr_block), ec2.Port.tcp(443), "HTTPS of the tasks"
        )
    for instance in nat.gateway_instances:
        instance.instance.propagate_tags_to_volume_on_creation = True
        instance.instance.add_property_override("MetadataOptions", {"HttpTokens": "required"})
        instance.instance.block_device_mappings = [
            ec2.CfnInstance.BlockDeviceMappingProperty(
                device_name="/dev/xvda", ebs=ec2.CfnInstance.EbsProperty(encrypted=True)
            )
        ]
        acknowledge(
            instance,
            "AwsSolutions-EC28",
            because="the NAT keeps no state: a missed minute of CPU metrics costs nothing",
        )
        acknowledge(
            instance,
            "AwsSolutions-EC29",
            because="the NAT keeps no state: CloudFormation must be free to replace it by a patched one",
        )
