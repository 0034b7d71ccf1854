"""The platform: its parts, the order in which they start, and how they end."""

from __future__ import annotations

import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from findings.finding import PASSED, Mark, counted, exit_code
from local import demo_roles, demo_users
from local.deployment import Stack, bootstrap, deploy, stack_names
from local.edge import snapshot
from local.emulator.settings import EmulatorSettings
from local.environment import ClientEnvironment, clean
from local.parts import ports
from local.parts.aws import Aws
from local.parts.backups import ARCHIVING
from local.parts.certificates import CertificateAuthority, ServerCertificate
from local.parts.postgres import Postgres, state_directory
from local.parts.processes import Ledger
from local.parts.progress import Progress
from local.parts.rds import SOCKET_RULES
from local.recorded import told
from local.state import PROJECT, SUPERVISOR_LOG, VENVS, State
from local.synthesis import DOMAIN, IMAGE, Synthesis
from verify_account.verify import verify

REGION = "eu-central-1"
ACCOUNT = "000000000000"
# Another account of the emulator, whose tokens the deployment trusts.
PARTNER = "222233334444"
HOST = "localhost"
STEPS = 10
_CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/10ca1000-0000-4000-8000-000000000001"
_PREFERRED_PORTS = {
    "tracking": 8443, "aws": 4566, "database": 5433, "sign-in": 8444, "issuer": 8445, "partner-issuer": 8446,
}  # fmt: skip
_EMULATOR_SECONDS = 60.0
_HEALTHY_SECONDS = 180.0
# Task changes are seen at once, changes of the listener's rules within this time.
_LOOK_AGAIN_SECONDS = 15.0
# With its directory, a Unix socket's name must fit into 104 bytes (macOS) or 108 (Linux).
_LONGEST_SOCKET = 100
_SOCKET = Path("run", ".s.PGSQL.5432")
_NEEDED_BYTES = 500 * 1024 * 1024


class PlatformError(RuntimeError):
    """A part did not start, or ended by itself; the message says which, and what to do."""


@dataclass
class Platform:
    """A laptop's AWS with the stacks deployed on it: `start`, `refresh` from time to time, `stop`."""

    state: State
    progress: Progress
    only_recorded: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    _ports: dict[str, int] = field(default_factory=dict)
    _guard: subprocess.Popen[bytes] | None = None
    _postgres: Postgres | None = None
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _certificates: dict[str, ServerCertificate] = field(default_factory=dict)
    _database_directory: Path = Path()
    _aws: Aws | None = None
    _load_balancer: str = ""
    _settled: dict[str, str] | None = None
    _look_again: float = 0.0
    _outputs: dict[str, str] = field(default_factory=dict)

    @property
    def tracking_url(self) -> str:
        """Where the UI and the API are."""
        return f"https://{HOST}:{self._ports['tracking']}"

    @property
    def sign_in_url(self) -> str:
        """Where people sign in, and where the user pool's keys are."""
        return f"https://{HOST}:{self._ports['sign-in']}"

    @property
    def database_port(self) -> int:
        """Where the door of the RDS instance is."""
        return self._ports["database"]

    @property
    def postgres(self) -> Postgres:
        """What is behind that door."""
        assert self._postgres is not None  # noqa: S101 - started before
        return self._postgres

    @property
    def _ledger(self) -> Ledger:
        return self.state.ledger

    def start(self) -> None:
        """Bring everything up; returns when the tracking server answers through the load balancer.

        Raises:
            PlatformError, DeploymentError, SynthesisError, PostgresError: a part failed; the message says
                what to do. The caller stops the platform then.
        """
        self._begin()
        with ThreadPoolExecutor(max_workers=3) as parts:
            synthesized = parts.submit(self._synthesize)
            self._issue_certificates()
            database = parts.submit(self._start_postgres)
            emulator = parts.submit(self._start_emulator)
            try:
                assembly, supported = _all_of(synthesized, emulator, database)
            except BaseException:
                # The other parts may be waiting for something that will not come.
                self._ledger.end_all()
                raise
        self.serve(self._deploy(assembly, supported))

    def start_account(self) -> None:
        """Bring up an empty account, for whoever deploys by other means and calls `serve` then."""
        self._begin()
        self._issue_certificates()
        self._start_postgres()
        self._start_emulator()

    def configure(self, synthesis: Synthesis) -> None:
        """Write the configuration of a deployment to this account."""
        synthesis.configure(
            database_port=self._ports["database"],
            certificate_arn=_CERTIFICATE,
            members={
                role: [demo_roles.arn(role, account_id=each) for each in (ACCOUNT, PARTNER)]
                for role in demo_roles.ROLES
            },
            trusted={PARTNER: f"https://{HOST}:{self._ports['partner-issuer']}"},
        )

    def serve(self, service: Stack, *, aws: Aws | None = None) -> None:
        """Put the load balancer and the people in front of a deployed service; returns when it is healthy.

        `aws` is the root of its account and region, if they are not the platform's.
        """
        self._aws = aws or account(self.state)
        self._load_balancer = service.of_type("AWS::ElasticLoadBalancingV2::LoadBalancer")[0]
        self._outputs = dict(service.outputs)
        self._start_balancer()
        self._verify()
        self._admit(service)
        self._wait_until_healthy()
        self.refresh()

    def stop_serving(self) -> None:
        """Take the load balancer away, so that the service can go."""
        self.state.endpoints.unlink(missing_ok=True)
        self._end_child("load-balancer")
        self._load_balancer, self._settled = "", None

    def refresh(self) -> None:
        """Bring the load balancer and endpoints.json up to date with what runs now."""
        if not self._load_balancer:
            return
        addresses = {str(key): str(value) for key, value in State.read(self._address_book).items()}
        if addresses == self._settled and time.monotonic() < self._look_again:
            return
        taken = snapshot.take(self._api(), self._load_balancer, addresses)
        snapshot.write_if_changed(self._snapshot, taken)
        targets = {
            key: at for group in taken["target_groups"].values() for key, at in group["targets"].items()
        }
        # A task is registered shortly after it starts; until then, ask again at once.
        self._settled = targets if targets == addresses else None
        self._look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
        if targets:
            self._write_endpoints(server_url=f"http://{next(iter(targets.values()))}")

    def failed_part(self) -> str | None:
        """The part that ended by itself, with the end of its log; None if all run."""
        for name, child in self._children.items():
            if child.poll() is not None:
                return f"{name} ended by itself, code {child.returncode}; the end of its log:\n" + _tail(
                    self.state.logs / f"{name}.log"
                )
        if self._postgres is not None and self._postgres.pid is None:
            return "PostgreSQL ended by itself; the end of its log:\n" + _tail(self._postgres.log)
        return None

    def client_environment(self, role: str = demo_roles.DEFAULT) -> ClientEnvironment:
        """What a client with this role needs, with fresh temporary credentials and a fresh token."""
        return client_environment(self.state, role)

    def stop(self) -> None:
        """End every part in order, then whatever is left. May be called at any time, and repeatedly."""
        self.state.endpoints.unlink(missing_ok=True)
        for name in ("load-balancer", "emulator"):
            self._end_child(name)
        if self._postgres is not None:
            pid = self._postgres.pid
            self._postgres.stop()
            if pid is not None:
                self._ledger.remove(pid)
        self._ledger.end_all()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(30)
            self._guard = None
        self.state.clean()

    # -- parts -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._end_what_is_left()
        self._start_guard()
        self._choose_ports()
        self._choose_database_directory()

    def _end_what_is_left(self) -> None:
        ended = self._ledger.end_all()
        if ended:
            self.progress.note(
                f"ended {len(ended)} processes that an earlier run left: "
                + ", ".join(f"{each.what} ({each.pid})" for each in ended)
            )
        self.state.clean()
        self.state.prepare()
        for log in self.state.logs.glob("*.log"):
            if log.name != SUPERVISOR_LOG:
                log.unlink()
        status = os.statvfs(self.state.directory)
        if (free := status.f_bavail * status.f_frsize) < _NEEDED_BYTES:
            raise PlatformError(
                f"{free // 2**20} MiB are free on the disk of {self.state.directory}, and "
                f"{_NEEDED_BYTES // 2**20} MiB are needed: make room there"
            )

    def _start_guard(self) -> None:
        self._guard = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "local.parts.guard",
                str(self._ledger.directory),
                str(self.state.endpoints),
            ],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean(),
            start_new_session=True,
        )

    def _choose_ports(self) -> None:
        remembered = State.read(self.state.ports)
        self._ports = ports.choose(_PREFERRED_PORTS, remembered)
        self.state.write(self.state.ports, self._ports)
        for name, port in self._ports.items():
            if port != remembered.get(name, _PREFERRED_PORTS[name]):
                before = remembered.get(name, _PREFERRED_PORTS[name])
                self.progress.note(f"port {before} is taken: {name} uses {port}")

    def _choose_database_directory(self) -> None:
        directory = state_directory(self.state.directory, "postgres")
        reachable = directory.is_relative_to(self.state.directory)
        if not reachable or len(str(directory / _SOCKET)) > _LONGEST_SOCKET:
            directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-")) / "postgres"
            directory.parent.chmod(0o711)
        self._database_directory = directory
        self.state.write(self.state.run / "postgres.json", {"directory": str(directory)})

    def _issue_certificates(self) -> None:
        with self.progress.step(
            "Certificate authority, certificates for the database, the load balancer and identity"
        ):
            authority = CertificateAuthority.create(self.state.authority, name="MLflow on AWS, local")
            self._certificates = {
                "database": authority.issue(HOST, "127.0.0.1", name="database"),
                "tracking": authority.issue(HOST, DOMAIN, "127.0.0.1", name="tracking"),
                "identity": authority.issue(HOST, name="identity"),
            }

    def _synthesize(self) -> Path:
        with self.progress.step("Synthesize the stacks") as remark:
            synthesis = Synthesis(
                project=PROJECT,
                output=self.state.directory / "cdk.out",
                configuration=self.state.directory / "demo.toml",
            )
            self.configure(synthesis)
            if not synthesis.run(self._ledger):
                remark("unchanged since the last time")
        return synthesis.output

    def _start_postgres(self) -> None:
        with self.progress.step("PostgreSQL 18"):
            # No TCP: the front door is the only way in.
            postgres = Postgres(
                directory=self._database_directory,
                port=5432,
                host="",
                socket_hba=SOCKET_RULES,
                # Or CloudWatch's latencies are 0.
                settings={**ARCHIVING, "track_io_timing": "on"},
            )
            postgres.create()
            postgres.start()
            self._postgres = postgres
            assert postgres.pid is not None  # noqa: S101 - it has just started
            self._ledger.add(postgres.pid, "PostgreSQL", signal_number=2, patience=20)

    def _start_emulator(self) -> list[str]:
        certificate, identity = self._certificates["database"], self._certificates["identity"]
        with self.progress.step("AWS API (MiniStack) that enforces IAM") as remark:
            state = self.state.run / "emulator"
            state.mkdir(mode=0o700)
            server = VENVS / "server" / "bin"
            settings = EmulatorSettings(
                port=self._ports["aws"],
                region=REGION,
                account_id=ACCOUNT,
                state=str(state),
                logs=str(self.state.logs),
                ledger=str(self._ledger.directory),
                address_book=str(self._address_book),
                balancer_metrics=str(self._balancer_metrics),
                function_python=sys.executable,
                image=IMAGE,
                image_entrypoint=(str(server / "python"), "-m", "mlflow_aws_server"),
                image_environment={
                    "PATH": f"{server}:/usr/local/bin:/usr/bin:/bin",
                    "PYTHONUNBUFFERED": "1",
                    # The image has Amazon RDS's authorities instead.
                    "MLFLOW_AWS_DATABASE_CA_FILE": str(self.state.authority / "ca.pem"),
                    # The image has the public authorities, which prove the token issuer and the user pool.
                    "SSL_CERT_FILE": str(self.state.authority / "ca.pem"),
                    "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.state.authority / "ca.pem"),
                },
                database_host=HOST,
                database_port=self._ports["database"],
                database_certificate=str(certificate.certificate),
                database_key=str(certificate.key),
                database_directory=str(self._database_directory),
                issuer_ports={ACCOUNT: self._ports["issuer"], PARTNER: self._ports["partner-issuer"]},
                sign_in_port=self._ports["sign-in"],
                identity_certificate=str(identity.certificate),
                identity_key=str(identity.key),
                # On a laptop, only root may listen on port 443.
                task_environment={"MLFLOW_AWS_PUBLIC_URL": self.tracking_url},
                public_urls={f"https://{DOMAIN}": self.tracking_url},
                certificates={_CERTIFICATE: DOMAIN},
            )
            file = self.state.run / "emulator.json"
            settings.write(file)
            root = {
                "access_key": f"ASIAROOT{secrets.token_hex(6).upper()}",
                "secret_key": secrets.token_urlsafe(30),
            }
            self.state.write(self.state.root, {**root, "endpoint": f"http://127.0.0.1:{settings.port}"})
            self._spawn(
                "emulator",
                [
                    str(VENVS / "emulator" / "bin" / "python"),
                    "-m",
                    "local.emulator",
                    str(file),
                ],
                # Long enough for its tasks to stop in order.
                patience=75,
                environment=clean(
                    AWS_ACCESS_KEY_ID=root["access_key"], AWS_SECRET_ACCESS_KEY=root["secret_key"]
                ),
            )
            self._aws = account(self.state)
            ready = self._wait_for(state / "ready.json", "emulator", _EMULATOR_SECONDS)
            remark(f"127.0.0.1:{settings.port}")
        return [str(each) for each in ready["types"]]

    def _deploy(self, assembly: Path, supported: Sequence[str]) -> Stack:
        aws = self._api()
        bucket = bootstrap(aws)
        first, second = stack_names(assembly)
        with self.progress.step(f"Deploy {first}") as remark:
            foundation = deploy(aws, assembly, first, supported=supported, bucket=bucket)
            remark(_counted(foundation))
        with self.progress.step(f"Deploy {second}, with the database's migration") as remark:
            service = deploy(aws, assembly, second, supported=supported, bucket=bucket)
            remark(_counted(service))
        self.only_recorded = [*foundation.only_recorded, *service.only_recorded]
        return service

    def _start_balancer(self) -> None:
        certificate = self._certificates["tracking"]
        with self.progress.step("Load balancer with the deployed listener's rules") as remark:
            self.refresh()
            self._spawn(
                "load-balancer",
                [sys.executable, "-m", "local.edge", "--snapshot", str(self._snapshot),
                 "--metrics", str(self._balancer_metrics),
                 "--certificate", str(certificate.certificate), "--key", str(certificate.key),
                 "--port", str(self._ports["tracking"]),
                 "--authority", str(self.state.authority / "ca.pem"), "--user-pools", self.sign_in_url],
                environment=clean(),
            )  # fmt: skip
            remark(self.tracking_url)

    def _verify(self) -> None:
        with self.progress.step("Check the deployed resources") as remark:
            findings = verify(self._api().client, self._outputs)
            remark(counted(findings))
        self.unasked = [each.title for each in findings if each.mark is Mark.NOT_ASKED]
        if exit_code(findings) != PASSED:
            told = "\n".join(
                f"  - failed: {each.title}; observed: {each.told}"
                for each in findings
                if each.mark is Mark.BAD
            )
            raise PlatformError(f"the deployed resources are not what the stacks say:\n{told}")

    def _wait_until_healthy(self) -> None:
        client = _client_of(self.state)
        token = demo_roles.token(
            demo_roles.assume(self._api(), "viewer"), audience=self._outputs["TokenAudience"]
        )
        deadline = time.monotonic() + _HEALTHY_SECONDS
        with self.progress.step("Server task is healthy behind the load balancer"):
            while True:
                if _answers(client, f"{self.tracking_url}/health", token):
                    return
                self.refresh()
                if (broken := self.failed_part()) is not None:
                    raise PlatformError(broken)
                if time.monotonic() > deadline:
                    raise PlatformError(
                        f"the server is not healthy after {_HEALTHY_SECONDS:.0f} seconds; "
                        f"the end of its log:\n{self._server_log()}"
                    )
                time.sleep(0.2)

    def _admit(self, service: Stack) -> None:
        with self.progress.step(
            f"An IAM role and a user for each of the {len(demo_roles.ROLES)} roles"
        ) as remark:
            demo_roles.create(self._api(), service.outputs)
            users = demo_users.create(self._api(), service.outputs["UserPoolId"])
            self.state.write(self.state.users, users)
            remark(str(self.state.users))

    # -- helpers ---------------------------------------------------------------------------------

    @property
    def _snapshot(self) -> Path:
        return self.state.run / "listener.json"

    @property
    def _balancer_metrics(self) -> Path:
        return self.state.run / "load-balancer.metrics"

    @property
    def _address_book(self) -> Path:
        return self.state.run / "addresses.json"

    def _api(self) -> Aws:
        assert self._aws is not None  # noqa: S101 - after _start_emulator
        return self._aws

    def _spawn(
        self, name: str, argv: Sequence[str], *, environment: dict[str, str], patience: float = 10
    ) -> None:
        with _private(self.state.logs / f"{name}.log") as log:
            child = subprocess.Popen(
                list(argv),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._children[name] = child
        self._ledger.add(child.pid, name, patience=patience)

    def _end_child(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is None:
            return
        self._ledger.end(child.pid)
        child.wait()

    def _wait_for(self, file: Path, name: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not file.exists():
            child = self._children[name]
            if child.poll() is not None or time.monotonic() > deadline:
                raise PlatformError(
                    f"{name} did not start (code {child.poll()}); the end of its log:\n"
                    + _tail(self.state.logs / f"{name}.log")
                )
            time.sleep(0.05)
        return State.read(file)

    def _write_endpoints(self, *, server_url: str) -> None:
        aws = self._api()
        values = {
            "tracking_url": self.tracking_url,
            "server_url": server_url,
            "ca_file": str(self.state.authority / "ca.pem"),
            "aws_endpoint": aws.endpoint,
            "bucket": self._outputs["ArtifactBucket"],
            "region": aws.region,
            "audience": self._outputs["TokenAudience"],
            "token_issuer": self._outputs["TokenIssuer"],
            "sign_in_url": self.sign_in_url,
            "users_file": str(self.state.users),
        }
        if State.read(self.state.endpoints) != values:
            self.state.write(self.state.endpoints, values)

    def _server_log(self) -> str:
        logs = sorted(self.state.logs.glob("task-*-server.log"), key=lambda file: file.stat().st_mtime)
        return _tail(logs[-1]) if logs else "it wrote none"


def account(state: State) -> Aws:
    """The emulated account, as its root.

    Raises:
        PlatformError: nothing is running.
    """
    root = State.read(state.root)
    if not root:
        raise PlatformError("nothing is running: start it with `make up`")
    return Aws(
        endpoint=root["endpoint"],
        region=REGION,
        account_id=ACCOUNT,
        access_key=root["access_key"],
        secret_key=root["secret_key"],
    )


def client_environment(state: State, role: str = demo_roles.DEFAULT) -> ClientEnvironment:
    """What a client with one of the roles needs to use the running platform.

    Its temporary credentials and its token are new each time.

    Raises:
        PlatformError: nothing is running, or not yet.
    """
    endpoints = State.read(state.endpoints)
    if not endpoints:
        raise PlatformError("nothing is running, or not yet: start it with `make up`")
    assumed = demo_roles.assume(account(state), role)
    return ClientEnvironment(
        tracking_url=endpoints["tracking_url"],
        ca_file=Path(endpoints["ca_file"]),
        aws_endpoint=endpoints["aws_endpoint"],
        region=endpoints["region"],
        access_key=assumed.access_key,
        secret_key=assumed.secret_key,
        session_token=assumed.session_token or "",
        token=demo_roles.token(assumed, audience=endpoints["audience"]),
        audience=endpoints["audience"],
    )


def not_emulated(only_recorded: Sequence[str]) -> list[str]:
    """What differs from AWS, one line each, for people to read."""
    return [
        *told(only_recorded),
        "network: security groups, routes and subnets are recorded, everything listens on loopback only",
        f"people sign in at {HOST}, with no second factor and no protection from leaked passwords",
        "the AWS API has no TLS (loopback); bucket policies count it as TLS",
        f"the listener's port 443 and {DOMAIN} are {HOST} and a free port; access logs are not written",
        "tasks are processes: no ARM, no memory limit, no read-only root, no user of their own",
    ]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect to the sign-in page says nothing about the server's health."""

    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect."""


def _client_of(state: State) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=str(state.authority / "ca.pem"))
    return urllib.request.build_opener(
        _NoRedirect, urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )


def _answers(client: urllib.request.OpenerDirector, url: str, token: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        with client.open(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _all_of(synthesized: Future[Path], emulator: Future[list[str]], database: Future[None]) -> Any:
    """The results, or the first failure as soon as it happens."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    futures: tuple[Future[Any], ...] = (synthesized, emulator, database)
    pending: set[Future[Any]] = set(futures)
    while pending:
        # Short waits, so that an interrupt is noticed.
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
    return synthesized.result(), emulator.result()


def _counted(stack: Stack) -> str:
    return f"{len(stack.resources)} resources, {len(stack.only_recorded)} only recorded"


def _private(file: Path) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _tail(file: Path, lines: int = 15) -> str:
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"
