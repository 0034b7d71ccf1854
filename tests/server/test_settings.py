"""The container's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_aws_server.identity import IdentitySettings
from mlflow_aws_server.settings import (
    VARIABLES,
    Connections,
    MigrationSettings,
    SealSettings,
    ServerSettings,
    SettingsError,
)

from tests.server.conftest import assert_says_what_to_do


def test_defaults_are_those_of_the_image(environ: dict[str, str]) -> None:
    settings = ServerSettings.from_environ(environ)
    assert (settings.bind, settings.port, settings.fast_path) == ("0.0.0.0", 5000, True)
    assert (settings.database.port, settings.database.name) == (5432, "mlflow")


def test_migration_creates_the_roles_that_the_policies_name(environ: dict[str, str]) -> None:
    del environ["MLFLOW_AWS_DATABASE_USER"]
    settings = MigrationSettings.from_environ(environ)
    assert (settings.migrator, settings.server_user) == ("mlflow_migrator", "mlflow_server")


def test_public_host_keeps_its_port(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_PUBLIC_URL"] = "https://localhost:8443"
    assert ServerSettings.from_environ(environ).public_host == "localhost:8443"


def test_empty_variable_counts_as_unset(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_DATABASE_NAME"] = ""
    assert ServerSettings.from_environ(environ).database.name == "mlflow"


def test_a_reader_is_the_same_database_at_another_address(environ: dict[str, str]) -> None:
    assert ServerSettings.from_environ(environ).reader is None
    environ["MLFLOW_AWS_DATABASE_READER_HOST"] = "db.cluster-ro-x.eu-central-1.rds.amazonaws.com"
    settings = ServerSettings.from_environ(environ)
    assert settings.reader == replace(
        settings.database, host="db.cluster-ro-x.eu-central-1.rds.amazonaws.com"
    )
    environ["MLFLOW_AWS_DATABASE_READER_HOST"] = "https://db"
    with pytest.raises(SettingsError, match="a host name without scheme or port"):
        ServerSettings.from_environ(environ)


def test_region_may_come_by_the_older_name(environ: dict[str, str]) -> None:
    environ["AWS_DEFAULT_REGION"] = environ.pop("AWS_REGION")
    assert ServerSettings.from_environ(environ).database.region == "eu-central-1"


@pytest.mark.parametrize(
    "variable",
    [
        "AWS_REGION",
        "MLFLOW_AWS_DATABASE_HOST",
        "MLFLOW_AWS_DATABASE_USER",
        "MLFLOW_AWS_ARTIFACT_ROOT",
        "MLFLOW_AWS_PUBLIC_URL",
    ],
)
def test_missing_variable_is_named(environ: dict[str, str], variable: str) -> None:
    del environ[variable]
    with pytest.raises(SettingsError, match=rf"^{variable} is not set: "):
        ServerSettings.from_environ(environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_AWS_DATABASE_HOST", "postgresql://db"),
        ("MLFLOW_AWS_DATABASE_PORT", "54x"),
        ("MLFLOW_AWS_DATABASE_PORT", "70000"),
        ("MLFLOW_AWS_DATABASE_NAME", "a b"),
        ("MLFLOW_AWS_DATABASE_USER", "Robert'); --"),
        ("MLFLOW_AWS_DATABASE_CA_FILE", "/nowhere/ca.pem"),
        ("MLFLOW_AWS_ARTIFACT_ROOT", "/mnt/artifacts"),
        ("MLFLOW_AWS_ARTIFACT_ROOT", "s3://"),
        ("MLFLOW_AWS_PUBLIC_URL", "http://mlflow.example.com"),
        ("MLFLOW_AWS_PUBLIC_URL", "https://mlflow.example.com/mlflow"),
        ("MLFLOW_AWS_PUBLIC_URL", "https://*"),
        ("MLFLOW_AWS_WORKERS", "0"),
        ("MLFLOW_AWS_FAST_PATH", "maybe"),
        ("MLFLOW_AWS_ENDED_RUNS", "nobody"),
        ("AWS_REGION", "eu central"),
        ("MLFLOW_AWS_SEAL_AT", "never"),
        ("MLFLOW_AWS_SEAL_LOCK", "governance"),
        ("MLFLOW_AWS_SEAL_LOCK", "governance:0"),
        ("MLFLOW_AWS_SEAL_LOCK", "compliance:101"),
        ("MLFLOW_AWS_SEAL_LOCK", "legal:7"),
    ],
)
def test_error_names_variable_value_and_remedy(environ: dict[str, str], variable: str, value: str) -> None:
    environ[variable] = value
    with pytest.raises(SettingsError) as caught:
        ServerSettings.from_environ(environ)
    assert_says_what_to_do(caught.value, variable, value)


def test_versions_are_sealed_when_they_are_registered_and_not_locked_by_default(
    environ: dict[str, str],
) -> None:
    sealing = ServerSettings.from_environ(environ).sealing
    assert sealing == SealSettings(
        root="s3://artifacts-123/prefix", region="eu-central-1", at_registration=True, lock=None
    )


@pytest.mark.parametrize("lock", ["governance:1", "compliance:100"])
def test_sealing_can_wait_for_the_promotion_and_lock(lock: str, environ: dict[str, str]) -> None:
    environ |= {"MLFLOW_AWS_SEAL_AT": "promotion", "MLFLOW_AWS_SEAL_LOCK": lock}
    sealing = ServerSettings.from_environ(environ).sealing
    assert not sealing.at_registration
    assert sealing.lock is not None
    assert f"{sealing.lock.mode}:{sealing.lock.years}" == lock


READERS = (ServerSettings, MigrationSettings, IdentitySettings)


@pytest.mark.parametrize("settings", READERS)
def test_every_misspelt_variable_is_named_with_the_nearest_setting(
    environ: dict[str, str], settings: type[ServerSettings]
) -> None:
    environ |= {"MLFLOW_AWS_FASTPATH": "off", "MLFLOW_AWS_WORKER": "4", "MLFLOW_AWS_Q": "hunter2"}
    with pytest.raises(SettingsError) as caught:
        settings.from_environ(environ)
    message = str(caught.value)
    assert "MLFLOW_AWS_FASTPATH (did you mean MLFLOW_AWS_FAST_PATH?)" in message
    assert "MLFLOW_AWS_WORKER (did you mean MLFLOW_AWS_WORKERS?)" in message
    assert "MLFLOW_AWS_Q" in message
    assert "hunter2" not in message


class _Asked(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def test_settings_known_are_exactly_those_that_are_read(environ: dict[str, str]) -> None:
    asked = _Asked(environ)
    for settings in READERS:
        settings.from_environ(asked)
    assert {name for name in asked.names if name.startswith("MLFLOW_AWS_")} == VARIABLES


def test_server_may_not_be_the_migrator(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_DATABASE_MIGRATOR"] = "mlflow_server"
    with pytest.raises(SettingsError, match="must not own the schema"):
        MigrationSettings.from_environ(environ)


@pytest.mark.parametrize(("cpus", "workers"), [(None, 1), (1, 1), (2, 2), (4, 4), (64, 8)])
def test_every_two_cpus_get_a_worker(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, cpus: int | None, workers: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    del environ["MLFLOW_AWS_WORKERS"]
    environ["MLFLOW_AWS_DATABASE_MAX_CONNECTIONS"] = "100"
    assert ServerSettings.from_environ(environ).workers == workers


def test_too_few_connections_say_how_many_are_needed(environ: dict[str, str]) -> None:
    environ["MLFLOW_AWS_DATABASE_MAX_CONNECTIONS"] = "10"
    with pytest.raises(SettingsError, match="2 worker\\(s\\) need at least 24 connections"):
        ServerSettings.from_environ(environ)


@given(total=st.integers(1, 2000), workers=st.integers(1, 16), fast_path=st.booleans(), reader=st.booleans())
def test_pools_never_exceed_the_task_s_connections_and_never_starve_a_thread(
    total: int, workers: int, fast_path: bool, reader: bool
) -> None:
    try:
        share = Connections.divide(total=total, workers=workers, fast_path=fast_path, reader=reader)
    except ValueError:
        return
    in_use = 2 * share.threads
    assert share.pool_size + share.max_overflow >= in_use, "log_batch holds two connections"
    assert workers * (in_use + share.pool_size + share.fast_path + share.reader + 4) <= total
    # MLflow takes 0 for unset, and SQLAlchemy's default is 10.
    assert share.max_overflow > 0
    assert (share.fast_path > 0) == fast_path
    assert (share.reader > 0) == (fast_path and reader)


@given(workers=st.integers(1, 16), fast_path=st.booleans())
def test_named_least_total_is_enough(workers: int, fast_path: bool) -> None:
    with pytest.raises(ValueError, match="at least") as caught:
        Connections.divide(total=1, workers=workers, fast_path=fast_path)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert Connections.divide(total=least, workers=workers, fast_path=fast_path).threads >= 2
    with pytest.raises(ValueError, match="at least"):
        Connections.divide(total=least - 1, workers=workers, fast_path=fast_path)
