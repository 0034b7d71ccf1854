"""The manifest: what is recorded, and what shows afterwards."""

from __future__ import annotations

import datetime as dt

import pytest
from model_lifecycle import evidence
from model_lifecycle.evidence import Manifest, UnreadableError

from tests.lifecycle.conftest import MemoryS3

URI = "s3://example-artifacts/1/models/m-1/artifacts"
KEY = "1/models/m-1/artifacts"


@pytest.fixture
def s3() -> MemoryS3:
    made = MemoryS3()
    made.write(f"{KEY}/MLmodel", b"flavors: {}")
    made.write(f"{KEY}/code/model.py", b"print()")
    made.write(f"{KEY}-of-another/MLmodel", b"not ours")
    return made


def test_a_manifest_names_every_file_below_the_model_and_no_other(s3: MemoryS3) -> None:
    assert [item.path for item in evidence.record(s3, URI).items] == ["MLmodel", "code/model.py"]


def test_untouched_files_are_intact(s3: MemoryS3) -> None:
    assert evidence.verify(s3, evidence.record(s3, URI)) == ()


def test_an_overwritten_file_shows_with_both_object_versions(s3: MemoryS3) -> None:
    manifest = evidence.record(s3, URI)
    expected = manifest.items[0].version_id
    found = s3.write(
        f"{KEY}/MLmodel", b"flavors: {other: {}}", at=dt.datetime(2026, 2, 3, 4, 5, tzinfo=dt.UTC)
    )
    (damage,) = evidence.verify(s3, manifest)
    assert (damage.path, damage.what, damage.when) == ("MLmodel", "overwritten", "2026-02-03T04:05:00+00:00")
    assert (damage.expected_version_id, damage.found_version_id, damage.recoverable) == (
        expected,
        found,
        True,
    )


def test_a_file_written_again_with_the_same_content_shows_too(s3: MemoryS3) -> None:
    manifest = evidence.record(s3, URI)
    s3.write(f"{KEY}/MLmodel", b"flavors: {}")
    assert evidence.verify(s3, manifest)[0].what == "written again with the same content"


def test_a_deleted_file_shows_with_its_delete_marker(s3: MemoryS3) -> None:
    manifest = evidence.record(s3, URI)
    s3.mark_deleted(f"{KEY}/code/model.py")
    (damage,) = evidence.verify(s3, manifest)
    assert (damage.path, damage.what, damage.found_version_id) == ("code/model.py", "deleted", "marker-1")
    assert damage.recoverable


def test_an_added_file_shows(s3: MemoryS3) -> None:
    manifest = evidence.record(s3, URI)
    s3.write(f"{KEY}/extra.py", b"import os")
    assert [(each.path, each.what) for each in evidence.verify(s3, manifest)] == [("extra.py", "added")]


def test_a_file_younger_than_the_promotion_shows_even_if_the_manifest_was_written_again(s3: MemoryS3) -> None:
    promoted = dt.datetime.now(dt.UTC)
    assert evidence.written_after(evidence.record(s3, URI), promoted) == ()
    s3.write(f"{KEY}/MLmodel", b"forged", at=promoted + dt.timedelta(seconds=2))
    assert evidence.written_after(evidence.record(s3, URI), promoted) == ("MLmodel",)


def test_a_manifest_survives_its_tags_however_many_files_it_has() -> None:
    items = tuple(
        evidence.Item(f"part-{n:04}", "v" * 32, "0" * 64, "e" * 32, n, "2026-01-01T00:00:00+00:00")
        for n in range(1000)
    )
    manifest = Manifest("bucket", "prefix", items)
    tags = manifest.to_tags()
    assert len(tags) > 1
    assert all(len(value) <= 100_000 for value in tags.values())
    assert Manifest.from_tags(tags) == manifest


def test_what_is_not_in_s3_cannot_be_recorded(s3: MemoryS3) -> None:
    with pytest.raises(UnreadableError, match="not in S3"):
        evidence.record(s3, "file:///models/1")


def test_a_model_without_files_cannot_be_recorded(s3: MemoryS3) -> None:
    with pytest.raises(UnreadableError, match="holds no objects"):
        evidence.record(s3, "s3://example-artifacts/2")
