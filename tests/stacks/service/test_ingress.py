"""The only way in speaks TLS 1.3 to the configured networks."""

from collections.abc import Callable
from typing import Any

from tests.stacks.conftest import CERTIFICATE
from tests.stacks.templates import Assembly

BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
LISTENER = "AWS::ElasticLoadBalancingV2::Listener"


def attributes(assembly: Assembly) -> dict[str, Any]:
    return {each["Key"]: each["Value"] for each in assembly.service.one(BALANCER)["LoadBalancerAttributes"]}


def test_listener_speaks_only_tls_1_3(either: Assembly) -> None:
    listener = either.service.one(LISTENER)
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert listener["SslPolicy"] == "ELBSecurityPolicy-TLS13-1-3-2021-06"


def test_listener_tells_browsers_to_come_back_over_tls_only(either: Assembly) -> None:
    found = {each["Key"]: each["Value"] for each in either.service.one(LISTENER)["ListenerAttributes"]}
    told = found["routing.http.response.strict_transport_security.header_value"]
    assert int(told.removeprefix("max-age=")) >= 365 * 24 * 3600


def test_there_is_no_port_80(either: Assembly) -> None:
    assert len(either.service.all(LISTENER)) == 1
    group = either.service.one("AWS::EC2::SecurityGroup", id_starts="IngressSecurityGroup")
    assert {(rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupIngress"]} == {(443, 443)}


def test_only_configured_networks_enter(either: Assembly, given: Assembly) -> None:
    def networks(assembly: Assembly) -> list[str]:
        group = assembly.service.one("AWS::EC2::SecurityGroup", id_starts="IngressSecurityGroup")
        return [rule["CidrIp"] for rule in group["SecurityGroupIngress"]]

    assert networks(either) == ["10.0.0.0/8"]
    assert networks(given) == ["198.51.100.0/24", "203.0.113.0/24"]


def test_the_load_balancer_leaves_to_the_tasks_and_to_issuers_only(either: Assembly) -> None:
    group = either.service.one("AWS::EC2::SecurityGroup", id_starts="IngressSecurityGroup")
    assert [
        (each["IpProtocol"], each["FromPort"], each["ToPort"]) for each in group["SecurityGroupEgress"]
    ] == [("tcp", 443, 443)]
    rule = either.service.one("AWS::EC2::SecurityGroupEgress", id_starts="Ingress")
    assert (rule["FromPort"], rule["ToPort"]) == (5000, 5000)
    assert rule["DestinationSecurityGroupId"]["Fn::GetAtt"][0].startswith("ServerTaskSecurityGroup")


def test_the_load_balancer_is_internal_unless_configured(either: Assembly, given: Assembly) -> None:
    assert either.service.one(BALANCER)["Scheme"] == "internal"
    assert all("PrivateSubnet" in str(each) for each in either.service.one(BALANCER)["Subnets"])
    assert given.service.one(BALANCER)["Scheme"] == "internet-facing"
    assert given.service.one(BALANCER)["Subnets"] == ["subnet-0aaaaaaaaaaaaaaa1", "subnet-0aaaaaaaaaaaaaaa2"]


def test_invalid_headers_are_dropped_and_access_is_logged(either: Assembly) -> None:
    found = attributes(either)
    assert found["routing.http.drop_invalid_header_fields.enabled"] == "true"
    assert found["routing.http.desync_mitigation_mode"] == "defensive"
    assert found["access_logs.s3.enabled"] == "true"
    assert found["access_logs.s3.prefix"] == "alb"
    assert found["idle_timeout.timeout_seconds"] == "60"


def test_a_load_balancer_of_another_scheme_has_a_target_group_of_its_own(
    either: Assembly, given: Assembly
) -> None:
    def target_group(assembly: Assembly) -> str:
        (found,) = (
            logical_id
            for logical_id, resource in assembly.service.resources.items()
            if resource["Type"] == "AWS::ElasticLoadBalancingV2::TargetGroup"
        )
        return found

    assert target_group(either).startswith("IngressTargets")
    assert target_group(given).startswith("IngressPublicTargets")


def test_the_internet_is_let_in_where_the_file_says_so(public: Assembly) -> None:
    group = public.service.one("AWS::EC2::SecurityGroup", id_starts="IngressSecurityGroup")
    assert [rule["CidrIp"] for rule in group["SecurityGroupIngress"]] == ["0.0.0.0/0"]
    assert public.service.one(BALANCER)["Scheme"] == "internet-facing"
    assert "AwsSolutions-EC23" in str(public.acknowledged)


def test_deletion_protection_is_that_of_the_file(either: Assembly, public: Assembly) -> None:
    # Off at first: a load balancer that cannot be deleted cannot be rolled back either.
    assert attributes(either)["deletion_protection.enabled"] == "false"
    assert attributes(public)["deletion_protection.enabled"] == "true"


def test_targets_are_ready_rather_than_alive(either: Assembly) -> None:
    targets = either.service.one("AWS::ElasticLoadBalancingV2::TargetGroup")
    assert (targets["Protocol"], targets["Port"]) == ("HTTP", 5000)
    assert (targets["HealthCheckPath"], targets["Matcher"]) == ("/ready", {"HttpCode": "200"})


def test_draining_and_stopping_leave_time_for_running_requests(either: Assembly) -> None:
    targets = either.service.one("AWS::ElasticLoadBalancingV2::TargetGroup")
    delay = {each["Key"]: each["Value"] for each in targets["TargetGroupAttributes"]}
    assert int(delay["deregistration_delay.timeout_seconds"]) >= 30
    for task in either.service.all("AWS::ECS::TaskDefinition"):
        assert task["ContainerDefinitions"][0]["StopTimeout"] == 60


def test_a_certificate_is_requested_and_validated_in_the_hosted_zone(either: Assembly) -> None:
    certificate = either.service.one("AWS::CertificateManager::Certificate")
    assert certificate["ValidationMethod"] == "DNS"
    assert certificate["DomainValidationOptions"][0]["HostedZoneId"] == "Z0000000000EXAMPLE"


def test_the_host_name_points_at_the_load_balancer(dev: Assembly) -> None:
    record = dev.service.one("AWS::Route53::RecordSet")
    assert (record["Name"], record["Type"]) == ("mlflow.dev.example.com.", "A")
    assert "IngressLoadBalancer" in str(record["AliasTarget"]["DNSName"])


def test_a_given_certificate_is_used_and_none_is_made(given: Assembly) -> None:
    assert given.service.one(LISTENER)["Certificates"] == [{"CertificateArn": CERTIFICATE}]
    assert given.service.all("AWS::CertificateManager::Certificate") == []
    assert given.service.all("AWS::Route53::RecordSet") == []


def test_the_record_of_an_own_sign_in_host_is_created_where_the_zone_contains_it(
    build: Callable[..., Assembly],
) -> None:
    own = {
        "sign_in_domain": "login.dev.example.com",
        "sign_in_certificate_arn": "arn:aws:acm:us-east-1:111122223333:certificate/login",
    }
    service = build("dev", {"identity": own}).service
    record = service.one("AWS::Route53::RecordSet", id_starts="IngressSignInRecord")
    assert record["Name"] == "login.dev.example.com."
    assert "CloudFrontDistribution" in str(record["AliasTarget"]["DNSName"])
    assert "DnsRecordsToCreate" not in service.outputs


def test_records_for_a_zone_elsewhere_are_printed(given: Assembly) -> None:
    name, kind, address = _texts(given.service.outputs["DnsRecordsToCreate"]["Value"])
    assert (name, kind) == ("mlflow.dev.example.com", "CNAME")
    assert "LoadBalancer" in address


def _texts(joined: Any) -> list[str]:
    return "".join(each if isinstance(each, str) else str(each) for each in joined["Fn::Join"][1]).split(
        " ", 2
    )
