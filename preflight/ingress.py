"""The host name: its zone, and its certificate."""

from __future__ import annotations

from findings.reader import AbsentError
from preflight.subject import Answer, Probe, Subject, bad, good, warning


def _zone(subject: Subject) -> Answer | None:
    ingress = subject.environment.ingress
    if ingress.hosted_zone_id is None or ingress.hosted_zone_name is None:
        return None
    try:
        answer = subject.ask("route53", "get_hosted_zone", Id=ingress.hosted_zone_id)
    except AbsentError as error:
        return bad(
            f"{ingress.hosted_zone_id}: {error.code}",
            "correct ingress.hosted_zone_id (aws route53 list-hosted-zones); with another account's zone, "
            "give ingress.certificate_arn instead",
        )
    zone = answer["HostedZone"]
    name = zone["Name"].rstrip(".")
    if name != ingress.hosted_zone_name:
        return bad(f"{ingress.hosted_zone_id} is {name}", "correct ingress.hosted_zone_name")
    if zone.get("Config", {}).get("PrivateZone"):
        remedy = "name a public zone, or give ingress.certificate_arn: ACM validates in public zones only"
        return (
            bad(f"{name} is private", remedy) if ingress.certificate_arn is None else good(f"{name}, private")
        )
    servers = answer.get("DelegationSet", {}).get("NameServers", [])
    if subject.is_deployed or ingress.certificate_arn is not None:
        return good(f"{name}, public")
    return warning(
        f"{name}, public; its name servers are {', '.join(servers)}",
        f"make sure that the parent zone delegates to them (`dig NS {name}`): the certificate waits for it",
    )


def _certificate(subject: Subject) -> Answer:
    ingress = subject.environment.ingress
    if ingress.certificate_arn is None:
        return good(f"one is requested for {ingress.domain}, and validated in {ingress.hosted_zone_name}")
    region = ingress.certificate_arn.split(":")[3]
    if region != subject.deployer.region:
        return bad(
            f"it is in {region}, and the load balancer in {subject.deployer.region}",
            f"request or import one in {subject.deployer.region}",
        )
    try:
        found = subject.ask("acm", "describe_certificate", CertificateArn=ingress.certificate_arn)[
            "Certificate"
        ]
    except AbsentError as error:
        return bad(error.code, "correct ingress.certificate_arn: aws acm list-certificates")
    if found["Status"] != "ISSUED":
        return bad(
            f"it is {found['Status']}", "add its validation records to the zone, and wait until it is issued"
        )
    names = {found["DomainName"], *found.get("SubjectAlternativeNames", [])}
    if not {ingress.domain, f"*.{ingress.domain.partition('.')[2]}"} & names:
        return bad(f"it is for {', '.join(sorted(names))}", f"give one for {ingress.domain}")
    return good(f"issued, for {', '.join(sorted(names))}")


PROBES = (
    Probe("the hosted zone exists, and is public", _zone),
    Probe("the certificate is issued, here, for this host", _certificate),
)
