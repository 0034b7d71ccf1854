"""What the container does: serve, migrate, or answer whether it is healthy."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from mlflow_aws_server.settings import MigrationSettings, ServerSettings, SettingsError

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2

# A connection idles here for longer than the balancer keeps it (60 s), so that the balancer never
# sends a request into a connection that we are closing.
_KEEP_ALIVE_SECONDS = 75
# uvicorn's 5 s kill workers that a busy small machine starts slowly.
_WORKER_HEALTHCHECK_SECONDS = 30
# Below ECS's stopTimeout (30 s by default), after which nothing is finished any more.
_GRACEFUL_SHUTDOWN_SECONDS = 25

_APPLICATION_NAME = "mlflow"


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command; its exit code is 0, 1 (it failed) or 2 (it is misconfigured)."""
    parser = argparse.ArgumentParser(
        prog="mlflow_aws_server",
        description="MLflow's tracking server on AWS, configured by environment variables (MLFLOW_AWS_…).",
        epilog="Exit codes: 0 it worked, 1 it failed, 2 the configuration or the command line is wrong.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="wait for the database schema, then become the MLflow server")
    commands.add_parser("migrate", help="create the database roles and bring the schema up to date")
    commands.add_parser("healthcheck", help="exit 0 if the server on this machine is ready")
    run = {"serve": _serve, "migrate": _migrate, "healthcheck": _healthcheck}[
        parser.parse_args(arguments).command
    ]
    try:
        return run(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"mlflow_aws_server: {error}\n")
        return EXIT_MISCONFIGURED
    except KeyboardInterrupt:
        return 130


def command(environ: Mapping[str, str]) -> list[str]:
    """The `mlflow server` that `environ` asks for. It holds no secret, and none is ever needed.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    from mlflow_aws_server.database import store_uri

    settings = ServerSettings.from_environ(environ)
    return [
        sys.executable, "-m", "mlflow", "server",
        "--app-name", "mlflow-aws",
        "--backend-store-uri",
        store_uri(settings.database, settings.database_user, application_name=_APPLICATION_NAME),
        "--default-artifact-root", settings.artifact_root,
        "--no-serve-artifacts",
        "--host", settings.bind,
        "--port", str(settings.port),
        "--workers", str(settings.workers),
        "--allowed-hosts", settings.public_host,
        "--cors-allowed-origins", settings.public_url,
        "--disable-workspaces",
        "--uvicorn-opts", shlex.join(_uvicorn_options()),
    ]  # fmt: skip


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of `mlflow server`: ours, and the settings MLflow takes no other way.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    settings = ServerSettings.from_environ(environ)
    connections = settings.connections
    return {
        **environ,
        # boto3 reads only this name of the two, and ECS sets only the other.
        "AWS_DEFAULT_REGION": settings.database.region,
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(connections.pool_size),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(connections.max_overflow),
        "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "1800",
        # By default MLflow would start 14 more processes (2.2 GB) for jobs nobody asked for.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Empty means: fetch no list of models from the internet.
        "MLFLOW_MODEL_CATALOG_URI": "",
        # MLflow looks for git in order to tag runs, which a server never does.
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
    }


def _uvicorn_options() -> list[str]:
    return [
        # asyncio's sockets in several workers have no TCP_NODELAY: 40 ms more for every call.
        "--loop", "uvloop",
        "--http", "httptools",
        "--timeout-keep-alive", str(_KEEP_ALIVE_SECONDS),
        "--timeout-worker-healthcheck", str(_WORKER_HEALTHCHECK_SECONDS),
        "--timeout-graceful-shutdown", str(_GRACEFUL_SHUTDOWN_SECONDS),
        # Whoever writes X-Forwarded-For: 127.0.0.1 would become localhost, which MLflow trusts more.
        "--no-proxy-headers",
        "--no-server-header",
        # The balancer keeps the access log.
        "--no-access-log",
    ]  # fmt: skip


def _serve(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.schema_wait import SchemaNotReadyError, wait_for_schema

    settings = ServerSettings.from_environ(environ)
    try:
        wait_for_schema(settings)
    except SchemaNotReadyError as error:
        sys.stderr.write(f"mlflow_aws_server: {error}\n")
        return EXIT_FAILED
    argv = command(environ)
    return os.execvpe(argv[0], argv, environment(environ))  # noqa: S606 - no shell is the point


def _migrate(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.migration import MigrationError, migrate

    try:
        migrate(MigrationSettings.from_environ(environ))
    except MigrationError as error:
        sys.stderr.write(f"mlflow_aws_server: {error}\n")
        return EXIT_FAILED
    return 0


def _healthcheck(environ: Mapping[str, str]) -> int:
    from mlflow_aws_server.healthcheck import is_ready

    return 0 if is_ready(environ) else EXIT_FAILED
