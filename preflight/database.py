"""Whether RDS offers what is configured."""

from __future__ import annotations

from preflight.network import zones
from preflight.subject import Answer, Probe, Subject, bad, good, warning


def _offered(subject: Subject) -> Answer:
    database = subject.environment.database
    engine = "aurora-postgresql" if database.engine == "aurora" else "postgres"
    instance_class = f"db.{database.instance_class}"
    options = subject.ask(
        "rds",
        "describe_orderable_db_instance_options",
        Engine=engine,
        DBInstanceClass=instance_class,
        Vpc=True,
    )["OrderableDBInstanceOptions"]
    right = [each for each in options if each["EngineVersion"].split(".")[0] == database.engine_version]
    told = f"{instance_class} with {engine} {database.engine_version}"
    if not right:
        versions = sorted({each["EngineVersion"] for each in options})
        return bad(
            f"{told} is not offered here"
            + (f"; the class is, with {', '.join(versions)}" if versions else ""),
            "choose another database.instance_class, or database.engine_version",
        )
    offered = {zone["Name"] for each in right for zone in each["AvailabilityZones"]}
    missing = sorted(set(zones(subject)) - offered)
    if missing and (database.multi_az or len(missing) == len(zones(subject))):
        return bad(
            f"{told} is not offered in {', '.join(missing)}", "choose network.zone_names, or another class"
        )
    if missing:
        return warning(
            f"{told} is not offered in {', '.join(missing)}",
            "RDS chooses another zone; name the zones in network.zone_names to have a choice later",
        )
    return good(f"{told}, in {', '.join(zones(subject))}")


PROBES = (Probe("the database's class and version are offered in every zone", _offered),)
