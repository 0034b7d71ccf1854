"""The copies themselves, on the session's S3: whole, in parts, interrupted, of what changes meanwhile."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlflow_aws_server.sealing import Seal, copying
from mlflow_aws_server.sealing.copying import Copier
from mlflow_aws_server.sealing.errors import DelayedError, UnsealableError
from mlflow_aws_server.sealing.objects import Objects
from mlflow_aws_server.sealing.places import Root
from mlflow_aws_server.sealing.versions import PENDING, VersionRow
from mlflow_aws_server.settings import ObjectLock

from tests.object_store import ObjectStore

MIB = 2**20
FILES = {"MLmodel": b"flavors: {}\n", "data/model.pkl": b"x" * 1000, "data/empty": b""}


class Watched:
    """S3's client, which notes its calls and can be made to do something, or fail, in the middle."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.before: Callable[[str, dict[str, Any]], None] = lambda name, arguments: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            self.before(name, arguments)
            return method(**arguments)

        return method if name == "get_paginator" else call

    def count(self, name: str) -> int:
        return sum(name == called for called, _ in self.calls)


class Bench:
    """A version with files, and what seals it."""

    def __init__(self, store: ObjectStore, **how: Any) -> None:
        self.store = store
        self.root = f"runs/{secrets.token_hex(4)}"
        self.source = f"s3://{store.bucket}/{self.root}/0/run/artifacts/model"
        self.client = Watched(store.client)
        self._objects = Objects(self.client, store.bucket, **{"lock": None, **how})
        self.start()

    def start(self) -> None:
        self.threads = ThreadPoolExecutor(16)
        root = Root.read(f"s3://{self.store.bucket}/{self.root}")
        self.copier = Copier(self._objects, root, self.threads)

    def write(self, files: dict[str, bytes]) -> None:
        self.store.write_model(f"{self.root}/0/run/artifacts/model", files)

    def delete(self, path: str) -> None:
        self.store.client.delete_object(
            Bucket=self.store.bucket, Key=f"{self.root}/0/run/artifacts/model/{path}"
        )

    def seal(self, *locations: str, name: str = "model") -> Seal:
        version = VersionRow(
            name=name, version=1, creation_time=1700000000000, source=self.source, location=self.source,
            run_id=None, status=PENDING, message="", live=False, seal=None, former_seal=None,
        )  # fmt: skip
        places = list(locations or [self.source])
        return asyncio.run(self.copier.seal(version, places, lambda copied, files: None))

    def manifest(self, seal: Seal) -> Any:
        body = self.store.client.get_object(Bucket=seal.bucket, Key=seal.manifest)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == seal.sha256
        return json.loads(body)

    def versions_per_key(self) -> dict[str, int]:
        """Of everything that is sealed."""
        found: dict[str, int] = {}
        answer = self.store.client.list_object_versions(
            Bucket=self.store.bucket, Prefix=f"{self.root}/sealed/"
        )
        assert not answer["IsTruncated"]
        for each in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())):
            found[each["Key"]] = found.get(each["Key"], 0) + 1
        return found


@pytest.fixture
def make(object_store: ObjectStore) -> Iterator[Callable[..., Bench]]:
    """Makes a bench with files in it."""
    made: list[Bench] = []

    def bench(files: dict[str, bytes] | None = None, **how: Any) -> Bench:
        made.append(Bench(object_store, **how))
        made[-1].write(FILES if files is None else files)
        return made[-1]

    yield bench
    for each in made:
        each.threads.shutdown()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


class Killed(BaseException):
    """The process ends."""


def die_at(bench: Bench, name: str, number: int) -> None:
    """Let the server end at the so-maniest call."""

    def before(called: str, _: dict[str, Any]) -> None:
        if called == name and bench.client.count(name) == number:
            raise Killed

    bench.client.before = before
    with pytest.raises(Killed):
        bench.seal()
    # S3 finishes what it was asked for.
    bench.threads.shutdown()
    bench.start()
    bench.client.before = lambda name, arguments: None


def test_every_file_is_copied_once_with_its_checksum(bench: Bench) -> None:
    seal = bench.seal()
    assert bench.store.read(seal.prefix) == FILES
    items = {item["path"]: item for item in bench.manifest(seal)["items"]}
    for path, content in FILES.items():
        assert items[path]["checksum"] == base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert items[path]["size"] == len(content)
    assert set(bench.versions_per_key().values()) == {1}
    assert len(bench.versions_per_key()) == len(FILES) + 1


def test_a_large_file_is_copied_in_parts_with_a_checksum_of_all(make: Callable[..., Bench]) -> None:
    content = secrets.token_bytes(12 * MIB)
    bench = make({"large.bin": content, "small": b"small"}, largest_at_once=6 * MIB, part=5 * MIB)
    seal = bench.seal()
    assert bench.store.read(seal.prefix) == {"large.bin": content, "small": b"small"}
    assert (bench.client.count("upload_part_copy"), bench.client.count("copy_object")) == (3, 1)
    parts = b"".join(
        hashlib.sha256(content[at : at + 5 * MIB]).digest() for at in range(0, len(content), 5 * MIB)
    )
    (large, small) = bench.manifest(seal)["items"]
    assert large["checksum"] == f"{base64.b64encode(hashlib.sha256(parts).digest()).decode()}-3"
    assert (large["checksum_type"], small["checksum_type"]) == ("COMPOSITE", "FULL_OBJECT")


def test_parts_of_a_server_that_ended_are_cleared_away(make: Callable[..., Bench]) -> None:
    bench = make({"large.bin": bytes(12 * MIB)}, largest_at_once=6 * MIB, part=5 * MIB)
    bench.client.before = lambda name, arguments: None
    where = {"Bucket": bench.store.bucket, "Key": f"{bench.root}/sealed/model/1/1700000000000/large.bin"}
    bench.store.client.create_multipart_upload(**where)
    bench.seal()
    assert "Uploads" not in bench.store.client.list_multipart_uploads(
        Bucket=bench.store.bucket, Prefix=bench.root
    )


def test_a_part_that_fails_leaves_no_parts_behind(make: Callable[..., Bench]) -> None:
    bench = make({"large.bin": bytes(12 * MIB)}, largest_at_once=6 * MIB, part=5 * MIB)

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "upload_part_copy" and arguments["PartNumber"] == 2:
            raise OSError("no network")

    bench.client.before = before
    with pytest.raises(OSError, match="no network"):
        bench.seal()
    assert "Uploads" not in bench.store.client.list_multipart_uploads(
        Bucket=bench.store.bucket, Prefix=bench.root
    )


@pytest.mark.parametrize(
    ("call", "number"),
    [("copy_object", 1), ("copy_object", 3), ("head_object", 2), ("put_object", 1)],
)
def test_an_interrupted_copy_is_continued_not_repeated(call: str, number: int, bench: Bench) -> None:
    die_at(bench, call, number)
    copied = bench.versions_per_key()
    bench.client.calls.clear()
    seal = bench.seal()
    assert bench.store.read(seal.prefix) == FILES
    assert bench.client.count("copy_object") == len(FILES) - len(copied)
    assert set(bench.versions_per_key().values()) == {1}


def test_a_seal_that_was_complete_is_the_same_again(bench: Bench) -> None:
    first = bench.seal()
    bench.client.calls.clear()
    assert bench.seal() == first
    assert bench.client.count("copy_object") == bench.client.count("put_object") == 0


def test_a_copy_that_another_server_has_just_made_is_not_written_over(bench: Bench) -> None:
    done = False

    def before(name: str, arguments: dict[str, Any]) -> None:
        nonlocal done
        if name == "copy_object" and not done:
            done = True
            bench.store.client.copy_object(**arguments)

    bench.client.before = before
    seal = bench.seal()
    assert bench.store.read(seal.prefix) == FILES
    assert set(bench.versions_per_key().values()) == {1}


def test_a_source_that_changes_during_the_copy_is_copied_as_it_is_then(bench: Bench) -> None:
    changed = {**FILES, "data/model.pkl": b"other"}
    etag = hashlib.md5(FILES["data/model.pkl"]).hexdigest()

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "copy_object" and arguments["CopySourceIfMatch"] == etag:
            bench.write({"data/model.pkl": b"other"})

    bench.client.before = before
    seal = bench.seal()
    assert bench.store.read(seal.prefix) == changed
    where = {"Bucket": seal.bucket, "Key": f"{seal.prefix}/data/model.pkl"}
    assert bench.store.client.head_object(**where)["Metadata"] == {
        "source-etag": hashlib.md5(b"other").hexdigest()
    }
    assert [item["path"] for item in bench.manifest(seal)["items"]] == sorted(changed)
    assert set(bench.versions_per_key().values()) == {1}


@pytest.mark.parametrize("change", ["deleted", "overwritten"])
def test_what_the_source_no_longer_holds_is_no_part_of_the_sealed_copy(change: str, bench: Bench) -> None:
    die_at(bench, "put_object", 1)
    if change == "deleted":
        bench.delete("data/model.pkl")
    else:
        bench.write({"data/model.pkl": b"other"})
    seal = bench.seal()
    assert seal.prefix == f"{bench.root}/sealed/model/1/1700000000000-2"
    sealed = bench.store.read(seal.prefix)
    assert sealed.get("data/model.pkl") == (None if change == "deleted" else b"other")
    assert sealed.keys() == {item["path"] for item in bench.manifest(seal)["items"]}
    assert set(bench.versions_per_key().values()) == {1}


def test_a_source_that_grew_after_its_manifest_was_written_is_sealed_anew(bench: Bench) -> None:
    first = bench.seal()
    bench.write({"more": b"more"})
    second = bench.seal()
    assert second.prefix == first.prefix + "-2"
    assert bench.store.read(second.prefix) == {**FILES, "more": b"more"}
    assert bench.store.read(first.prefix) == FILES


def test_a_source_that_never_rests_is_tried_again_later(bench: Bench) -> None:
    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "copy_object":
            bench.write({path: secrets.token_bytes(4) for path in FILES})

    bench.client.before = before
    with pytest.raises(DelayedError, match="stop writing to s3://"):
        bench.seal()


def test_after_a_failure_nothing_more_is_begun(make: Callable[..., Bench]) -> None:
    bench = make({f"{number:03}": b"x" for number in range(100)})

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "copy_object" and bench.client.count(name) > 3:
            raise OSError("no network")

    bench.client.before = before
    with pytest.raises(OSError, match="no network"):
        bench.seal()
    assert bench.client.count("copy_object") < 30


def test_a_source_without_a_file_is_refused_with_the_remedy(make: Callable[..., Bench]) -> None:
    bench = make({})
    bench.store.client.put_object(
        Bucket=bench.store.bucket, Key=f"{bench.root}/0/run/artifacts/model/folder/", Body=b""
    )
    with pytest.raises(UnsealableError, match="log the model first"):
        bench.seal()
    assert bench.versions_per_key() == {}


def test_too_many_files_are_refused_before_anything_is_copied(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "MOST_FILES", 9)
    assert make({str(number): b"x" for number in range(9)}).seal().files == 9
    bench = make({str(number): b"x" for number in range(10)})
    with pytest.raises(UnsealableError, match="holds more than 9 files"):
        bench.seal()
    assert bench.versions_per_key() == {}


def test_the_first_place_that_has_files_is_sealed(bench: Bench) -> None:
    empty = f"s3://{bench.store.bucket}/{bench.root}/0/run/artifacts/none"
    assert bench.seal(empty, bench.source).source == bench.source
    with pytest.raises(UnsealableError, match="no file under"):
        bench.seal(empty)


@pytest.mark.parametrize(
    "path", ["a b", "a#b", "a%20b", "a+b", "a?b=c", "模型/ü", "a&<b>", "..", "a//b", "~"]
)
def test_a_file_of_any_name_is_copied(path: str, make: Callable[..., Bench]) -> None:
    bench = make({f"f/{path}": b"content"})
    assert bench.store.read(bench.seal().prefix) == {f"f/{path}": b"content"}


def test_neighbours_whose_names_begin_alike_are_left_out(bench: Bench) -> None:
    bench.store.write_model(f"{bench.root}/0/run/artifacts/model2", {"other": b"x"})
    bench.store.write_model(f"{bench.root}/sealed/model/1/17000000000001", {"other": b"x"})
    seal = bench.seal()
    assert seal.prefix.endswith("/1700000000000")
    assert bench.store.read(seal.prefix) == FILES


def test_tags_of_the_source_are_not_copied(bench: Bench) -> None:
    where = {"Bucket": bench.store.bucket, "Key": f"{bench.root}/0/run/artifacts/model/MLmodel"}
    bench.store.client.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    seal = bench.seal()
    sealed = {"Bucket": bench.store.bucket, "Key": f"{seal.prefix}/MLmodel"}
    assert bench.store.client.get_object_tagging(**sealed)["TagSet"] == []


def test_sealed_objects_are_locked_for_as_long_as_the_setting_says(make: Callable[..., Bench]) -> None:
    bench = make(
        {"large.bin": bytes(6 * MIB), "small": b"x"},
        lock=ObjectLock(mode="compliance", years=7),
        largest_at_once=5 * MIB,
    )
    asked: dict[str, Any] = {}

    def before(name: str, arguments: dict[str, Any]) -> None:
        mode, until = arguments.pop("ObjectLockMode", None), arguments.pop("ObjectLockRetainUntilDate", None)
        if mode is not None:
            asked[name] = mode, until

    bench.client.before = before
    bench.seal()
    assert asked.keys() == {"copy_object", "create_multipart_upload", "put_object"}
    for mode, until in asked.values():
        assert mode == "COMPLIANCE"
        assert abs(until - dt.datetime.now(dt.UTC) - dt.timedelta(days=7 * 365)) < dt.timedelta(minutes=5)
