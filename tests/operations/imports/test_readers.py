"""What a source is kept in becomes one archive; what cannot be read is refused with the way out."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from operations.errors import CannotRunError, FailedError
from operations.imports import databases, dumps, mlruns, rest
from operations.imports.archive import Archive, text

_HEAD = "c3d6457b6d8a"
_DUMP = f"""--
-- PostgreSQL database dump
--
COPY public.alembic_version (version_num) FROM stdin;
{_HEAD}
\\.

COPY public.runs (run_uuid, name) FROM stdin;
one\ta\\tname
two\t\\N
\\.

COPY public.secrets (secret_id, encrypted_value) FROM stdin;
1\t\\\\x00
\\.

COPY public.users (id, password_hash) FROM stdin;
1\thash
\\.
"""


def begin(folder: Path, revision: str) -> Archive:
    return Archive(folder, source="test", kind="test", revision=revision)


def read_dump(path: Path) -> Archive:
    return dumps.read(path, lambda revision: begin(path.parent / "archive", revision), lambda _: None)


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_s_rows_are_parts_and_its_secrets_stay_there(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "dump"
    path.write_bytes(gzip.compress(_DUMP.encode()) if packed else _DUMP.encode())
    archive = read_dump(path)
    assert archive.rows() == {"runs": 2}
    assert archive.manifest["left_out"] == {"secrets": 1}
    assert archive.manifest["revision"] == _HEAD
    assert list(archive.values("runs", "name", "run_uuid")) == [("a\tname", "one"), (None, "two")]


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"PGDMP\x01", "pg_restore --no-owner -f dump.sql"),
        (b"-- MySQL dump 10.13", "load it into a server of its own"),
        (b"SQLite format 3\x00", "sqlite:///"),
        (b"hello", "not a plain dump"),
        (b"-- PostgreSQL database dump\nINSERT INTO runs", "--inserts"),
        (_DUMP.replace(_HEAD, "ffffffffffff").encode(), "the source is newer"),
        (_DUMP.partition("two")[0].encode(), "dump it again"),
    ],
)
def test_another_dump_is_refused_with_what_makes_a_right_one(
    tmp_path: Path, content: bytes, remedy: str
) -> None:
    path = tmp_path / "dump"
    path.write_bytes(content)
    with pytest.raises(CannotRunError, match=remedy):
        read_dump(path)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql://me:secret@host/mlflow", "PGPASSWORD"),
        ("mssql://host/mlflow", "PostgreSQL, MySQL and SQLite"),
        ("sqlite:////nowhere.db", "no SQLite database"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str, remedy: str) -> None:
    with pytest.raises(CannotRunError, match=remedy) as refused:
        databases.parsed(url, {})
    assert "secret" not in str(refused.value)


def test_a_server_s_password_does_not_belong_on_a_command_line(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="put it into MLFLOW_TRACKING_USERNAME") as refused:
        rest.read("https://someone:secret@host", lambda revision: begin(tmp_path, revision), print)
    assert "secret" not in str(refused.value)


def test_a_nul_is_refused_by_table_column_and_row(tmp_path: Path) -> None:
    with (
        pytest.raises(FailedError, match=r"tags\.value holds a NUL .* where key='a', run_uuid='r'"),
        begin(tmp_path, _HEAD).part("tags", "tags", ["key", "value", "run_uuid"]) as part,
    ):
        part.add([("b", "fine", "r"), ("a", "x\0y", "r")])


@pytest.mark.parametrize("value", ["", "plain", "a\tb\nc\rd\\e", "\\N", "ü€😀\x7f\x0b"])
def test_a_text_comes_back_as_it_was(tmp_path: Path, value: str) -> None:
    archive = begin(tmp_path, _HEAD)
    with archive.part("tags", "tags", ["value"]) as part:
        part.add([(value,)])
    assert list(archive.values("tags", "value")) == [(value,)]


def test_numbers_and_bytes_are_what_copy_reads() -> None:
    values = (None, True, 1 / 3, float("inf"), b"\x00\xff", 7)
    assert [text(each) for each in values] == [
        "\\N", "t", "0.3333333333333333", "inf", r"\\x00ff", "7",
    ]  # fmt: skip


def test_an_interrupted_archive_goes_on_where_it_was(tmp_path: Path) -> None:
    with begin(tmp_path, _HEAD).part("runs", "runs", ["run_uuid"]) as part:
        part.add([("one",)])
    again = begin(tmp_path, _HEAD)
    assert again.has("runs")
    again.finish(suffix="", roots={})
    assert not begin(tmp_path, _HEAD).has("runs")


def test_a_folder_of_runs_keeps_every_point_once(tmp_path: Path) -> None:
    run = tmp_path / "mlruns" / "738123456789012345" / "0123456789abcdef0123456789abcdef"
    (run / "metrics" / "val").mkdir(parents=True)
    run.with_name("meta.yaml").write_text("experiment_id: '738123456789012345'\nname: folder\n")
    (run / "meta.yaml").write_text(f"run_uuid: {run.name}\nstatus: 3\nartifact_uri: file:///x\n")
    (run / "metrics" / "val" / "loss").write_text("10 0.5 0\n10 0.5 0\n11 nan 1\n12 -inf 1\n9 0.25 1\n")
    archive = mlruns.read(
        tmp_path / "mlruns", lambda revision: begin(tmp_path / "archive", revision), lambda _: None
    )
    assert list(archive.values("metrics", "key", "timestamp", "value", "is_nan")) == [
        ("val/loss", "10", "0.5", "f"),
        ("val/loss", "11", "0.0", "t"),
        ("val/loss", "12", "-1.7976931348623157e+308", "f"),
        ("val/loss", "9", "0.25", "f"),
    ]
    assert list(archive.values("latest_metrics", "timestamp", "step")) == [("12", "1")]
    assert list(archive.values("runs", "experiment_id", "status")) == [("738123456789012345", "FINISHED")]


def test_another_sqlite_database_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE runs (a)")
    url = databases.parsed(f"sqlite:///{tmp_path / 'other.db'}", {})
    with pytest.raises(CannotRunError, match="alembic_version"):
        databases.read(url, lambda revision: begin(tmp_path / "archive", revision), lambda _: None)
