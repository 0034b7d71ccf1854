"""The container's commands: serve, audit, migrate, healthcheck, and what operators run once."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlflow_aws_server import logs
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.progress import publish
from mlflow_aws_server.settings import (
    CleanupSettings,
    DrillSettings,
    EnvironmentReader,
    ImportSettings,
    MigrationSettings,
    ServerSettings,
    SettingsError,
)

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2

# uvicorn's default of 5 s kills workers that start slowly on a busy small machine.
_WORKER_HEALTHCHECK_SECONDS = 30
# Below ECS's stopTimeout (30 s by default), after which the task is killed.
_GRACEFUL_SHUTDOWN_SECONDS = 25

_APPLICATION_NAME = "mlflow"

_log = logging.getLogger("mlflow_aws_server")

_QUIET_MLFLOW: Mapping[str, str] = {
    # By default MLflow starts 14 more processes (2.2 GB) for jobs.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its loggers have no handlers of their own then: log_config.json speaks for them too.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # Empty: no list of models is fetched from the internet.
    "MLFLOW_MODEL_CATALOG_URI": "",
    # MLflow looks for git to tag runs, which a server never does.
    "GIT_PYTHON_REFRESH": "quiet",
    # The server does not multiply matrices, and a process with NumPy's threads forks badly.
    "OPENBLAS_NUM_THREADS": "1",
}


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command; returns its exit code: 0, 1 (failure) or 2 (misconfigured)."""
    parser = argparse.ArgumentParser(
        prog="mlflow_aws_server",
        description="MLflow's tracking server on AWS, configured by environment variables (MLFLOW_AWS_…).",
        epilog="Exit codes: 0 success, 1 failure, 2 the configuration or the command line is wrong.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="wait for the database schema, then become the MLflow server")
    commands.add_parser("audit", help="print the audit lines that servers write to MLFLOW_AWS_AUDIT_PIPE")
    commands.add_parser("migrate", help="create the database roles and bring the schema up to date")
    commands.add_parser("healthcheck", help="exit 0 if the server on this machine is ready")
    for name, operation in _OPERATIONS.items():
        operation.add_arguments(commands.add_parser(name, help=operation.help))
    if not {"-h", "--help"} & set(arguments):
        logs.configure()
    options = parser.parse_args(arguments)
    try:
        if options.command in _OPERATIONS:
            return _operate(options.command, os.environ, options)
        run = {"serve": _serve, "audit": _audit, "migrate": _migrate, "healthcheck": _healthcheck}
        return run[options.command](os.environ)
    except SettingsError as error:
        _log.error("%s", error)
        return EXIT_MISCONFIGURED
    except KeyboardInterrupt:
        return 130


def command(environ: Mapping[str, str]) -> list[str]:
    """The server process that `environ` asks for: what `mlflow server` would start, without `mlflow server`.

    That command imports all of MLflow (170 MB, 3 s), starts uvicorn, and stays to watch it. This is
    uvicorn itself, by way of `workers`. The command line holds no secret.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    settings = ServerSettings.from_environ(environ)
    return [
        sys.executable, "-m", "mlflow_aws_server.workers",
        # With several workers, asyncio's sockets lack TCP_NODELAY: 40 ms more for every call.
        "--loop", "uvloop",
        "--http", "httptools",
        # A worker that cannot initialise MLflow's stores must not serve.
        "--lifespan", "on",
        "--timeout-keep-alive", str(settings.keep_alive_seconds),
        "--timeout-worker-healthcheck", str(_WORKER_HEALTHCHECK_SECONDS),
        "--timeout-graceful-shutdown", str(_GRACEFUL_SHUTDOWN_SECONDS),
        # A client could write X-Forwarded-For: 127.0.0.1 and become localhost, which MLflow trusts more.
        "--no-proxy-headers",
        "--no-server-header",
        # The load balancer keeps the access log.
        "--no-access-log",
        "--log-config", str(logs.CONFIG),
        "--host", settings.bind,
        "--port", str(settings.port),
        "--workers", str(settings.workers),
        "--factory", "mlflow_aws_server.app:create_app",
    ]  # fmt: skip


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server process: `environ`, and MLflow's settings.

    The names that begin with an underscore are how `mlflow server` configures its workers.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    from mlflow_aws_server.database.connect import store_uri

    settings = ServerSettings.from_environ(environ)
    connections = settings.connections
    store = store_uri(
        settings.database, settings.database_user, application_name=_APPLICATION_NAME, admitted="on"
    )
    return {
        **environ,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.artifact_root,
        "_MLFLOW_SGI_NAME": "uvicorn",
        # Tells MLflow that it runs in a server, which must not execute what users upload.
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "MLFLOW_ENABLE_WORKSPACES": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": settings.public_host,
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": settings.public_url,
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(connections.pool_size),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(connections.max_overflow),
        "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "1800",
        **_QUIET_MLFLOW,
        # boto3 reads only this name, and ECS sets only AWS_REGION.
        "AWS_DEFAULT_REGION": settings.database.region,
        "PYTHONUNBUFFERED": "1",
    }


def _serve(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.identity import IdentitySettings
    from mlflow_aws_server.schema_wait import SchemaNotReadyError, wait_for_schema

    settings = ServerSettings.from_environ(environ)
    # Only the workers use it; an error in it is reported here, before the wait.
    IdentitySettings.from_environ(environ)
    try:
        wait_for_schema(settings)
    except SchemaNotReadyError as error:
        _log.error("%s", error)
        return EXIT_FAILED
    argv = command(environ)
    return os.execvpe(argv[0], argv, environment(environ))  # noqa: S606 - no shell is the point


def _audit(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.audit_stream import print_lines

    print_lines(Path(EnvironmentReader(environ).text("MLFLOW_AWS_AUDIT_PIPE")))
    return 0


def _end_at_sigterm() -> None:
    """End this process at once at SIGTERM, also in the middle of a statement, which PostgreSQL rolls back."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end() -> None:
        signal.sigwait({signal.SIGTERM})
        _log.error("stopped by SIGTERM: what was not finished is rolled back; run `migrate` again")
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()


def _migrate(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.migration import MigrationError, migrate

    settings = MigrationSettings.from_environ(environ)
    _end_at_sigterm()
    # MLflow reads these while it is imported, which `migrate` does in this process.
    os.environ.update(_QUIET_MLFLOW)
    try:
        migrate(settings)
    except MigrationError as error:
        _log.error("%s", error)
        return EXIT_FAILED
    return 0


def _healthcheck(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.healthcheck import is_ready

    EnvironmentReader(environ)
    return 0 if is_ready(environ) else EXIT_FAILED


class _Operation(NamedTuple):
    """What an operator runs once: `run` returns the report that ends the log."""

    help: str
    run: Callable[[Mapping[str, str], argparse.Namespace], Mapping[str, object]]
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda _parser: None


def _operate(name: str, environ: Mapping[str, str], options: argparse.Namespace) -> int:
    # As for `migrate`.
    os.environ.update(_QUIET_MLFLOW)
    try:
        publish(name, _OPERATIONS[name].run(environ, options))
    except OperationError as error:
        _log.error("%s", error)
        return EXIT_FAILED
    return 0


def _import(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.imports.run import run

    settings = ImportSettings.from_environ(environ)
    return run(settings, options.archive, sha256=options.sha256, dry_run=options.dry_run)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", required=True, metavar="NAME", help="below imports/")
    parser.add_argument("--sha256", required=True, help="of its manifest")
    parser.add_argument("--dry-run", action="store_true", help="do all of it, count it, and commit nothing")


def _relocate(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.relocation import relocate

    return relocate(ImportSettings.from_environ(environ), old=options.old, new=options.new)


def _relocate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--old", required=True, metavar="URI", help="the root that the database names")
    parser.add_argument("--new", required=True, metavar="URI", help="where all below it is now")


def _rehearse(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.rehearsal import rehearse

    settings = MigrationSettings.from_environ(environ)
    scratch = replace(settings.database, host=options.host, port=options.port)
    return rehearse(replace(settings, database=scratch))


def _database_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", required=True, help="the scratch database's host")
    parser.add_argument("--port", required=True, type=int, help="its port")


def _gc(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.cleanup.gc import gc

    return gc(CleanupSettings.from_environ(environ), days=options.days, dry_run=options.dry_run)


def _gc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=float, default=0, help="only what was deleted so many days ago")
    parser.add_argument("--dry-run", action="store_true", help="say what would go; change nothing")


def _erase(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.cleanup import erase

    settings = CleanupSettings.from_environ(environ)
    if options.request:
        return erase.remove(settings, request=options.request, sha256=options.sha256)
    return erase.plan(settings, what=options.what, value=options.value)


def _erase_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = ("run", "experiment", "author", "dataset", "trace_user", "trace_session")
    parser.add_argument("--what", choices=kinds, help="plan the erasure of what has this --value")
    parser.add_argument("--value", help="its id or name")
    parser.add_argument("--request", metavar="ID", help="delete the rows that this request names")
    parser.add_argument("--sha256", help="of the request")


def _drill(environ: Mapping[str, str], options: argparse.Namespace) -> Mapping[str, object]:
    from mlflow_aws_server.drill import drill

    settings = DrillSettings.from_environ(environ)
    return drill(
        settings.database,
        replace(settings.database, host=options.host, port=options.port),
        user=settings.server_user,
        artifact_root=settings.artifact_root,
        at=options.at,
    )


def _drill_arguments(parser: argparse.ArgumentParser) -> None:
    _database_arguments(parser)
    parser.add_argument("--at", required=True, type=int, help="the time it was restored to, in milliseconds")


_OPERATIONS: Mapping[str, _Operation] = {
    "gc": _Operation("remove for good what was deleted, as `mlflow gc` does", _gc, _gc_arguments),
    "erase": _Operation("plan an erasure, or delete the rows of one", _erase, _erase_arguments),
    "import": _Operation("import the archive of another MLflow's tables", _import, _import_arguments),
    "drill": _Operation("compare a restored database with the living one", _drill, _drill_arguments),
    "relocate": _Operation("move every artifact URI", _relocate, _relocate_arguments),
    "rehearse": _Operation("migrate a scratch database and compare", _rehearse, _database_arguments),
}
