"""What a source is kept in becomes one archive; what cannot be read is refused with the way out."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


class Histories:
    """A server's answers about one metric, as MLflow cuts them."""

    def __init__(self, most: int, sizes: dict[str, int]) -> None:
        self.most, self.questions = most, 0
        self.points = {run: [{"key": "loss", "value": 0.5, "step": step} for step in range(size)]
                       for run, size in sizes.items()}  # fmt: skip

    def answer(self, method: str, path: str, question: dict[str, Any]) -> SimpleNamespace:
        self.questions += 1
        if path.endswith("bulk"):
            asked = [
                {**each, "run_id": run} for run in sorted(question["run_id"]) for each in self.points[run]
            ]
            return SimpleNamespace(status_code=200, text=json.dumps({"metrics": asked[: self.most]}))
        first = int(question.get("page_token", 0))
        page: dict[str, Any] = {"metrics": self.points[question["run_id"]][first : first + self.most]}
        if first + self.most < len(self.points[question["run_id"]]):
            page["next_page_token"] = str(first + self.most)
        return SimpleNamespace(status_code=200, text=json.dumps(page))


@given(sizes=st.lists(st.integers(0, 25), min_size=1, max_size=12), most=st.integers(1, 10))
def test_every_point_is_read_once_however_an_answer_is_cut(sizes: list[int], most: int) -> None:
    server = Histories(most, {f"run-{number:02}": size for number, size in enumerate(sizes)})
    source = rest._Source(None, None, pytest.fail)  # type: ignore[arg-type]
    with mock.patch.object(source, "_answer", server.answer), mock.patch.object(rest, "_POINTS", most):
        read = source.points("loss", sorted(server.points, reverse=True)).decode().splitlines()
    points = sorted((line.split("\t")[5], int(line.split("\t")[3])) for line in read)
    assert points == [(run, each["step"]) for run in server.points for each in server.points[run]]
    # The points of a run whose answer was cut are asked for again, and no others.
    assert server.questions <= 1 + 2 * sum(sizes) / most + len(sizes)


def test_a_hundred_runs_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Histories(25_000, {f"{number:032x}": 20 for number in range(100)})
    source = rest._Source(None, None, pytest.fail)  # type: ignore[arg-type]
    monkeypatch.setattr(source, "_answer", server.answer)
    assert source.points("loss", list(server.points)).count(b"\n") == 2000
    assert server.questions == 1


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
