"""Another MLflow becomes part of a deployed one: from its database as printed, and from its server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.parts.ports import free_port
from local.parts.postgres import Postgres, running
from tests.clients.installation import client, overlay
from tests.databases.loading import load
from tests.databases.make_databases import _files, answering
from tests.databases.sources import ARTIFACT_BUCKET, BY_NAME, Source
from tests.deploy.conftest import SERVICE, EmulatedAccount
from tests.documents import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# The servers go on with what arrived: they seal the versions that have a stage or an alias.
GOES_ON = ("experiments", "model_versions", "model_version_tags")


@pytest.fixture(scope="module")
def deployed(emulated: EmulatedAccount) -> EmulatedAccount:
    emulated.shell.does("make bootstrap ENV=dev")
    emulated.shell.does('make deploy ENV=dev PREFLIGHT=no SMOKE=no ARGS="--require-approval never"')
    for bucket in (ARTIFACT_BUCKET, "example"):
        emulated.aws.client("s3").create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": emulated.aws.region}
        )
    return emulated


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of somebody else's."""
    with tempfile.TemporaryDirectory(prefix="mlflow-source-") as directory:
        Path(directory).chmod(0o711)
        made = Postgres(Path(directory) / "data", free_port(), hba=("host all mlflow 127.0.0.1/32 trust",))
        with running(made):
            with made.cursor() as cursor:
                cursor.execute("CREATE ROLE mlflow SUPERUSER LOGIN")
            yield made


def filled(postgres: Postgres, database: str, source: Source) -> None:
    with postgres.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} OWNER mlflow")
    with postgres.cursor(database) as cursor:
        load(cursor, source.sql())


def report(account: EmulatedAccount, command: str, **variables: str) -> dict[str, Any]:
    """What `make import` ends with; its exit code says whether something differs."""
    done = account.shell.run(f"{command} ARGS=--json", **variables)
    assert "\n{\n" in done.stdout, done.stdout
    found: dict[str, Any]
    # Behind it is what `make` says of an exit code.
    found, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.rindex("\n{\n") + 1 :])
    differing = [table for table, each in found["rows"].items() if each["differing"]]
    assert (done.returncode == 0) == (found["dry_run"] or not differing), done.stdout
    return found


def everything(account: EmulatedAccount) -> tuple[dict[str, bytes], list[tuple[Any, ...]]]:
    """Every file that was imported, and a digest of the rows of each table."""
    s3, bucket = account.aws.client("s3"), account.stack(SERVICE).outputs["ArtifactBucket"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    files = {
        key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys if "/imported/" in f"/{key}"
    }
    with account.platform.postgres.cursor("mlflow") as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        tables = [name for (name,) in cursor.fetchall() if name not in GOES_ON]
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.{table} t"
                for table in tables
            )
        )
        return files, sorted(cursor.fetchall())


def all_is_here(found: dict[str, Any], source: Source, files: Path) -> None:
    there = source.expectation()["rows"]
    assert [table for table, each in found["rows"].items() if each["differing"]] == []
    assert {name: found["rows"][name]["here"] for name in ("runs", "metrics", "params")} == {
        name: there[name] for name in ("runs", "metrics", "params")
    }
    kept = _files(files)
    assert found["artifacts"]["files"] == {"there": len(kept), "here": len(kept), "differing": 0}


def test_a_database_is_imported_as_printed_and_once(
    deployed: EmulatedAccount, postgres: Postgres, tmp_path: Path
) -> None:
    source = BY_NAME["3.14.0-postgresql"]
    filled(postgres, "mlflow", source)
    source.unpack_artifacts(tmp_path)
    for path, content in _files(tmp_path).items():
        deployed.aws.client("s3").put_object(Bucket=ARTIFACT_BUCKET, Key=f"artifacts/{path}", Body=content)
    (printed,) = (
        each.commands for each in blocks("docs/operations.md") if each.commands.startswith("make import")
    )
    dry, real = (line.partition("#")[0].strip() for line in printed.splitlines())
    # The name that is printed, and where it is.
    at = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(postgres.port)}
    before = everything(deployed)
    assert report(deployed, dry, **at)["dry_run"]
    assert everything(deployed) == before
    all_is_here(report(deployed, real, **at), source, tmp_path)
    after = everything(deployed)
    assert {path.partition("imported/mlflow/")[2].partition("/")[2] for path in after[0]} == set(
        _files(tmp_path)
    )
    assert report(deployed, real, **at)["copied"] == {}
    assert everything(deployed) == after


def test_a_server_is_imported_with_its_files_and_once(
    deployed: EmulatedAccount, postgres: Postgres, tmp_path: Path
) -> None:
    source = BY_NAME["2.11.3-postgresql"]
    filled(postgres, "old", source)
    source.unpack_artifacts(tmp_path / "files")
    python = client(source.version)
    environ = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(overlay("stores", python)),
        "HOME": str(tmp_path),
    }
    uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{postgres.port}/old"
    with answering(uri, tmp_path, environ, ["--artifacts-destination", str(tmp_path / "files")]) as url:
        command = f"make import ENV=dev FROM={url} NAME=server"
        all_is_here(report(deployed, command), source, tmp_path / "files")
        after = everything(deployed)
        assert report(deployed, command)["copied"] == {}
        assert everything(deployed) == after
