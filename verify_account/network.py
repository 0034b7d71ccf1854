"""Checks of the network: who reaches what, and where it is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from findings.reader import NotAskedError
from verify_account.account import Account, Check
from verify_account.database import database
from verify_account.load_balancer import load_balancer
from verify_account.tasks import running, service
from verify_account.templates import agrees

_PEERS = {"CidrIp": "CidrIp", "CidrIpv6": "CidrIpv6", "SourcePrefixListId": "PrefixListId"}
_GROUP_PEERS = ("SourceSecurityGroupId", "DestinationSecurityGroupId")
_LIVE_PEERS = (
    ("IpRanges", "CidrIp"),
    ("Ipv6Ranges", "CidrIpv6"),
    ("PrefixListIds", "PrefixListId"),
    ("UserIdGroupPairs", "GroupId"),
)
# Protocol, first and last port, peer.
Rule = tuple[str, str, str, str]


def _wanted(rule: Mapping[str, Any]) -> Rule:
    names = (*_PEERS, "DestinationPrefixListId", *_GROUP_PEERS)
    peer = next(str(rule[name]) for name in names if name in rule)
    return (*_ports(rule), peer)


def _live(permissions: Iterable[Mapping[str, Any]]) -> Iterator[Rule]:
    for each in permissions:
        for kind, name in _LIVE_PEERS:
            for peer in each.get(kind, []):
                yield (*_ports(each), str(peer[name]))


def _ports(rule: Mapping[str, Any]) -> tuple[str, str, str]:
    protocol = str(rule["IpProtocol"])
    if protocol == "-1":
        return protocol, "", ""
    return protocol, str(rule.get("FromPort", "")), str(rule.get("ToPort", ""))


def _security_groups(account: Account) -> tuple[bool, object]:
    groups = {each.physical_id: each for each in account.of_type("AWS::EC2::SecurityGroup")}
    answer = account.ask("ec2", "describe_security_groups", GroupIds=sorted(groups))
    found = []
    for live in answer["SecurityGroups"]:
        group = groups[live["GroupId"]].properties
        for way, inside, alone, kept in (
            ("from", "SecurityGroupIngress", "AWS::EC2::SecurityGroupIngress", "IpPermissions"),
            ("to", "SecurityGroupEgress", "AWS::EC2::SecurityGroupEgress", "IpPermissionsEgress"),
        ):
            wanted = [_wanted(each) for each in group.get(inside, [])] + [
                _wanted(each.properties)
                for each in account.of_type(alone)
                if each.properties["GroupId"] == live["GroupId"]
            ]
            found += [
                f"{live['GroupId']} ({live['Description']}): {protocol} {first}-{last} {way} {peer}"
                for protocol, first, last, peer in _live(live[kept])
                if not any(agrees(list(one), [protocol, first, last, peer]) for one in wanted)
            ]
    return not found, found or f"{len(groups)} groups, as the stacks say"


def _attached_groups(account: Account) -> tuple[bool, object]:
    ours = {each.physical_id for each in account.of_type("AWS::EC2::SecurityGroup")}
    place = service(account)["networkConfiguration"]["awsvpcConfiguration"]
    attached = {
        "load balancer": load_balancer(account)["SecurityGroups"],
        "tasks": place["securityGroups"],
        "database": [each["VpcSecurityGroupId"] for each in database(account)["VpcSecurityGroups"]],
    }
    added = {name: groups for name, groups in attached.items() if not groups or set(groups) - ours}
    return not added, added or attached


def _registered(account: Account) -> tuple[bool, object]:
    """What the load balancer sends requests to; a target that is leaving gets no new ones."""
    own = {
        detail["value"]
        for task in running(account)
        for attachment in task.get("attachments", [])
        for detail in attachment["details"]
        if detail["name"] == "privateIPv4Address"
    }
    live = {
        each["Target"]["Id"]
        for group in account.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")
        for each in account.ask("elbv2", "describe_target_health", TargetGroupArn=group.physical_id)[
            "TargetHealthDescriptions"
        ]
        if each["TargetHealth"]["State"] != "draining"
    }
    return live <= own, sorted(live - own) or sorted(live)


def _isolation(account: Account) -> tuple[bool, object]:
    """Only what is in the VPC, or in a VPC that somebody connected, has a way to the database."""
    name = database(account)["DBSubnetGroup"]
    group = name["DBSubnetGroupName"] if isinstance(name, Mapping) else name
    answer = account.ask("rds", "describe_db_subnet_groups", DBSubnetGroupName=group)["DBSubnetGroups"][0]
    subnets = {each["SubnetIdentifier"] for each in answer["Subnets"]}
    tables = account.ask(
        "ec2", "describe_route_tables", Filters=[{"Name": "vpc-id", "Values": [answer["VpcId"]]}]
    )["RouteTables"]
    explicit = {each.get("SubnetId"): table for table in tables for each in table["Associations"]}
    main = next((table for table in tables for each in table["Associations"] if each.get("Main")), None)
    out = [
        f"{subnet}: {route.get('DestinationCidrBlock') or route.get('DestinationIpv6CidrBlock')}"
        for subnet in sorted(subnets)
        for route in (explicit.get(subnet) or main or {"Routes": []})["Routes"]
        if str(route.get("GatewayId", "")).startswith("igw-")
        or "NatGatewayId" in route
        or "EgressOnlyInternetGatewayId" in route
    ]
    return not out, out or sorted(subnets)


def _logs(account: Account) -> tuple[bool, object]:
    found = []
    groups = account.of_type("AWS::Logs::LogGroup")
    for group in groups:
        name = group.physical_id
        answer = account.ask("logs", "describe_log_groups", logGroupNamePrefix=name)["logGroups"]
        live: dict[str, Any] = next((each for each in answer if each["logGroupName"] == name), {})
        for wanted, kept in (("KmsKeyId", "kmsKeyId"), ("RetentionInDays", "retentionInDays")):
            value = group.properties.get(wanted)
            if kept not in live or not agrees(value, live[kept]):
                found.append(f"{name}: {kept} is {live.get(kept, 'missing')}, not {value}")
    return not found, found or f"{len(groups)} log groups"


def _flow_logs(account: Account) -> tuple[bool, object]:
    log = account.only("AWS::EC2::FlowLog").physical_id
    if not log.startswith("fl-"):
        raise NotAskedError("this API keeps no flow logs")
    live = account.ask("ec2", "describe_flow_logs", FlowLogIds=[log])["FlowLogs"]
    return [(each["FlowLogStatus"], each["TrafficType"]) for each in live] == [("ACTIVE", "ALL")], live


CHECKS = (
    Check(
        "security groups admit what the stacks say, and nothing more",
        _security_groups,
        "remove the rule: aws ec2 revoke-security-group-ingress or -egress",
    ),
    Check(
        "load balancer, tasks and database have the stacks' security groups, and no other",
        _attached_groups,
        "take the other group off",
    ),
    Check(
        "requests go to the service's tasks, and nowhere else",
        _registered,
        "aws elbv2 deregister-targets",
    ),
    Check(
        "the database's subnets have no route to the internet",
        _isolation,
        "remove the route from the isolated subnets' route table",
    ),
    Check(
        "every log is encrypted under its key, and expires as configured",
        _logs,
        "aws logs associate-kms-key, put-retention-policy",
    ),
    Check("the network's traffic is recorded", _flow_logs, "make the VPC's flow log again: deploy"),
)
