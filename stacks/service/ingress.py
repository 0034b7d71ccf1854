"""The only way in."""

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as route53_targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import EnvironmentConfig, IngressConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.foundation.user_directory import UserDirectory
from stacks.service.listener_rules import ListenerRules, refuse
from stacks.service.sign_in import SignIn
from stacks.service.tracking_server import PORT, TrackingServer

# Two years, for this host name alone: others below it may belong to someone else.
_STRICT_TRANSPORT_SECURITY = "max-age=63072000"


class Ingress(Construct):
    """A load balancer that speaks TLS 1.3 on port 443, to the configured networks, and nothing else.

    Only a request with a token or a session reaches the tasks: the rules are in `listener_rules`.
    There is no port 80, not even to redirect: a redirect would come too late for a token sent in the clear.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        foundation: MlflowFoundation,
        server: TrackingServer,
        sign_in: SignIn,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        config, vpc = environment.ingress, foundation.network.vpc
        self.load_balancer = elb.ApplicationLoadBalancer(
            self,
            "LoadBalancer",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(
                subnet_type=ec2.SubnetType.PUBLIC
                if config.internet_facing
                else ec2.SubnetType.PRIVATE_WITH_EGRESS
            ),
            internet_facing=config.internet_facing,
            security_group=_security_group(self, vpc=vpc, config=config),
            deletion_protection=config.deletion_protection,
            drop_invalid_header_fields=True,
            desync_mitigation_mode=elb.DesyncMitigationMode.DEFENSIVE,
            idle_timeout=cdk.Duration.seconds(config.idle_timeout_seconds),
        )
        zone = self._zone(config)
        self.records_to_create = self._records(zone, config.domain, foundation.people)
        self._log_access(foundation.access_logs.bucket)
        self.target_group = self._targets(server, vpc, config)
        self.certificate = self._certificate(zone, config)
        self.listener = self.load_balancer.add_listener(
            "Https",
            port=443,
            protocol=elb.ApplicationProtocol.HTTPS,
            ssl_policy=elb.SslPolicy.TLS13_13,
            certificates=[self.certificate],
            default_action=refuse(),
            # The security group already admits the configured networks; `open` would admit everybody.
            open=False,
        )
        # The load balancer's own answers have it too: refusals, redirects to the sign-in page, errors.
        self.listener.set_attribute(
            "routing.http.response.strict_transport_security.header_value", _STRICT_TRANSPORT_SECURITY
        )
        rules = ListenerRules(
            self,
            "Rules",
            listener=self.listener,
            target_group=self.target_group,
            sign_in=sign_in,
            token_issuer=foundation.account_switches.issuer,
            token_audience=config.url,
            trusted_issuers=[each.issuer for each in environment.identity.trusted_issuers],
            edge_jwt_check=environment.identity.edge_jwt_check,
        )
        # ECS refuses a service whose target group no listener leads to yet.
        server.service.node.add_dependency(rules)

    def _targets(
        self, server: TrackingServer, vpc: ec2.IVpc, config: IngressConfig
    ) -> elb.ApplicationTargetGroup:
        return elb.ApplicationTargetGroup(
            self,
            # Another scheme means another load balancer, and a target group never belongs to two.
            "PublicTargets" if config.internet_facing else "Targets",
            vpc=vpc,
            port=PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            target_type=elb.TargetType.IP,
            targets=[server.service],
            health_check=elb.HealthCheck(
                path="/ready",
                healthy_http_codes="200",
                interval=cdk.Duration.seconds(20),
                timeout=cdk.Duration.seconds(10),
                healthy_threshold_count=2,
                # 200 seconds: a database failover must not make ECS replace every task.
                unhealthy_threshold_count=10,
            ),
            deregistration_delay=cdk.Duration.seconds(30),
        )

    def _records(self, zone: route53.IHostedZone | None, domain: str, people: UserDirectory) -> list[str]:
        """Create the records that the zone takes; return the others, for whoever runs their zone."""
        balancer = self.load_balancer
        left = []

        def record(construct_id: str, name: str, address: str, target: route53.IAliasRecordTarget) -> None:
            if zone is not None and f".{name}".endswith(f".{zone.zone_name}"):
                alias = route53.RecordTarget.from_alias(target)
                route53.ARecord(self, construct_id, zone=zone, record_name=name, target=alias)
            else:
                left.append(f"{name} CNAME {address}")

        load_balancer = route53_targets.LoadBalancerTarget(balancer)
        record("Record", domain, balancer.load_balancer_dns_name, load_balancer)
        if people.own_domain is not None:
            page = route53_targets.UserPoolDomainTarget(people.domain)
            record("SignInRecord", people.own_domain, people.domain.cloud_front_endpoint, page)
        return left

    def _certificate(self, zone: route53.IHostedZone | None, config: IngressConfig) -> acm.ICertificate:
        if config.certificate_arn is not None:
            return acm.Certificate.from_certificate_arn(self, "Certificate", config.certificate_arn)
        return acm.Certificate(
            self,
            "Certificate",
            domain_name=config.domain,
            validation=acm.CertificateValidation.from_dns(zone),
        )

    def _zone(self, config: IngressConfig) -> route53.IHostedZone | None:
        if config.hosted_zone_id is None or config.hosted_zone_name is None:
            return None
        return route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=config.hosted_zone_id, zone_name=config.hosted_zone_name
        )

    def _log_access(self, bucket: s3.IBucket) -> None:
        # `log_access_logs` needs a literal region, for the account of the load balancers in old regions. The
        # bucket admits the log delivery service instead, which every region has.
        self.load_balancer.set_attribute("access_logs.s3.enabled", "true")
        self.load_balancer.set_attribute("access_logs.s3.bucket", bucket.bucket_name)
        self.load_balancer.set_attribute("access_logs.s3.prefix", "alb")


def _security_group(scope: Construct, *, vpc: ec2.IVpc, config: IngressConfig) -> ec2.SecurityGroup:
    group = ec2.SecurityGroup(
        scope,
        "SecurityGroup",
        vpc=vpc,
        description="MLflow load balancer: HTTPS from the configured networks, to the tasks and the issuers",
        allow_all_outbound=False,
    )
    group.add_egress_rule(
        ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "Cognito and the issuer's keys, whose addresses vary"
    )
    for cidr in config.allowed_cidrs:
        group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(443), "HTTPS")
    if config.open_to_the_internet:
        acknowledge(
            group,
            "AwsSolutions-EC23",
            because="the environment's file lets the internet connect (ingress.allowed_cidrs); the load "
            "balancer passes a verified token or a signed-in person, and the server verifies both again",
        )
    return group
