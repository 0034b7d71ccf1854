"""Quotas, zones and address ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network

from findings.reader import AbsentError
from preflight.subject import Answer, Probe, Subject, bad, good, warning


@dataclass(frozen=True)
class _Quota:
    """A limit of the account in the region: its code, its default, what is used, and what will be."""

    title: str
    service: str
    code: str
    default: int
    used: Callable[[Subject], int]
    needed: Callable[[Subject], int]


def _vpcs(subject: Subject) -> int:
    return len(subject.ask("ec2", "describe_vpcs")["Vpcs"])


def _addresses(subject: Subject) -> int:
    return len(subject.ask("ec2", "describe_addresses")["Addresses"])


def _gateways(subject: Subject) -> int:
    """Those of the zone that has most: the limit is one of the zone."""
    found = subject.ask("ec2", "describe_nat_gateways")["NatGateways"]
    subnets = {
        each["SubnetId"]: each["AvailabilityZone"]
        for each in subject.ask("ec2", "describe_subnets")["Subnets"]
    }
    zones = [subnets.get(each["SubnetId"], "") for each in found if each["State"] in ("available", "pending")]
    return max((zones.count(zone) for zone in zones), default=0)


def _balancers(subject: Subject) -> int:
    found = subject.ask("elbv2", "describe_load_balancers")["LoadBalancers"]
    return sum(each["Type"] == "application" for each in found)


def _databases(subject: Subject) -> int:
    return len(subject.ask("rds", "describe_db_instances")["DBInstances"])


def _instances(subject: Subject) -> int:
    database = subject.environment.database
    return 1 + database.readers if database.engine == "aurora" else 1


def _new_vpc(subject: Subject) -> int:
    return int(subject.environment.network.existing is None)


def _nats(subject: Subject) -> int:
    return subject.environment.network.nat_count * _new_vpc(subject)


def _new_gateway(subject: Subject) -> int:
    return int(subject.environment.network.nat == "gateway") * _new_vpc(subject)


_QUOTAS = (
    _Quota("VPCs", "vpc", "L-F678F1CE", 5, _vpcs, _new_vpc),
    _Quota("Elastic IP addresses", "ec2", "L-0263D0A3", 5, _addresses, _nats),
    _Quota("NAT gateways of a zone", "vpc", "L-FE5A380F", 5, _gateways, _new_gateway),
    _Quota("application load balancers", "elasticloadbalancing", "L-53DA6B97", 50, _balancers, lambda _: 1),
    _Quota("database instances", "rds", "L-7B6409FD", 40, _databases, _instances),
)


def _room(quota: _Quota) -> Callable[[Subject], Answer | None]:
    def look(subject: Subject) -> Answer | None:
        needed = 0 if subject.is_deployed else quota.needed(subject)
        if not needed:
            return None
        used, limit = quota.used(subject), _limit(subject, quota)
        told = f"{used} of {limit} used, {needed} more needed"
        if used + needed > limit:
            return bad(
                told,
                f"aws service-quotas request-service-quota-increase --service-code {quota.service} "
                f"--quota-code {quota.code} --desired-value {used + needed}, or delete what is unused",
            )
        return good(told)

    return look


def _limit(subject: Subject, quota: _Quota) -> int:
    try:
        answer = subject.ask(
            "service-quotas", "get_service_quota", ServiceCode=quota.service, QuotaCode=quota.code
        )
    except AbsentError:
        return quota.default
    return int(answer["Quota"]["Value"])


def zones(subject: Subject) -> list[str]:
    """The zones that a deployment would use."""
    network = subject.environment.network
    if network.existing is not None:
        return list(network.existing.availability_zones)
    return list(network.zone_names) or _available(subject)[: network.zones]


def _available(subject: Subject) -> list[str]:
    found = subject.ask("ec2", "describe_availability_zones")["AvailabilityZones"]
    return sorted(
        each["ZoneName"]
        for each in found
        if each["State"] == "available" and each.get("ZoneType", "availability-zone") == "availability-zone"
    )


def _zones_exist(subject: Subject) -> Answer:
    chosen, available = zones(subject), _available(subject)
    missing = sorted(set(chosen) - set(available))
    if missing:
        return bad(
            f"{', '.join(missing)} is not available; there are {', '.join(available)}",
            "correct the zones in [network]",
        )
    if len(chosen) < subject.environment.network.zones and subject.environment.network.existing is None:
        return bad(f"only {', '.join(chosen)}", "set network.zones to as many, or choose another region")
    return good(", ".join(chosen))


def _ranges(subject: Subject) -> Answer | None:
    network = subject.environment.network
    if network.existing is not None or subject.is_deployed:
        return None
    ours = IPv4Network(network.cidr)
    colliding = [
        f"{vpc['VpcId']} {association['CidrBlock']}"
        for vpc in subject.ask("ec2", "describe_vpcs")["Vpcs"]
        for association in vpc.get("CidrBlockAssociationSet") or [{"CidrBlock": vpc["CidrBlock"]}]
        if ours.overlaps(IPv4Network(association["CidrBlock"]))
    ]
    if colliding:
        return warning(
            f"{network.cidr} overlaps with {', '.join(colliding)}",
            "choose another network.cidr if they are ever to be peered; it cannot be changed later",
        )
    return good(f"{network.cidr} overlaps with no VPC of this account and region")


def _joined(subject: Subject) -> Answer | None:
    network = subject.environment.network
    if network.transit_gateway_id:
        found = subject.ask(
            "ec2", "describe_transit_gateways", TransitGatewayIds=[network.transit_gateway_id]
        )["TransitGateways"]
        state = found[0]["State"] if found else "missing"
        told = f"{network.transit_gateway_id} is {state}"
        return good(told) if state == "available" else bad(told, "correct network.transit_gateway_id")
    if network.peering_connection_id:
        found = subject.ask(
            "ec2",
            "describe_vpc_peering_connections",
            VpcPeeringConnectionIds=[network.peering_connection_id],
        )["VpcPeeringConnections"]
        state = found[0]["Status"]["Code"] if found else "missing"
        told = f"{network.peering_connection_id} is {state}"
        return good(told) if state == "active" else bad(told, "accept the peering connection, or correct it")
    return None


def _given(subject: Subject) -> Answer | None:
    existing = subject.environment.network.existing
    if existing is None:
        return None
    wanted = {
        subnet: zone
        for subnets in (
            existing.public_subnet_ids or (),
            existing.private_subnet_ids,
            existing.isolated_subnet_ids,
        )
        for subnet, zone in zip(subnets, existing.availability_zones, strict=False)
    }
    try:
        found = subject.ask("ec2", "describe_subnets", SubnetIds=sorted(wanted))["Subnets"]
    except AbsentError as error:
        return bad(str(error), "correct the subnets in [network.existing]")
    wrong = [
        f"{each['SubnetId']} is in {each['VpcId']}, {each['AvailabilityZone']}"
        for each in found
        if (each["VpcId"], each["AvailabilityZone"]) != (existing.vpc_id, wanted[each["SubnetId"]])
    ]
    if wrong:
        return bad(", ".join(wrong), "list subnets of the VPC, in the order of availability_zones")
    return good(f"{len(found)} subnets of {existing.vpc_id}")


PROBES = (
    *(Probe(f"room for more {quota.title}", _room(quota)) for quota in _QUOTAS),
    Probe("the zones are available", _zones_exist),
    Probe("the address range is free", _ranges),
    Probe("the network of clients can be joined", _joined),
    Probe("the existing network is as configured", _given),
)
