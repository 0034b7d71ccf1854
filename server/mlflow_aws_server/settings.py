"""The container's configuration: environment variables in, frozen settings or one clear error out."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from mlflow_aws_server.limits import REQUESTS_IN_FLIGHT, REQUESTS_PER_MINUTE

DEFAULT_CA_FILE = "/etc/ssl/rds/global-bundle.pem"
DEFAULT_MAX_CONNECTIONS = 40

# PostgreSQL quotes any name; a plain one also fits an IAM policy, a URL and a log line unchanged.
_ROLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ON_OFF = {"on": True, "off": False}

_PREFIX = "MLFLOW_AWS_"
VARIABLES = frozenset(
    _PREFIX + name
    for name in (
        "ARTIFACT_ROOT", "AUDIT_PIPE", "BIND", "DATABASE_ARN", "DATABASE_CA_FILE", "DATABASE_HOST",
        "DATABASE_MAX_CONNECTIONS", "DATABASE_MIGRATOR", "DATABASE_NAME", "DATABASE_PORT",
        "DATABASE_READER_HOST", "DATABASE_REQUIRED_CONNECTIONS", "DATABASE_USER", "DEPLOYMENT", "ENDED_RUNS",
        "EVENT_BUS_ARN", "RESTORED_FROM",
        "ENVIRONMENT", "FAST_PATH", "KEEP_ALIVE_SECONDS", "MASTER_SECRET_ARN", "PORT", "PUBLIC_URL",
        "REQUESTS_IN_FLIGHT", "REQUESTS_PER_MINUTE", "ROLES",
        "SEAL_AT", "SEAL_LOCK", "SNAPSHOT_HOURS", "TOKEN_AUDIENCE", "TOKEN_ISSUERS", "USER_POOL_CLIENT_ID",
        "USER_POOL_ISSUER", "WEBHOOK_KEY_ARN", "WORKERS",
    )
)  # fmt: skip
"""All settings of all commands; any other variable that begins with `MLFLOW_AWS_` is refused."""

# The longest value that an error quotes: a mapping of roles can fill a screen.
_LONGEST_QUOTE = 300

# AnyIO's own limit, which MLflow is used to.
_MOST_THREADS = 40
_FEWEST_THREADS = 2
# Readiness, a promotion's lock, a seal's lock, and short questions.
_OWN = 4


class SettingsError(ValueError):
    """The environment variables are wrong; the message says which, what is wrong, and the remedy."""


class VariableError(SettingsError):
    """One environment variable is missing or wrong; the message names it, its value and the remedy."""

    def __init__(self, *, variable: str, value: str | None, problem: str, remedy: str) -> None:
        if value is not None and len(value) > _LONGEST_QUOTE:
            value = value[:_LONGEST_QUOTE] + "…"
        seen = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{variable} {seen}: {problem}. {remedy}")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the database is, and which certificate authorities sign its certificate."""

    host: str
    port: int
    name: str
    ca_file: Path
    region: str


@dataclass(frozen=True, kw_only=True)
class Connections:
    """How one worker process divides its share of database connections.

    MLflow's `log_batch` holds two connections at once, so a pool with fewer than two per thread can
    deadlock on itself; `threads` therefore follows from the pools, not the other way round.
    """

    threads: int
    pool_size: int
    max_overflow: int
    fast_path: int
    reader: int

    @classmethod
    def divide(cls, *, total: int, workers: int, fast_path: bool, reader: bool = False) -> Connections:
        """Divide `total` connections of a task among its workers.

        MLflow keeps two engines (tracking, registry) with pools of the same settings; together they
        hold at most 2 x threads connections in use and `pool_size` idle ones. Four more are for
        readiness, for a promotion and a seal, which lock their model with one each, and for what provenance
        asks. Those to a reader count like the others: without a reader left, its address leads to the writer.

        Raises:
            ValueError: a worker would get too few for two threads; the message says how many are needed.
        """
        share = total // workers
        for_fast_path = max(2, min(20 if reader else 10, (share - 2) // 4)) if fast_path else 0
        for_reader = for_fast_path // 2 if reader else 0
        for_mlflow = share - for_fast_path - _OWN
        idle = 2 if for_mlflow < 20 else 4
        threads = min(_MOST_THREADS, (for_mlflow - idle) // 2)
        if threads < _FEWEST_THREADS:
            least = workers * (2 * _FEWEST_THREADS + 2 + _OWN + (2 if fast_path else 0))
            raise ValueError(f"{workers} worker(s) need at least {least} connections")
        return cls(
            threads=threads,
            pool_size=idle,
            max_overflow=2 * threads - idle,
            fast_path=for_fast_path - for_reader,
            reader=for_reader,
        )


@dataclass(frozen=True, kw_only=True)
class ObjectLock:
    """For how long S3 lets nobody delete a sealed object: `governance` or `compliance`."""

    mode: str
    years: int


@dataclass(frozen=True, kw_only=True)
class SealSettings:
    """When versions are sealed, and under which artifact root."""

    root: str
    region: str
    at_registration: bool
    lock: ObjectLock | None


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What `serve` and the ASGI application need."""

    database: DatabaseSettings
    reader: DatabaseSettings | None
    database_user: str
    artifact_root: str
    sealing: SealSettings
    public_url: str
    bind: str
    port: int
    workers: int
    max_connections: int
    connections: Connections
    fast_path: bool
    ended_runs_by_author: bool
    # Of one principal, in this task.
    requests_in_flight: int
    requests_per_minute: int
    keep_alive_seconds: int
    # Without one, audit lines go to standard output.
    audit_pipe: Path | None
    # As metrics name it; without a name no metrics are written.
    deployment: str | None
    # Without one, MLflow makes a key of its own in each process.
    webhook_key_arn: str | None
    # Without one, there are no events.
    event_bus_arn: str | None

    @property
    def public_host(self) -> str:
        """The host name, with its port if the public URL has one, as a browser sends it in `Host`."""
        return urlsplit(self.public_url).netloc

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        workers = read.integer("MLFLOW_AWS_WORKERS", default=_default_workers(), least=1, most=64)
        max_connections = read.integer(
            "MLFLOW_AWS_DATABASE_MAX_CONNECTIONS", default=DEFAULT_MAX_CONNECTIONS, least=1, most=10_000
        )
        fast_path = read.switch("MLFLOW_AWS_FAST_PATH", default=True)
        database = _database(read)
        reader = _reader(read, database)
        artifact_root = _artifact_root(read)
        try:
            connections = Connections.divide(
                total=max_connections, workers=workers, fast_path=fast_path, reader=reader is not None
            )
        except ValueError as error:
            raise VariableError(
                variable="MLFLOW_AWS_DATABASE_MAX_CONNECTIONS",
                value=str(max_connections),
                problem=str(error),
                remedy="Raise it, or lower MLFLOW_AWS_WORKERS.",
            ) from None
        return cls(
            database=database,
            reader=reader,
            database_user=read.role("MLFLOW_AWS_DATABASE_USER"),
            artifact_root=artifact_root,
            sealing=_sealing(read, root=artifact_root, region=database.region),
            public_url=public_url(read),
            bind=read.text("MLFLOW_AWS_BIND", default="0.0.0.0"),  # noqa: S104 - the security group decides
            port=read.integer("MLFLOW_AWS_PORT", default=5000, least=1, most=65535),
            workers=workers,
            max_connections=max_connections,
            connections=connections,
            fast_path=fast_path,
            ended_runs_by_author=_ended_runs_by_author(read),
            requests_in_flight=read.integer(
                "MLFLOW_AWS_REQUESTS_IN_FLIGHT", default=REQUESTS_IN_FLIGHT.most, least=16, most=100_000
            ),
            requests_per_minute=read.integer(
                "MLFLOW_AWS_REQUESTS_PER_MINUTE",
                default=REQUESTS_PER_MINUTE.most,
                least=600,
                most=100_000_000,
            ),
            # Longer than the load balancer's 60 seconds, or it would send a request into a closed connection.
            keep_alive_seconds=read.integer("MLFLOW_AWS_KEEP_ALIVE_SECONDS", default=75, least=2, most=4015),
            audit_pipe=Path(pipe) if (pipe := read.optional("MLFLOW_AWS_AUDIT_PIPE")) else None,
            deployment=read.optional("MLFLOW_AWS_DEPLOYMENT"),
            webhook_key_arn=_secret(read, "MLFLOW_AWS_WEBHOOK_KEY_ARN", expected="the ARN of a secret")
            if read.optional("MLFLOW_AWS_WEBHOOK_KEY_ARN")
            else None,
            event_bus_arn=read.matching(
                "MLFLOW_AWS_EVENT_BUS_ARN",
                re.compile(r"arn:[\w-]+:events:[\w-]+:\d{12}:event-bus/\S+"),
                expected="the ARN of an event bus",
            )
            if read.optional("MLFLOW_AWS_EVENT_BUS_ARN")
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class MigrationSettings:
    """What `migrate` needs."""

    database: DatabaseSettings
    migrator: str
    server_user: str
    master_secret_arn: str
    artifact_root: str
    # What all tasks may open, in all.
    required_connections: int
    # As `make … ENV=` names it.
    environment: str
    deployment: str
    # Of what a snapshot is taken: an instance or a cluster; None if none is wanted.
    database_arn: str | None
    snapshot_hours: int
    # The snapshot that the database was made of, or a moment of another one.
    restored_from: str | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> MigrationSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        migrator = read.role("MLFLOW_AWS_DATABASE_MIGRATOR", default="mlflow_migrator")
        server_user = read.role("MLFLOW_AWS_DATABASE_USER", default="mlflow_server")
        if migrator == server_user:
            raise VariableError(
                variable="MLFLOW_AWS_DATABASE_MIGRATOR",
                value=migrator,
                problem="the server must not own the schema",
                remedy="Name a role other than MLFLOW_AWS_DATABASE_USER.",
            )
        return cls(
            database=_database(read),
            migrator=migrator,
            server_user=server_user,
            master_secret_arn=_secret(
                read,
                "MLFLOW_AWS_MASTER_SECRET_ARN",
                expected="the ARN of the secret that RDS keeps for its master user",
            ),
            artifact_root=_artifact_root(read),
            required_connections=read.integer(
                "MLFLOW_AWS_DATABASE_REQUIRED_CONNECTIONS", default=1, least=1, most=100_000
            ),
            environment=read.text("MLFLOW_AWS_ENVIRONMENT", default="dev"),
            deployment=read.text("MLFLOW_AWS_DEPLOYMENT", default="local"),
            database_arn=read.matching(
                "MLFLOW_AWS_DATABASE_ARN",
                re.compile(r"arn:[\w-]+:rds:[\w-]+:\d{12}:(db|cluster):[A-Za-z0-9-]+"),
                expected="the ARN of an RDS instance or an Aurora cluster",
            )
            if read.optional("MLFLOW_AWS_DATABASE_ARN")
            else None,
            snapshot_hours=read.integer("MLFLOW_AWS_SNAPSHOT_HOURS", default=1, least=1, most=12),
            restored_from=read.optional("MLFLOW_AWS_RESTORED_FROM"),
        )


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What `import` needs."""

    database: DatabaseSettings
    migrator: str
    artifact_root: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ImportSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        return cls(
            database=_database(read),
            migrator=read.role("MLFLOW_AWS_DATABASE_MIGRATOR", default="mlflow_migrator"),
            artifact_root=_artifact_root(read),
        )


@dataclass(frozen=True, kw_only=True)
class CleanupSettings:
    """What `gc` needs."""

    database: DatabaseSettings
    database_user: str
    artifact_root: str
    # An object can be under legal hold only where the bucket has Object Lock.
    holds: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> CleanupSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        database, root = _database(read), _artifact_root(read)
        return cls(
            database=database,
            database_user=read.role("MLFLOW_AWS_DATABASE_USER"),
            artifact_root=root,
            holds=_sealing(read, root=root, region=database.region).lock is not None,
        )


@dataclass(frozen=True, kw_only=True)
class DrillSettings:
    """What `drill` needs."""

    database: DatabaseSettings
    server_user: str
    artifact_root: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> DrillSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable is missing or wrong.
        """
        read = EnvironmentReader(environ)
        return cls(
            database=_database(read),
            server_user=read.role("MLFLOW_AWS_DATABASE_USER", default="mlflow_server"),
            artifact_root=_artifact_root(read),
        )


class EnvironmentReader:
    """Typed access to environment variables; an empty variable counts as unset.

    Its methods raise `SettingsError` for a variable that is missing or wrong.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Check that every `MLFLOW_AWS_` variable in `environ` is a setting.

        Raises:
            SettingsError: some are not; most likely they are misspelt.
        """
        unknown = sorted(name for name in environ if name.startswith(_PREFIX) and name not in VARIABLES)
        if unknown:
            # Not their values: a misspelt variable may hold anything, a secret too.
            raise SettingsError(
                f"{', '.join(map(_with_nearest, unknown))}: the server has no such setting. "
                "Correct the name, or remove the variable."
            )
        self._environ = environ

    def optional(self, variable: str) -> str | None:
        """The value, or None if it is not set."""
        return self._environ.get(variable, "").strip() or None

    def text(self, variable: str, *, default: str | None = None) -> str:
        """The value, or `default`."""
        value = self.optional(variable) or default
        if value is None:
            raise VariableError(
                variable=variable,
                value=None,
                problem="it is required",
                remedy="Set it in the task definition.",
            )
        return value

    def matching(
        self, variable: str, pattern: re.Pattern[str], *, expected: str, default: str | None = None
    ) -> str:
        """The value, which must match `pattern`; the error says what was `expected`."""
        value = self.text(variable, default=default)
        if not pattern.fullmatch(value):
            raise VariableError(
                variable=variable, value=value, problem="it is malformed", remedy=f"Expected {expected}."
            )
        return value

    def role(self, variable: str, *, default: str | None = None) -> str:
        """The name of a database role."""
        return self.matching(
            variable,
            _ROLE_NAME,
            expected="a database role: lower-case letters, digits and underscores",
            default=default,
        )

    def integer(self, variable: str, *, default: int | None = None, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self.text(variable, default=None if default is None else str(default))
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
            raise VariableError(
                variable=variable,
                value=value,
                problem="it is not a number or out of range",
                remedy=f"Expected a whole number from {least} to {most}.",
            )
        return int(value)

    def switch(self, variable: str, *, default: bool) -> bool:
        """A switch: `on` or `off`."""
        value = self.text(variable, default="on" if default else "off").lower()
        if value not in _ON_OFF:
            raise VariableError(
                variable=variable, value=value, problem="it is not a switch", remedy="Expected `on` or `off`."
            )
        return _ON_OFF[value]


def _with_nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name, VARIABLES, n=1)
    return f"{name} (did you mean {nearest[0]}?)" if nearest else name


def _database(read: EnvironmentReader) -> DatabaseSettings:
    ca_file = Path(read.text("MLFLOW_AWS_DATABASE_CA_FILE", default=DEFAULT_CA_FILE))
    if not ca_file.is_file():
        raise VariableError(
            variable="MLFLOW_AWS_DATABASE_CA_FILE",
            value=str(ca_file),
            problem="there is no such file",
            remedy="Name the PEM file with the certificate authorities of Amazon RDS; the image carries one.",
        )
    variable = "AWS_REGION" if read.optional("AWS_REGION") else "AWS_DEFAULT_REGION"
    if read.optional(variable) is None:
        variable = "AWS_REGION"
    return DatabaseSettings(
        host=_host(read, "MLFLOW_AWS_DATABASE_HOST"),
        port=read.integer("MLFLOW_AWS_DATABASE_PORT", default=5432, least=1, most=65535),
        name=read.matching(
            "MLFLOW_AWS_DATABASE_NAME",
            re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}"),
            expected="a database name: letters, digits and underscores",
            default="mlflow",
        ),
        ca_file=ca_file,
        region=read.matching(variable, re.compile(r"[a-z0-9-]+"), expected="an AWS region such as eu-west-1"),
    )


def _reader(read: EnvironmentReader, database: DatabaseSettings) -> DatabaseSettings | None:
    """The same database, at the address of its readers, if there are any."""
    variable = "MLFLOW_AWS_DATABASE_READER_HOST"
    if read.optional(variable) is None:
        return None
    return replace(database, host=_host(read, variable))


def _host(read: EnvironmentReader, variable: str) -> str:
    return read.matching(
        variable,
        re.compile(r"[A-Za-z0-9._-]+|[0-9a-fA-F:]+"),
        expected="a host name without scheme or port",
    )


def _secret(read: EnvironmentReader, variable: str, *, expected: str) -> str:
    arn = re.compile(r"arn:[\w-]+:secretsmanager:[\w-]+:\d{12}:secret:\S+")
    return read.matching(variable, arn, expected=expected)


def _artifact_root(read: EnvironmentReader) -> str:
    return read.matching(
        "MLFLOW_AWS_ARTIFACT_ROOT",
        re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?"),
        expected="s3://BUCKET or s3://BUCKET/PREFIX",
    )


def _sealing(read: EnvironmentReader, *, root: str, region: str) -> SealSettings:
    at = read.matching(
        "MLFLOW_AWS_SEAL_AT",
        re.compile(r"registration|promotion"),
        expected="`registration` or `promotion`",
        default="registration",
    )
    lock = None
    if read.optional("MLFLOW_AWS_SEAL_LOCK") is not None:
        mode, _, years = read.matching(
            "MLFLOW_AWS_SEAL_LOCK",
            re.compile(r"(governance|compliance):([1-9][0-9]?|100)"),
            expected="`governance:YEARS` or `compliance:YEARS`, from 1 to 100 years",
        ).partition(":")
        lock = ObjectLock(mode=mode, years=int(years))
    return SealSettings(root=root, region=region, at_registration=at == "registration", lock=lock)


def _ended_runs_by_author(read: EnvironmentReader) -> bool:
    who = read.matching(
        "MLFLOW_AWS_ENDED_RUNS",
        re.compile(r"author|anyone"),
        expected="`author` or `anyone`",
        default="author",
    )
    return who == "author"


def public_url(read: EnvironmentReader) -> str:
    """Where clients and browsers reach this server, without a slash at the end.

    Raises:
        SettingsError: the variable is missing or wrong.
    """
    return read.matching(
        "MLFLOW_AWS_PUBLIC_URL",
        re.compile(r"https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?/?"),
        expected="https://HOST in lower case, without a path",
    ).rstrip("/")


def _default_workers() -> int:
    return min(8, os.cpu_count() or 1)
