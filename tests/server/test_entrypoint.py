"""What the container starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlflow_aws_server import entrypoint
from mlflow_aws_server.settings import SettingsError

from tests.server.conftest import SERVER_PYTHON

# Runs the real `mlflow server` up to the moment when it would start its server process.
_ASK_MLFLOW = textwrap.dedent(
    """
    import json, os, sys
    import mlflow.server, mlflow.server.handlers, mlflow.tracing.trace_rollup_service
    from mlflow.cli import cli

    before = dict(os.environ)

    def would_start(argv, *, extra_env, **_):
        changed = {k: v for k, v in os.environ.items() if before.get(k) != v}
        print("ANSWER" + json.dumps({"argv": argv, "environment": {**changed, **extra_env}}))
        raise SystemExit(0)

    mlflow.server._exec_cmd = would_start
    mlflow.server.handlers.initialize_backend_stores = lambda *_, **__: None
    mlflow.tracing.trace_rollup_service.validate_sql_trace_rollup_startup = lambda *_: None
    cli(json.loads(sys.argv[1]))
    """
)

_OWN_TO_A_START = {"_MLFLOW_SERVER_BOOT_ID"}
# Artifacts do not pass through the server, and it keeps no gateway secrets.
_DEFAULTS_OF_UNUSED = {
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
    "MLFLOW_SERVER_SECRETS_CACHE_TTL",
    "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE",
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    return {
        "PATH": os.environ["PATH"],
        "AWS_REGION": "eu-central-1",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/example",
        "MLFLOW_AWS_DATABASE_HOST": "db.example.eu-central-1.rds.amazonaws.com",
        "MLFLOW_AWS_DATABASE_CA_FILE": str(ca_file),
        "MLFLOW_AWS_DATABASE_USER": "mlflow_server",
        "MLFLOW_AWS_ARTIFACT_ROOT": "s3://artifacts-123/prefix",
        "MLFLOW_AWS_PUBLIC_URL": "https://mlflow.example.com",
        "MLFLOW_AWS_WORKERS": "2",
        "MLFLOW_AWS_TOKEN_ISSUERS": "arn:aws:iam::123456789012=https://example.tokens.sts.global.api.aws",
        "MLFLOW_AWS_ROLES": "{}",
    }


def _option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_server_is_what_mlflow_server_would_have_started(environ: dict[str, str]) -> None:
    ours = entrypoint.environment(environ)
    store = ours["_MLFLOW_SERVER_FILE_STORE"]
    arguments = [
        "server", "--app-name", "mlflow-aws", "--backend-store-uri", store,
        "--default-artifact-root", "s3://artifacts-123/prefix", "--no-serve-artifacts",
        "--host", "0.0.0.0", "--port", "5000", "--workers", "2",
        "--allowed-hosts", "mlflow.example.com", "--cors-allowed-origins", "https://mlflow.example.com",
    ]  # fmt: skip
    asked = subprocess.run(
        [SERVER_PYTHON, "-c", _ASK_MLFLOW, json.dumps(arguments)],
        env={**environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [line for line in asked.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, asked.stderr
    theirs = json.loads(answers[0].removeprefix("ANSWER"))

    assert theirs["argv"][1:3] == ["-m", "uvicorn"]
    assert theirs["argv"][-2:] == entrypoint.command(environ)[-2:]
    for option in ("--host", "--port", "--workers"):
        assert _option(theirs["argv"], option) == _option(entrypoint.command(environ), option)
    names = (
        {name for name in theirs["environment"] if "MLFLOW" in name} - _OWN_TO_A_START - _DEFAULTS_OF_UNUSED
    )
    assert {"_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_IN_JOB_EXECUTOR", "MLFLOW_SERVER_ALLOWED_HOSTS"} <= names
    differs = [name for name in sorted(names) if ours.get(name) != theirs["environment"][name]]
    assert not differs, "\n".join(
        [
            "Set each in environment() of entrypoint.py, or add it to _DEFAULTS_OF_UNUSED if it is not used:",
            *(f"{name}: {theirs['environment'][name]!r}, here {ours.get(name)!r}" for name in differs),
        ]
    )
    assert len(ours["_MLFLOW_SERVER_BOOT_ID"]) == 32


def test_server_runs_on_uvloop_and_httptools(environ: dict[str, str]) -> None:
    argv = entrypoint.command(environ)
    assert (_option(argv, "--loop"), _option(argv, "--http")) == ("uvloop", "httptools")


def test_idle_connections_outlive_those_of_the_balancer(environ: dict[str, str]) -> None:
    assert int(_option(entrypoint.command(environ), "--timeout-keep-alive")) > 60
    longer = {**environ, "MLFLOW_AWS_KEEP_ALIVE_SECONDS": "315"}
    assert _option(entrypoint.command(longer), "--timeout-keep-alive") == "315"


def test_requests_are_finished_before_ecs_stops_waiting(environ: dict[str, str]) -> None:
    assert int(_option(entrypoint.command(environ), "--timeout-graceful-shutdown")) < 30


def test_forwarded_headers_cannot_claim_localhost(environ: dict[str, str]) -> None:
    assert "--no-proxy-headers" in entrypoint.command(environ)


def test_mlflow_starts_no_jobs_and_calls_no_other_host(environ: dict[str, str]) -> None:
    made = entrypoint.environment(environ)
    assert made["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert made["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert made["MLFLOW_ENABLE_AI_GATEWAY"] == "false"
    assert made["MLFLOW_MODEL_CATALOG_URI"] == ""


def test_no_argument_names_the_database_or_holds_a_secret(environ: dict[str, str]) -> None:
    assert not [
        argument for argument in entrypoint.command(environ) if "postgresql" in argument or "@" in argument
    ]


def test_environment_adds_no_credential(environ: dict[str, str]) -> None:
    added = set(entrypoint.environment(environ)) - set(environ)
    assert not [name for name in added if name.startswith("AWS_") and name != "AWS_DEFAULT_REGION"]
    assert (
        ":" not in entrypoint.environment(environ)["_MLFLOW_SERVER_FILE_STORE"].split("//")[1].split("@")[0]
    )


def test_database_is_verified_in_full(environ: dict[str, str]) -> None:
    store = entrypoint.environment(environ)["_MLFLOW_SERVER_FILE_STORE"]
    assert store.startswith(
        "postgresql+psycopg2://mlflow_server@db.example.eu-central-1.rds.amazonaws.com:5432/mlflow?"
    )
    assert "plugin=rds_iam" in store
    assert "sslmode=verify-full" in store


def test_settings_are_checked_before_anything_starts(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_PUBLIC_URL"] = "http://mlflow.example.com"
    with pytest.raises(SettingsError, match="MLFLOW_AWS_PUBLIC_URL"):
        entrypoint.command(environ)


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_misconfiguration_is_one_line_and_exit_code_2(command: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "mlflow_aws_server", command],
        env={"PATH": os.environ["PATH"], "AWS_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert json.loads(finished.stderr)["message"].startswith("MLFLOW_AWS_DATABASE_")


@pytest.mark.parametrize("command", ["serve", "migrate", "healthcheck"])
def test_misspelt_variable_ends_the_start_with_exit_code_2(environ: dict[str, str], command: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "mlflow_aws_server", command],
        env={**environ, "MLFLOW_AWS_FASTPATH": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert json.loads(finished.stderr)["message"] == (
        "MLFLOW_AWS_FASTPATH (did you mean MLFLOW_AWS_FAST_PATH?): "
        "the server has no such setting. Correct the name, or remove the variable."
    )


def test_help_lists_the_commands() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "mlflow_aws_server", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("serve", "audit", "migrate", "healthcheck", "Exit codes"):
        assert word in finished.stdout


def test_healthcheck_fails_if_nothing_listens(unused_port: int) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "mlflow_aws_server", "healthcheck"],
        env={"PATH": os.environ["PATH"], "MLFLOW_AWS_PORT": str(unused_port)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (1, "")


@pytest.fixture
def unused_port() -> int:
    from local.parts.ports import free_port

    return free_port()
