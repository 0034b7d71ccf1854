"""The schema of config/*.toml: every setting, its meaning, its limits.

Files are read and validated once, here. Everything below receives frozen values and reads no context,
environment variable or network.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stacks.backup_config import BackupConfig
from stacks.canary_config import CanaryConfig
from stacks.cost_config import CostConfig
from stacks.events_config import EventsConfig
from stacks.identity_config import AccountId, IdentityConfig, RoleArn, account_of
from stacks.monitoring_config import MonitoringConfig
from stacks.rds_windows import backup_windows, maintenance_window
from stacks.regions import existing_region, partitions, region_with_sign_in
from stacks.section import DISTINCT, Cidr, Section, matching, refusal, require_both, texts
from stacks.waf_config import WafConfig

# RDS for PostgreSQL allows itself about one connection per 9.5 MB of memory; 100 per GiB stays below that.
CONNECTIONS_PER_GIB = 100
# Aurora accepts no more while `min_acu` is 0.5: the smallest instance could not carry them.
SMALLEST_SERVERLESS_CONNECTIONS = 2000
GIB_PER_ACU = 2
SERVERLESS = "serverless"
# Superuser and RDS-reserved slots, the migration task, and an operator's session.
RESERVED_CONNECTIONS = 15
# While a version rolls out, ECS runs up to this many times the desired tasks (stopping ones included).
ROLLOUT_FACTOR = 2
# What one server process needs when idle; the supervising process needs as much again.
MIB_PER_WORKER = 512
# With fewer, a worker could not serve two requests at once; the server refuses to start.
CONNECTIONS_PER_WORKER = 12

# From RFC 1918 and RFC 6598: nobody on the internet has such an address.
PRIVATE_NETWORKS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))

FARGATE_MEMORY_MIB = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}
# A century: S3 takes more, but a slip of the finger should not.
MOST_DAYS = 36500
MOST_TAGS = 40
CLOUDWATCH_RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip


def _log_retention(value: int) -> int:
    if value not in CLOUDWATCH_RETENTION_DAYS:
        nearest = min((days for days in CLOUDWATCH_RETENTION_DAYS if days >= value), default=3653)
        raise ValueError(f"is not a retention that CloudWatch Logs offers; the next one is {nearest}")
    return value


def _tags(value: dict[str, str]) -> dict[str, str]:
    """Return the tags; raise ValueError for what AWS would refuse.

    https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
    """
    if len(value) > MOST_TAGS:
        raise ValueError(f"are {len(value)} tags; use {MOST_TAGS} at most: AWS allows 50, and adds its own")
    for text, longest in [*((key, 128) for key in value), *((each, 256) for each in value.values())]:
        if not re.fullmatch(rf"(?!aws:)[\w +=.:/@-]{{0,{longest}}}", text):
            allowed = "letters, digits, spaces and + - = . _ : / @"
            raise ValueError(f"hold {json.dumps(text)}; use up to {longest} {allowed}, not aws: first")
    if "" in value:
        raise ValueError("hold a tag without a key; give it one")
    return value


LogRetentionDays = Annotated[int, AfterValidator(_log_retention)]
Region = Annotated[str, AfterValidator(existing_region), AfterValidator(region_with_sign_in)]
DomainName = Annotated[
    str,
    matching(
        r"(?=.{1,64}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}",
        "is not a host name",
        "write it alone, in lower case, up to 64 characters, such as mlflow.example.com",
    ),
]
CertificateArn = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[\w-]+",
        "is not the ARN of a certificate in ACM",
        "write one such as arn:aws:acm:REGION:ACCOUNT:certificate/ID",
    ),
]
ZoneName = Annotated[
    str,
    matching(
        r"[a-z]{2,3}-[a-z0-9-]*[a-z0-9]", "is not the name of a zone", "write one such as eu-central-1a"
    ),
]
SubnetId = Annotated[
    str, matching(r"subnet-[0-9a-z]+", "is not a subnet's id", "write one such as subnet-0a1b2c3d4e5f60718")
]
SubnetIds = Annotated[tuple[SubnetId, ...], Field(strict=False, min_length=2), DISTINCT]


KeyArn = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})",
        "is not the ARN of a KMS key",
        "write one such as arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias",
    ),
]


class ExistingVpcConfig(Section):
    """A network that somebody else runs. It needs egress for its private subnets, and an S3 endpoint."""

    vpc_id: Annotated[
        str, matching(r"vpc-[0-9a-z]+", "is not a VPC's id", "write one such as vpc-0a1b2c3d4e5f60718")
    ] = Field(description="Id of the VPC, `vpc-…`.")
    availability_zones: Annotated[tuple[ZoneName, ...], Field(strict=False, min_length=2), DISTINCT] = Field(
        description="Zones of the subnets below, in the same order in every list."
    )
    public_subnet_ids: Annotated[tuple[SubnetId, ...], Field(strict=False), DISTINCT] = Field(
        default=(),
        description="Subnets with an internet gateway, one per zone, for an internet-facing load balancer.",
    )
    private_subnet_ids: SubnetIds = Field(
        description="Subnets with a NAT, one per zone: for tasks, and for an internal load balancer."
    )
    isolated_subnet_ids: SubnetIds = Field(
        description="Subnets without a route to the internet, one per zone: for the database."
    )

    @model_validator(mode="after")
    def _one_subnet_per_zone(self) -> Self:
        zones = len(self.availability_zones)
        for key in ("public_subnet_ids", "private_subnet_ids", "isolated_subnet_ids"):
            if len(getattr(self, key)) not in ({zones, 0} if key == "public_subnet_ids" else {zones}):
                raise refusal(
                    key,
                    list(getattr(self, key)),
                    f"has {len(getattr(self, key))} subnets for {zones} zones",
                    "list exactly one subnet for each of availability_zones, in the same order",
                )
        return self


class NetworkConfig(Section):
    """Where everything runs."""

    cidr: Cidr = Field(
        default="10.42.0.0/16", description="Address range of the new VPC, /16 to /22, not used by its peers."
    )
    zones: int = Field(default=2, ge=2, le=3, description="Number of availability zones the new VPC spans.")
    zone_names: Annotated[tuple[ZoneName, ...], Field(strict=False), DISTINCT] = Field(
        default=(),
        description="Zones by name, for an account where the first `zones` of the region will not do.",
    )
    nat: Literal["instance", "gateway"] = Field(
        default="gateway",
        description="How tasks reach AWS: a NAT `gateway`, or a t4g.nano `instance` at a tenth of its price.",
    )
    nat_count: int = Field(
        default=1, ge=1, le=3, description="Number of NATs: 1 is cheap, one per zone survives losing a zone."
    )
    flow_log_days: LogRetentionDays = Field(
        default=30, description="Days to keep the network's flow logs; a value CloudWatch Logs offers."
    )
    transit_gateway_id: (
        Annotated[
            str, matching(r"tgw-[0-9a-z]+", "is not a transit gateway's id", "write one such as tgw-0a1b2c3d")
        ]
        | None
    ) = Field(default=None, description="Transit gateway to attach the new VPC to.")
    peering_connection_id: (
        Annotated[
            str,
            matching(r"pcx-[0-9a-z]+", "is not a peering connection's id", "write one such as pcx-0a1b2c3d"),
        ]
        | None
    ) = Field(default=None, description="Active peering connection of the new VPC; in place of a gateway.")
    routed_cidrs: Annotated[tuple[Cidr, ...], Field(strict=False), DISTINCT] = Field(
        default=(), description="Networks of your clients behind that gateway or connection."
    )
    existing: ExistingVpcConfig | None = Field(
        default=None,
        description="Use this VPC instead of a new one; the settings above then have no effect.",
    )

    @property
    def is_joined(self) -> bool:
        """Whether somebody outside a new VPC has a way into it; who gives a VPC has seen to that."""
        return bool(self.existing or self.routed_cidrs)

    @model_validator(mode="after")
    def _joined_in_one_way(self) -> Self:
        ways = {
            "transit_gateway_id": self.transit_gateway_id,
            "peering_connection_id": self.peering_connection_id,
        }
        given = {key: value for key, value in ways.items() if value is not None}
        if given and self.existing:
            key, value = next(iter(given.items()))
            raise refusal(
                key, value, "has no effect on an existing VPC", "remove it, and route there yourself"
            )
        if len(given) > 1:
            raise refusal(
                *next(iter(given.items())), "is set, and so is peering_connection_id", "set one of the two"
            )
        if given and not self.routed_cidrs:
            raise refusal(
                "routed_cidrs", [], "is empty, so nothing is routed", "list the networks of your clients"
            )
        if self.routed_cidrs and not given:
            raise refusal(
                "routed_cidrs",
                list(self.routed_cidrs),
                "lead nowhere",
                "set transit_gateway_id or peering_connection_id, or remove them",
            )
        for cidr in self.routed_cidrs:
            if IPv4Network(cidr).overlaps(IPv4Network(self.cidr)):
                raise refusal(
                    "routed_cidrs", cidr, f"overlaps with cidr = {self.cidr}", "give the VPC another cidr"
                )
        return self

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if not 16 <= IPv4Network(self.cidr).prefixlen <= 22:
            raise refusal(
                "cidr",
                self.cidr,
                "leaves no room for the subnets, or is too large for a VPC",
                "use a /16 to /22",
            )
        if self.zone_names and len(self.zone_names) != self.zones:
            raise refusal(
                "zone_names",
                list(self.zone_names),
                f"names {len(self.zone_names)} zones, but zones = {self.zones}",
                "make the two agree, or remove zone_names",
            )
        if self.nat_count > self.zones:
            raise refusal(
                "nat_count",
                self.nat_count,
                f"is more than zones = {self.zones}",
                "use one NAT per zone at most",
            )
        return self


_INSTANCE_CLASS = re.compile(
    r"^(?P<family>t3|t4g|m\d[a-z]*|r\d[a-z]*)\.(?P<size>micro|small|medium|large|(?P<times>\d*)xlarge)$"
)


_AURORA_CLASS = re.compile(r"^(t3|t4g)\.(medium|large)$|^r\d")


def instance_memory_gib(instance_class: str) -> int:
    """Return the memory of a t, m or r class in GiB; raise ValueError for any other."""
    match = _INSTANCE_CLASS.match(instance_class)
    if match is None:
        raise ValueError(
            "is not a class of the families t3, t4g, m… or r…; write one such as t4g.micro or m7g.large"
        )
    burstable = {"micro": 1, "small": 2, "medium": 4, "large": 8, "xlarge": 16, "2xlarge": 32}
    size = match["size"]
    if match["family"].startswith("t"):
        if size not in burstable:
            raise ValueError(f"does not exist; the sizes of its family are {', '.join(burstable)}")
        return burstable[size]
    if size in ("micro", "small", "medium"):
        raise ValueError("does not exist; the sizes of its family start at large")
    cpus = 2 if size == "large" else 4 * int(match["times"] or 1)
    return cpus * (8 if match["family"].startswith("r") else 4)


def _instance_class(value: str) -> str:
    if value != SERVERLESS:
        instance_memory_gib(value)
    return value


def _backup_window(value: str) -> str:
    backup_windows(value)
    return value


def _maintenance_window(value: str) -> str:
    maintenance_window(value)
    return value


def _half_step(value: float) -> float:
    if value * 2 % 1:
        raise ValueError(
            f"is not a capacity that Aurora offers; use {value // 0.5 / 2} or {value // 0.5 / 2 + 0.5}"
        )
    return value


Acu = Annotated[float, Field(ge=0.5, le=256, allow_inf_nan=False), AfterValidator(_half_step)]

# What has an effect with one engine only, and what to do with the other one.
# A name, or the ARN of a snapshot of an instance or a cluster; `rds:` begins those that RDS took itself.
_SNAPSHOT = matching(
    r"(arn:[a-z-]+:rds:[a-z0-9-]+:[0-9]{12}:(cluster-)?snapshot:)?([a-z]+:)?[A-Za-z][A-Za-z0-9-]*",
    "is not a snapshot",
    "write its name, or its ARN, as `aws rds describe-db-snapshots` shows it",
)
_POSTGRESQL_ONLY = {
    "multi_az": "remove it: Aurora's storage is in three zones, and readers = 1 survives losing the writer",
    "storage_gib": "remove it: Aurora's storage grows by itself",
    "max_storage_gib": "remove it: Aurora's storage grows by itself",
}
_AURORA_ONLY = {
    "readers": 'remove it, or set engine = "aurora": RDS keeps this password, so it makes no replica',
    "storage_type": 'remove it (an instance has gp3), or set engine = "aurora"',
    "min_acu": 'remove it, or set engine = "aurora"',
    "max_acu": 'remove it, or set engine = "aurora"',
}


class DatabaseConfig(Section):
    """PostgreSQL on RDS: one instance, or an Aurora cluster."""

    engine: Literal["postgresql", "aurora"] = Field(
        default="postgresql",
        description="One `postgresql` instance, or an `aurora` cluster. Changing it makes a new, empty one.",
    )
    engine_version: Literal["17", "18"] = Field(
        default="18",
        description="Major version of PostgreSQL; RDS upgrades the minor one in the maintenance window.",
    )
    instance_class: Annotated[str, AfterValidator(_instance_class)] = Field(
        description="Instance class without `db.`, such as `t4g.micro`, `m7g.large`; Aurora: `r7g.large`, "
        "`t4g.medium`, `serverless`."
    )
    key_arn: KeyArn | None = Field(
        default=None, description="KMS key of the database, chosen once; without it, one is made."
    )
    restore_from: Annotated[str, _SNAPSHOT] | None = Field(
        default=None,
        description="Snapshot, by name or ARN, that the database was restored from, as `make restore` writes "
        "it; it stays in the file. Another one replaces the database, and the replaced one is kept.",
    )
    max_connections: int = Field(
        ge=30,
        le=5000,
        description="Connections PostgreSQL accepts, at most 100 per GiB of the class; all tasks must fit.",
    )
    storage_gib: int = Field(default=20, ge=20, le=65536, description="Storage to start with, gp3, in GiB.")
    max_storage_gib: int = Field(
        default=100,
        ge=22,
        le=65536,
        description="Where storage autoscaling stops, in GiB; 10 % above the start or more.",
    )
    multi_az: bool = Field(
        default=False,
        description="A synchronous standby in a second zone: survives losing one. Aurora: set `readers`.",
    )
    readers: int = Field(
        default=0,
        ge=0,
        le=15,
        description="Aurora's readers: they take over from the writer, and answer people's searches.",
    )
    storage_type: Literal["aurora", "aurora-iopt1"] = Field(
        default="aurora",
        description="Aurora's storage: `aurora` bills each I/O, `aurora-iopt1` (I/O-Optimized) none.",
    )
    min_acu: Acu = Field(
        default=0.5,
        description="Least capacity of each `serverless` instance, in Aurora capacity units of 2 GiB.",
    )
    max_acu: Acu | None = Field(
        default=None, description="Most capacity of each `serverless` instance, in Aurora capacity units."
    )
    deletion_protection: bool = Field(
        default=True,
        description="Refuse deletion until this is false and deployed. A snapshot is taken either way.",
    )
    backup_days: int = Field(
        default=7, ge=7, le=35, description="Days of automated backups, for point-in-time restore."
    )
    backup_window: Annotated[str, AfterValidator(_backup_window)] = Field(
        default="02:00-03:00",
        description="Daily window of the backup, UTC, `hh:mm-hh:mm`, outside the maintenance window.",
    )
    maintenance_window: Annotated[str, AfterValidator(_maintenance_window)] = Field(
        default="sun:03:30-sun:04:30",
        description="Weekly window of maintenance and minor upgrades, UTC, `ddd:hh:mm-ddd:hh:mm`.",
    )
    port: int = Field(
        default=5433,
        ge=1150,
        le=65535,
        description="Port of the database; not 5432, which scanners try first.",
    )
    log_days: LogRetentionDays = Field(
        default=30, description="Days to keep PostgreSQL's logs; a value CloudWatch Logs offers."
    )
    insights: Literal["off", "standard", "advanced"] = Field(
        default="standard",
        description="CloudWatch Database Insights; `standard` is free, `advanced` keeps 15 months.",
    )
    monitoring_seconds: Literal[0, 1, 5, 10, 15, 30, 60] = Field(
        default=60, description="Interval of RDS enhanced monitoring in seconds; 0 turns it off."
    )

    @property
    def serverless(self) -> bool:
        """Whether the cluster's instances scale by themselves (Aurora Serverless v2)."""
        return self.instance_class == SERVERLESS

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        others = _POSTGRESQL_ONLY if self.engine == "aurora" else _AURORA_ONLY
        for key, remedy in others.items():
            if key in self.model_fields_set:
                value = getattr(self, key)
                raise refusal(key, value, f'has no effect with engine = "{self.engine}"', remedy)
        for key in ("min_acu", "max_acu"):
            if key in self.model_fields_set and not self.serverless:
                raise refusal(
                    key,
                    getattr(self, key),
                    f'has no effect with instance_class = "{self.instance_class}"',
                    f'remove it, or set instance_class = "{SERVERLESS}"',
                )
        return self

    @model_validator(mode="after")
    def _class_of_the_engine(self) -> Self:
        if self.engine == "postgresql" and self.serverless:
            raise refusal(
                "instance_class",
                self.instance_class,
                "is a class of Aurora",
                'set engine = "aurora", or use a class such as t4g.micro',
            )
        if self.engine == "aurora" and not self.serverless and not _AURORA_CLASS.match(self.instance_class):
            raise refusal(
                "instance_class",
                self.instance_class,
                "is not a class that Aurora offers",
                "use serverless, t4g.medium, t4g.large, or one of the r families such as r7g.large",
            )
        return self

    @model_validator(mode="after")
    def _capacity(self) -> Self:
        if not self.serverless:
            return self
        if self.max_acu is None:
            raise refusal(
                "max_acu",
                None,
                f'is missing; instance_class = "{SERVERLESS}" needs it',
                "set the most capacity that you would pay for, such as 8",
            )
        if self.max_acu < max(self.min_acu, 1):
            raise refusal(
                "max_acu",
                self.max_acu,
                f"is below min_acu = {self.min_acu}, or below 1, the least that Aurora allows",
                f"use {max(self.min_acu, 1)} or more",
            )
        return self

    @model_validator(mode="after")
    def _limits(self) -> Self:
        most, why = self._most_connections
        larger = "raise the capacity" if self.serverless else "a larger instance_class"
        if self.max_connections > most:
            raise refusal(
                "max_connections",
                self.max_connections,
                f"is more than {self.instance_class} supports: {why}",
                f"use {most} at most, or {larger}",
            )
        if self.max_storage_gib < 1.1 * self.storage_gib:
            raise refusal(
                "max_storage_gib",
                self.max_storage_gib,
                f"is not 10 % above storage_gib = {self.storage_gib}, as RDS requires",
                f"use {-(-11 * self.storage_gib // 10)} or more",
            )
        maintenance = maintenance_window(self.maintenance_window)
        if any(maintenance.overlaps(backup) for backup in backup_windows(self.backup_window)):
            raise refusal(
                "backup_window",
                self.backup_window,
                f"overlaps maintenance_window = {self.maintenance_window}, which RDS refuses",
                "move one of the two; both are UTC, and the backup runs every day",
            )
        if self.port == 5432:
            raise refusal("port", self.port, "is PostgreSQL's default", "use another one, such as 5433")
        return self

    @property
    def _most_connections(self) -> tuple[int, str]:
        """What each instance may accept, and why."""
        if not self.serverless:
            memory = instance_memory_gib(self.instance_class)
            return memory * CONNECTIONS_PER_GIB, f"{memory} GiB x {CONNECTIONS_PER_GIB}"
        most = int((self.max_acu or 0) * GIB_PER_ACU * CONNECTIONS_PER_GIB)
        if self.min_acu < 1 and most > SMALLEST_SERVERLESS_CONNECTIONS:
            return SMALLEST_SERVERLESS_CONNECTIONS, f"Aurora's limit while min_acu = {self.min_acu}"
        return most, f"max_acu = {self.max_acu} x {GIB_PER_ACU} GiB x {CONNECTIONS_PER_GIB}"


@dataclass(frozen=True)
class Variable:
    """Marks a setting that the server reads from the environment variable `name`."""

    name: str


def _variables(section: Section) -> dict[str, str]:
    """The server's environment variables that these settings set; a switch is `on` or `off`."""
    values = {
        marker.name: getattr(section, setting)
        for setting, field in type(section).model_fields.items()
        for marker in field.metadata
        if isinstance(marker, Variable)
    }
    return {
        name: ("off", "on")[value] if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


class ObjectLockConfig(Section):
    """How long S3 itself refuses to delete a version of what is sealed. Turned on, it stays on."""

    mode: Literal["governance", "compliance"] = Field(
        description="`compliance` cannot be undone: nobody deletes it before, not even the account's root. "
        "`governance`: nobody may bypass it while the bucket's policy stands."
    )
    years: int = Field(ge=1, le=MOST_DAYS // 365, description="Years from the moment of sealing.")

    def __str__(self) -> str:
        """As the server reads it."""
        return f"{self.mode}:{self.years}"


class SealedReplicaConfig(Section):
    """A bucket of yours, in any region or account, to which S3 copies whatever is sealed from now on."""

    bucket_arn: Annotated[
        str,
        matching(
            r"arn:aws[a-z-]*:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
            "is not the ARN of a bucket",
            "write one such as arn:aws:s3:::my-replicas",
        ),
    ] = Field(description="The bucket; versioned, and with Object Lock if `object_lock` is set.")
    key_arn: KeyArn = Field(description="KMS key of the copies, in that bucket's region.")
    account: AccountId | None = Field(
        default=None, description="Account that owns the bucket and shall own the copies, if it is another."
    )

    @model_validator(mode="after")
    def _another_bucket(self) -> Self:
        # As CloudFormation names the bucket of artifacts, this one's or another environment's.
        if re.search(r":mlflowonaws-.+-foundation-artifactsbucket", self.bucket_arn):
            raise refusal(
                "bucket_arn",
                self.bucket_arn,
                "is a bucket of artifacts, which refuses copies under another key than its own",
                "make a bucket for the copies, and name that one",
            )
        return self


class ArtifactsConfig(Section):
    """The bucket of models and run artifacts."""

    prefix: Annotated[
        str,
        matching(
            r"|[a-zA-Z0-9_-]{1,100}(/[a-zA-Z0-9_-]{1,100}){0,4}",
            "is not a prefix",
            "use up to five names of letters, digits, - and _, with / between them only",
        ),
    ] = Field(
        default="",
        description="Key prefix of every artifact, without slashes at its ends; empty for none.",
    )
    key_arn: KeyArn | None = Field(
        default=None, description="KMS key of the artifacts; without it, one is made."
    )
    noncurrent_days: int = Field(
        default=90,
        ge=7,
        le=MOST_DAYS,
        description="Days an overwritten or deleted object stays recoverable before S3 expires it.",
    )
    access_log_days: int = Field(
        default=90,
        ge=7,
        le=MOST_DAYS,
        description="Days to keep access logs of the bucket and of the load balancer.",
    )
    request_metrics: bool = Field(
        default=True,
        description="S3's metrics of requests, and the alarms on its errors and refusals: some $4 a month.",
    )
    break_glass_role_arn: RoleArn | None = Field(
        default=None,
        description="The only role that may delete object versions; without it, nobody may.",
    )
    seal_at: Annotated[Literal["registration", "promotion"], Variable("MLFLOW_AWS_SEAL_AT")] = Field(
        default="registration",
        description="When the server copies a version to `sealed/`: at `registration`, or when a stage or an "
        "alias first names it.",
    )
    object_lock: Annotated[ObjectLockConfig | None, Variable("MLFLOW_AWS_SEAL_LOCK")] = Field(
        default=None, description=ObjectLockConfig.__doc__
    )
    sealed_replica: SealedReplicaConfig | None = Field(default=None, description=SealedReplicaConfig.__doc__)

    @model_validator(mode="after")
    def _a_replica_survives_the_key(self) -> Self:
        if self.sealed_replica is not None and self.sealed_replica.key_arn == self.key_arn:
            raise refusal(
                "sealed_replica.key_arn",
                self.key_arn,
                "is artifacts.key_arn: whoever deletes that key loses the copies too",
                "name another key",
            )
        return self

    @property
    def variables(self) -> dict[str, str]:
        """The server's environment variables that these settings set."""
        return _variables(self)


class CleanupConfig(Section):
    """What becomes of deleted runs, logged models and experiments."""

    deleted_days: int | None = Field(
        default=None,
        ge=1,
        le=MOST_DAYS,
        description="Days after which what was deleted goes for good, looked for daily. Without it, nothing "
        "goes but by `make gc`.",
    )


class ServerConfig(Section):
    """The tracking server's container and how many of them run."""

    architecture: Literal["arm64", "x86_64"] = Field(
        default="arm64", description="Processor of the tasks and of the image: `arm64` costs a fifth less."
    )
    build: Literal["codebuild", "local"] = Field(
        default="codebuild",
        description="Where a deployment builds `server/`: in the account, or `local`, by Docker here.",
    )
    image_uri: (
        Annotated[
            str,
            matching(
                r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+|@sha256:[0-9a-f]{64})",
                "is not an image with a tag or a digest",
                "write one such as registry.example.com/mlflow:1.0",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Image to run, by digest or tag, instead of building `server/` at deployment.",
    )
    registry_secret_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+-[A-Za-z0-9]{6}",
                "is not the whole ARN of a secret",
                "write the ARN that Secrets Manager shows, with the six characters at its end",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Secret with `username` and `password` of the private registry that `image_uri` is in.",
    )
    base_image: (
        Annotated[
            str,
            matching(
                r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?",
                "is not the name of an image",
                "write one such as registry.example.com/python:3.13-slim",
            ),
        ]
        | None
    ) = Field(
        default=None, description="Base image for building `server/` where the public one cannot be pulled."
    )
    cpu: Literal[256, 512, 1024, 2048, 4096, 8192, 16384] = Field(
        description="CPU of a task in units of 1/1024 vCPU."
    )
    memory_mib: int = Field(
        ge=512, le=122880, description="Memory of a task in MiB; must be one that Fargate offers for `cpu`."
    )
    workers: Annotated[int, Variable("MLFLOW_AWS_WORKERS")] = Field(
        default=1, ge=1, le=64, description="Server processes in a task; each needs 512 MiB."
    )
    database_connections: Annotated[int, Variable("MLFLOW_AWS_DATABASE_MAX_CONNECTIONS")] = Field(
        ge=CONNECTIONS_PER_WORKER,
        le=5000,
        description="Database connections one task may open in all; twice the sum of all tasks must fit.",
    )
    min_tasks: int = Field(
        ge=1, le=1000, description="Tasks that always run; 2 or more survive losing a zone."
    )
    max_tasks: int = Field(ge=1, le=1000, description="Tasks that autoscaling may run.")
    migration_hours: int = Field(
        default=4,
        ge=1,
        le=12,
        description="How long a deployment waits for the database's migration before it rolls back.",
    )
    cpu_target_percent: int = Field(
        default=60, ge=20, le=90, description="Average CPU that autoscaling aims for, in percent."
    )
    requests_per_task: int = Field(
        default=3000,
        ge=60,
        le=1_000_000,
        description="Requests per task and minute that autoscaling aims for.",
    )
    spot: bool = Field(
        default=False,
        description="Run on Fargate Spot: a third of the price, and AWS may stop a task with notice.",
    )
    fast_path: Annotated[bool, Variable("MLFLOW_AWS_FAST_PATH")] = Field(
        default=True,
        description="Write metrics in sets rather than row by row; `false` means stock MLflow throughout.",
    )
    ended_runs: Annotated[Literal["author", "anyone"], Variable("MLFLOW_AWS_ENDED_RUNS")] = Field(
        default="author",
        description="Who changes a run that has ended: its author and whoever approves, or all who write."
        " What a registered version rests on stays frozen.",
    )
    requests_in_flight: Annotated[int, Variable("MLFLOW_AWS_REQUESTS_IN_FLIGHT")] = Field(
        default=1000,
        ge=16,
        le=100_000,
        description="Requests of one principal that a task works on at a time; more of them wait.",
    )
    requests_per_minute: Annotated[int, Variable("MLFLOW_AWS_REQUESTS_PER_MINUTE")] = Field(
        default=600_000,
        ge=600,
        le=100_000_000,
        description="Requests per minute of one principal that a task takes; who is faster is slowed down.",
    )
    container_insights: Literal["disabled", "enabled", "enhanced"] = Field(
        default="enabled", description="CloudWatch Container Insights of the cluster, billed by the metric."
    )
    log_days: LogRetentionDays = Field(
        default=30, description="Days to keep the server's logs; a value CloudWatch Logs offers."
    )
    audit_log_days: LogRetentionDays = Field(
        default=365, description="Days to keep the audit log, which outlives the stacks; a value as above."
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.memory_mib not in FARGATE_MEMORY_MIB[self.cpu]:
            raise refusal(
                "memory_mib",
                self.memory_mib,
                f"is not a size that Fargate offers for cpu = {self.cpu}",
                f"use one of {', '.join(map(str, FARGATE_MEMORY_MIB[self.cpu]))}",
            )
        needed = MIB_PER_WORKER * (self.workers + 1)
        if self.memory_mib < needed:
            raise refusal(
                "memory_mib",
                self.memory_mib,
                f"is too little for workers = {self.workers}",
                f"use {needed} or more ({MIB_PER_WORKER} per worker, and once more), or fewer workers",
            )
        if self.registry_secret_arn is not None and self.image_uri is None:
            raise refusal(
                "registry_secret_arn",
                self.registry_secret_arn,
                "is for an image in a private registry, and image_uri names none",
                "set image_uri, or remove registry_secret_arn",
            )
        if self.database_connections < CONNECTIONS_PER_WORKER * self.workers:
            raise refusal(
                "database_connections",
                self.database_connections,
                f"is too little for workers = {self.workers}",
                f"use {CONNECTIONS_PER_WORKER * self.workers} or more, or fewer workers",
            )
        if self.max_tasks < self.min_tasks:
            raise refusal(
                "max_tasks",
                self.max_tasks,
                f"is below min_tasks = {self.min_tasks}",
                "make it at least as large",
            )
        if self.image_uri is not None and self.base_image is not None:
            raise refusal(
                "base_image",
                self.base_image,
                "has no effect: image_uri names an image that is already built",
                "remove one of the two",
            )
        return self

    @property
    def required_connections(self) -> int:
        """What PostgreSQL must accept while a version rolls out at full scale."""
        return ROLLOUT_FACTOR * self.max_tasks * self.database_connections + RESERVED_CONNECTIONS

    @property
    def variables(self) -> dict[str, str]:
        """The server's environment variables that these settings set."""
        return _variables(self)


def _public_addresses(network: IPv4Network) -> int:
    """Count the addresses that somebody on the internet can have."""
    if any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        return 0
    within = (private for private in PRIVATE_NETWORKS if private.subnet_of(network))
    return network.num_addresses - sum(private.num_addresses for private in within)


class IngressConfig(Section):
    """How clients reach the server."""

    domain: DomainName = Field(
        description="Host name of the tracking server; clients use `https://` and this name."
    )
    hosted_zone_id: (
        Annotated[
            str,
            matching(
                r"Z[A-Z0-9]{1,31}", "is not a hosted zone's id", "write one such as Z0123456789ABCDEFGHIJ"
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Route 53 zone for the host name's record, and for its certificate if none is given.",
    )
    hosted_zone_name: DomainName | None = Field(
        default=None, description="Name of that zone: the end of `domain`."
    )
    certificate_arn: CertificateArn | None = Field(
        default=None,
        description="Certificate in ACM; without it, one is requested and validated in the hosted zone.",
    )
    internet_facing: bool = Field(
        default=False,
        description="Give the load balancer public addresses; otherwise only the VPC reaches it.",
    )
    allowed_cidrs: Annotated[tuple[Cidr, ...], Field(strict=False, min_length=1), DISTINCT] = Field(
        description="Networks that may connect to port 443; nobody else can. More public addresses than a "
        "/8 has, in all, have conditions."
    )
    idle_timeout_seconds: int = Field(
        default=60,
        ge=1,
        le=4000,
        description="Seconds after which the load balancer closes a connection on which nothing moves.",
    )
    deletion_protection: bool = Field(
        default=False,
        description="Refuse to delete the load balancer until this is false and deployed. Set it once the "
        "service runs: a first deployment that fails could not be rolled back.",
    )

    @property
    def keep_alive_seconds(self) -> int:
        """How long the server keeps an idle connection: longer than the load balancer, or it answers 502."""
        return self.idle_timeout_seconds + 15

    @property
    def url(self) -> str:
        """What clients use as tracking URI."""
        return f"https://{self.domain}"

    @property
    def open_to_the_internet(self) -> bool:
        """Whether the allowed networks together hold more public addresses than a /8."""
        return sum(map(_public_addresses, collapse_addresses(map(IPv4Network, self.allowed_cidrs)))) > 2**24

    @model_validator(mode="after")
    def _reachable_and_certified(self) -> Self:
        if self.open_to_the_internet and not self.internet_facing:
            raise refusal(
                "allowed_cidrs",
                list(self.allowed_cidrs),
                "is as good as the whole internet, from which nobody reaches an internal load balancer",
                "list the networks of your clients, together no larger than a /8, or set "
                "internet_facing = true",
            )
        if self.certificate_arn is None and self.hosted_zone_id is None:
            raise refusal(
                "certificate_arn",
                None,
                f"is missing, and so is hosted_zone_id: nothing can validate {self.domain}",
                "set certificate_arn, or hosted_zone_id and hosted_zone_name to have a certificate made",
            )
        require_both(self, "hosted_zone_id", "hosted_zone_name")
        zone = self.hosted_zone_name
        if zone is not None and self.domain != zone and not self.domain.endswith(f".{zone}"):
            raise refusal(
                "hosted_zone_name",
                zone,
                f"does not contain domain = {self.domain}",
                "name the zone that the domain ends with",
            )
        return self


class EnvironmentConfig(Section):
    """One file of config/: a whole environment."""

    account: AccountId | None = Field(
        default=None, description="AWS account, 12 digits in quotes; without it, the one of your credentials."
    )
    region: Region | None = Field(
        default=None, description="AWS region; without it, the one of your credentials' profile."
    )
    termination_protection: bool = Field(
        default=True,
        description="CloudFormation refuses to delete the foundation stack (the service stack can go).",
    )
    tags: Annotated[dict[str, str], AfterValidator(_tags)] = Field(
        default_factory=dict, description="Tags for every resource, such as a cost centre."
    )
    permissions_boundary: (
        Annotated[
            str,
            matching(
                r"(arn:aws[a-z-]*:iam::(\d{12}|aws):policy/)?[\w+=,.@/-]{1,512}",
                "is not a managed policy",
                "write its name, or its ARN",
            ),
        ]
        | None
    ) = Field(
        default=None, description="Managed policy, by name or ARN, that limits every role of the stacks."
    )
    log_key_arn: KeyArn | None = Field(
        default=None,
        description="KMS key of every log group and of notifications, whose policy admits CloudWatch Logs, "
        "CloudWatch and EventBridge; without it, one is made.",
    )
    network: NetworkConfig = Field(default_factory=NetworkConfig, description=NetworkConfig.__doc__)
    database: DatabaseConfig = Field(description=DatabaseConfig.__doc__)
    artifacts: ArtifactsConfig = Field(default_factory=ArtifactsConfig, description=ArtifactsConfig.__doc__)
    backup: BackupConfig | None = Field(default=None, description=BackupConfig.__doc__)
    cost: CostConfig | None = Field(default=None, description=CostConfig.__doc__)
    canary: CanaryConfig = Field(default_factory=CanaryConfig, description=CanaryConfig.__doc__)
    cleanup: CleanupConfig = Field(default_factory=CleanupConfig, description=CleanupConfig.__doc__)
    server: ServerConfig = Field(description=ServerConfig.__doc__)
    ingress: IngressConfig = Field(description=IngressConfig.__doc__)
    events: EventsConfig = Field(default_factory=EventsConfig, description=EventsConfig.__doc__)
    monitoring: MonitoringConfig = Field(
        default_factory=MonitoringConfig, description=MonitoringConfig.__doc__
    )
    identity: IdentityConfig = Field(default_factory=IdentityConfig, description=IdentityConfig.__doc__)
    waf: WafConfig | None = Field(default=None, description=WafConfig.__doc__)

    @model_validator(mode="after")
    def _public_addresses_have_subnets(self) -> Self:
        existing = self.network.existing
        if self.ingress.internet_facing and existing and not existing.public_subnet_ids:
            raise refusal(
                "network.existing.public_subnet_ids",
                None,
                "is missing, and ingress.internet_facing = true",
                "list one public subnet for each zone, or set internet_facing = false",
            )
        return self

    @model_validator(mode="after")
    def _a_replica_in_another_account(self) -> Self:
        replica = self.artifacts.sealed_replica
        if replica is not None and replica.account is not None and replica.account == self.account:
            raise refusal(
                "artifacts.sealed_replica.account",
                replica.account,
                "is the deployment's own account, which owns the copies anyway",
                "remove it",
            )
        return self

    @model_validator(mode="after")
    def _the_second_region_is_another(self) -> Self:
        recovery = self.backup.recovery if self.backup else None
        if recovery is None:
            return self
        if self.region is None:
            raise refusal(
                "region",
                None,
                "is missing, and backup.recovery.region must be another",
                "write the region of the deployment",
            )
        if recovery.region == self.region or partitions()[recovery.region] != partitions()[self.region]:
            raise refusal(
                "backup.recovery.region",
                recovery.region,
                f"is region = {self.region} itself, or in another partition",
                "choose another region of the same partition, or remove [backup.recovery]",
            )
        return self

    @model_validator(mode="after")
    def _everything_is_where_the_region_is(self) -> Self:
        if self.region is None:
            return self
        partition = partitions()[self.region]
        if self.identity.sign_in_domain is not None and partition == "aws-us-gov":
            raise refusal(
                "identity.sign_in_domain",
                self.identity.sign_in_domain,
                f"is not possible in region = {self.region}: Cognito has no domains of one's own in GovCloud",
                "remove it, and sign_in_certificate_arn",
            )
        for key, text in texts(self.model_dump()):
            if text.startswith("arn:") and text.split(":")[1] != partition:
                raise refusal(
                    key,
                    text,
                    f"is in another partition than region = {self.region}",
                    f"name one that begins with arn:{partition}:",
                )
        certificate = self.ingress.certificate_arn
        if certificate is not None and certificate.split(":")[3] != self.region:
            raise refusal(
                "ingress.certificate_arn",
                certificate,
                f"is in another region than region = {self.region}, where the load balancer needs it",
                f"request or import a certificate in {self.region}",
            )
        existing = self.network.existing
        for zone in existing.availability_zones if existing else self.network.zone_names:
            if not zone.startswith(self.region):
                raise refusal(
                    "network.existing.availability_zones" if existing else "network.zone_names",
                    zone,
                    f"is not in region = {self.region}",
                    f"name zones such as {self.region}a",
                )
        return self

    @model_validator(mode="after")
    def _the_internet_is_checked_at_the_edge(self) -> Self:
        """Without that check, anyone who writes `Bearer` into a header reaches the server itself."""
        if self.ingress.open_to_the_internet and not self.identity.edge_jwt_check:
            raise refusal(
                "identity.edge_jwt_check",
                False,
                f"would let anyone in {', '.join(self.ingress.allowed_cidrs)} reach the server with an "
                "unchecked token",
                "leave it on, or list the networks of your clients in ingress.allowed_cidrs, together no "
                "larger than a /8",
            )
        return self

    @model_validator(mode="after")
    def _every_role_can_prove_itself(self) -> Self:
        """Tokens of an account without a trusted issuer would be refused, whatever `iam_roles` says.

        Without `account`, one such account is taken for the deployment's.
        """
        identity = self.identity
        if self.account in {each.account for each in identity.trusted_issuers}:
            raise refusal(
                "identity.trusted_issuers.account",
                self.account,
                "is the deployment's own account, which is trusted anyway",
                "remove it; an issuer that is enabled already goes into identity.token_issuer",
            )
        others = {key: where for key, where in identity.untrusted_members.items() if key != self.account}
        if len(others) > (self.account is None):
            role, arn = list(others.values())[-1]
            raise refusal(
                f"identity.roles.{role}.iam_roles",
                arn,
                f"is a role outside account {self.account}, so that its tokens would be refused"
                if self.account
                else f"is outside account {next(iter(others))}, which other roles name: one of the two is "
                "not the deployment's, and its tokens would be refused",
                f"add [[identity.trusted_issuers]] for {account_of(arn)}, or correct it"
                if self.account
                else "set account, and add [[identity.trusted_issuers]] for every other account",
            )
        return self

    @model_validator(mode="after")
    def _overload_is_impossible(self) -> Self:
        """Even while a version rolls out at full scale, every task gets every connection it may open."""
        server, available = self.server, self.database.max_connections - RESERVED_CONNECTIONS
        demand = server.required_connections - RESERVED_CONNECTIONS
        if demand > available:
            fitting = available // (ROLLOUT_FACTOR * server.max_tasks)
            raise refusal(
                "server.database_connections",
                server.database_connections,
                f"can overload the database: a rollout of {ROLLOUT_FACTOR} x {server.max_tasks} tasks needs "
                f"{demand} connections; database.max_connections = {self.database.max_connections} "
                f"leaves {available}",
                f"use {fitting} at most, fewer max_tasks, or more max_connections",
            )
        return self
