"""Makes the files in `made/`: real databases, written by a server and a client of one version each.

    apt-get install postgresql postgresql-common mariadb-server
    pg_virtualenv python -m tests.databases.make_databases [SOURCE ...]

`pg_virtualenv` is Debian's PostgreSQL for the duration of a command. Each source is made again as a whole:
its ids, times and digests are others then.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from local.parts.ports import free_port
from tests.clients.installation import client, overlay
from tests.databases.sources import ARTIFACT_BUCKET, SOURCES, Source
from tests.object_store import ObjectStore

_HERE = Path(__file__).parent
_START_SECONDS = 120


def main(names: list[str]) -> None:
    for source in SOURCES:
        if not names or source.name in names:
            with tempfile.TemporaryDirectory() as directory, _object_store() as store:
                make(source, Path(directory), store)
                print(source.name, *(f"{file.name} {file.stat().st_size}" for file in source.files))


def make(source: Source, work: Path, store: ObjectStore) -> None:
    """Write, see, dump, and keep the artifacts of one source."""
    environ = _environ(source, work, store)
    revision, rows = "", dict[str, int]()
    with _backend(source, work) as (uri, dump):
        if source.backend == "mlruns":
            environ["MLFLOW_TRACKING_URI"] = str(source.mlruns)
            seen = _written_and_seen(environ, source)
            kept: dict[str, bytes] = _files(source.mlruns)
        else:
            with _server(source, uri, work, environ) as url:
                environ["MLFLOW_TRACKING_URI"] = url
                seen = _written_and_seen(environ, source)
            kept = store.read("artifacts") if source.on_s3 else _files(work / "artifacts")
            revision, rows = _counted(source, uri, environ)
            source.dump.write_bytes(gzip.compress(dump(), 9, mtime=0))
    _pack(source.artifacts, kept)
    document = {"mlflow": source.version, "revision": revision, "rows": rows, "seen": seen}
    source.expected.write_bytes(
        gzip.compress(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True).encode(), 9, mtime=0)
    )


def _environ(source: Source, work: Path, store: ObjectStore) -> dict[str, str]:
    python = client(source.version)
    return {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(overlay("stores", python)),
        "HOME": str(work),
        "USER": "alice",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_REGION": "eu-central-1",
    }


@contextlib.contextmanager
def _object_store() -> Iterator[ObjectStore]:
    store = ObjectStore(bucket=ARTIFACT_BUCKET)
    store.start()
    try:
        yield store
    finally:
        store.stop()


@contextlib.contextmanager
def _backend(source: Source, work: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The store's URI, and what dumps it."""
    if source.backend == "postgresql":
        user, password, port = (os.environ[name] for name in ("PGUSER", "PGPASSWORD", "PGPORT"))
        _run("psql", "-qc", "DROP DATABASE IF EXISTS mlflow", "-c", "CREATE DATABASE mlflow", "postgres")
        yield (
            f"postgresql://{user}:{password}@{os.environ['PGHOST']}:{port}/mlflow",
            lambda: _run("pg_dump", "--no-owner", "--no-privileges", "mlflow"),
        )
    elif source.backend == "mysql":
        with _mariadb(work) as (mysql_port, socket):
            yield (
                f"mysql+pymysql://root@127.0.0.1:{mysql_port}/mlflow",
                lambda: _run(
                    "mariadb-dump", "--no-defaults", f"--socket={socket}", "--skip-dump-date", "mlflow"
                ),
            )
    else:
        path = work / "mlflow.db"
        yield f"sqlite:///{path}", path.read_bytes


@contextlib.contextmanager
def _mariadb(work: Path) -> Iterator[tuple[int, Path]]:
    """An empty database `mlflow` in a server without passwords."""
    data, socket, port = work / "mariadb", work / "mariadb.sock", free_port()
    options = ["--no-defaults", f"--datadir={data}", "--user=root"]
    _run("mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db")
    server = subprocess.Popen(
        ["mariadbd", *options, f"--socket={socket}", "--bind-address=127.0.0.1", f"--port={port}"],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not socket.exists():
            assert time.monotonic() < deadline, "MariaDB did not start"
            time.sleep(0.1)
        _run(
            "mariadb",
            "--no-defaults",
            f"--socket={socket}",
            "-e",
            "CREATE DATABASE mlflow CHARACTER SET utf8mb4",
        )
        yield port, socket
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _server(source: Source, uri: str, work: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """The server of that version, with artifacts as its documentation of the time had them."""
    places = (
        ["--default-artifact-root", f"s3://{ARTIFACT_BUCKET}/artifacts", "--no-serve-artifacts"]
        if source.on_s3
        else ["--artifacts-destination", str(work / "artifacts")]
    )
    with answering(uri, work, environ, places) as url:
        yield url


@contextlib.contextmanager
def answering(uri: str, work: Path, environ: Mapping[str, str], options: list[str]) -> Iterator[str]:
    """`mlflow server`, whichever the environment's PATH has, once it answers."""
    port = free_port()
    log = work / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers", "1", *options],
            env=environ, cwd=work, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _is_healthy(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _written_and_seen(environ: Mapping[str, str], source: Source) -> object:
    with tempfile.TemporaryDirectory() as empty:
        for script in ("written.py", "seen.py"):
            done = subprocess.run(
                ["python", str(_HERE / script)],
                env=environ,
                cwd=empty,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{source.name}: {script}:\n{done.stdout[-2000:]}{done.stderr}"
    return json.loads(done.stdout)


_COUNT = """
import json, sys, sqlalchemy
engine = sqlalchemy.create_engine(sys.argv[1])
with engine.connect() as connection:
    ask = lambda statement: connection.execute(sqlalchemy.text(statement)).scalar()
    print(json.dumps([
        ask("SELECT version_num FROM alembic_version"),
        {name: ask(f"SELECT count(*) FROM {name}") for name in sqlalchemy.inspect(engine).get_table_names()},
    ]))
"""


def _counted(source: Source, uri: str, environ: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """The schema's revision and each table's rows."""
    python = client(source.version)
    revision, rows = json.loads(_run(str(python), "-c", _COUNT, uri, env=environ))
    return revision, rows


def _run(*command: str, env: Mapping[str, str] | None = None) -> bytes:
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr.decode()}"
    return done.stdout


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _pack(target: Path, files: Mapping[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    target.write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1:])
