"""The server's own process, the load balancer's own process, and the issuers, once for the package."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from local.parts.certificates import CertificateAuthority
from local.parts.ports import free_port
from local.parts.token_issuer import TokenIssuer
from tests.attacks.deployed_rules import snapshot
from tests.attacks.doors import Door, Request
from tests.attacks.user_pool import CLIENT_ID, POOL_ID, UserPool
from tests.attacks.world import ACCOUNT, PARTNER, ROLES, World
from tests.server.conftest import SERVER_PYTHON, Identity, deployment

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.conftest import Migration

PROJECT = Path(__file__).parents[2]
# The tables that an attack could write to.
_TABLES = ("experiments", "experiment_tags", "runs", "tags", "params", "registered_models", "webhooks")


@pytest.fixture(scope="package")
def world(rds: RdsLike, migration: Migration, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A deployment that can be reached through the load balancer and, unlike in AWS, directly."""
    directory = tmp_path_factory.mktemp("attacks")
    authority = CertificateAuthority.create(directory / "ca", name="Attacked")
    certificate = authority.issue("localhost", name="attacked")
    with ExitStack() as stack:
        sts = stack.enter_context(TokenIssuer.create(certificate).serving())
        partner = stack.enter_context(TokenIssuer.create(certificate).serving())
        mallory = stack.enter_context(TokenIssuer.create(certificate).serving())
        pool = stack.enter_context(UserPool(certificate).serving())
        deployed = stack.enter_context(
            deployment(rds, Identity(sts, pool, authority.bundle), copy_of=migration)
        )
        port, front = free_port(), free_port()
        environ = {
            **deployed.environ,
            "MLFLOW_AWS_PORT": str(port),
            "MLFLOW_AWS_WORKERS": "2",
            "MLFLOW_AWS_DATABASE_MAX_CONNECTIONS": "60",
            "MLFLOW_AWS_TOKEN_ISSUERS": f"{ACCOUNT}={sts.url} {PARTNER}={partner.url}",
            "MLFLOW_AWS_ROLES": ROLES,
            "MLFLOW_AWS_USER_POOL_ISSUER": pool.url,
            "MLFLOW_AWS_USER_POOL_CLIENT_ID": CLIENT_ID,
        }
        server = _start(
            stack,
            [SERVER_PYTHON, "-m", "mlflow_aws_server", "serve"],
            log=directory / "server.log",
            environ=environ,
        )
        # While the server starts, the CDK synthesizes the listener's rules.
        rules = snapshot(
            token_issuer=sts.url,
            partner=partner.url,
            pool_arn=f"arn:aws:cognito-idp:eu-central-1:123456789012:userpool/{POOL_ID}",
            client_id=CLIENT_ID,
            client_secret="secret",
            target=f"127.0.0.1:{port}",
        )
        (directory / "snapshot.json").write_text(json.dumps(rules))
        arguments = {
            "snapshot": directory / "snapshot.json",
            "metrics": directory / "balancer.metrics",
            "certificate": certificate.certificate,
            "key": certificate.key,
            "port": front,
            "authority": authority.bundle,
            "user-pools": pool.base_url,
        }
        balancer = _start(
            stack,
            [sys.executable, "-m", "local.edge"]
            + [part for name, value in arguments.items() for part in (f"--{name}", str(value))],
            log=directory / "balancer.log",
            environ={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT)},
        )
        connection = psycopg2.connect(
            host=str(rds.postgres.socket_directory), port=rds.port, user="postgres", dbname=deployed.database
        )
        stack.callback(connection.close)
        connection.autocommit = True

        def rows() -> list[tuple[Any, ...]]:
            counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in _TABLES)
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {counts}, (SELECT string_agg(name, ',') FROM experiments)")
                return list(cursor.fetchall())

        made = World(
            direct=Door("directly", port),
            balancer=Door("through the balancer", front, ssl.create_default_context(cafile=authority.bundle)),
            sts=sts,
            partner=partner,
            pool=pool,
            mallory=mallory,
            environ=environ,
            log=directory / "server.log",
            rows=rows,
        )
        _wait(made, {"server": server, "balancer": balancer}, directory)
        yield made


def _start(
    stack: ExitStack, command: list[str], *, log: Path, environ: dict[str, str]
) -> subprocess.Popen[bytes]:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, cwd=PROJECT)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    return process


def _wait(world: World, processes: dict[str, subprocess.Popen[bytes]], directory: Path) -> None:
    """Wait until a valid token passes the balancer, which then has a healthy target."""
    deadline = time.monotonic() + 150
    good = (("Authorization", f"Bearer {world.token()}"),)
    while time.monotonic() < deadline:
        for name, process in processes.items():
            if process.poll() is not None:
                pytest.fail(f"the {name} ended:\n{(directory / f'{name}.log').read_text()}")
        try:
            if world.balancer.send(Request("GET", "/version"), good).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    logs = "\n".join((directory / f"{name}.log").read_text() for name in processes)
    pytest.fail(f"no answer through the balancer after 150 s:\n{logs}")
