"""`erase`: only the break-glass role begins, every version goes that no lock holds, a certificate counts."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from operations import erase, task
from operations.command import Report
from operations.errors import CannotRunError
from stacks.config import ObjectLockConfig
from tests.object_store import ObjectStore
from tests.operations.answers import Scripted, deployment

ROLE = "arn:aws:iam::111122223333:role/emergency/break-glass"
SESSION = "arn:aws:sts::111122223333:assumed-role/break-glass/ada"
AUTHOR = "arn:aws:iam::111122223333:role/ada"
OUTSIDE = "s3://other/run"


class Site:
    """A bucket with Object Lock, and a task that answers as the server's does."""

    def __init__(self, store: ObjectStore) -> None:
        self.s3, self.bucket = store.client, f"erase-{secrets.token_hex(4)}"
        self.s3.create_bucket(
            Bucket=self.bucket,
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
            ObjectLockEnabledForBucket=True,
        )
        for key in ("t/1/a/x", "t/1/a/x", "t/1/b/x", "t/1/b/y", "t/1/other/x"):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x" * 10)
        self.s3.delete_object(Bucket=self.bucket, Key="t/1/a/x")
        self.who, self.role = SESSION, ROLE
        self.asked: list[list[str]] = []
        self.planned: dict[str, Any] = {
            "things": {"runs": {"a": ["t/1/a/"], "b": ["t/1/b/"]}},
            "rows": {"runs": 2, "tags": 6},
            "kept": {},
            "elsewhere": [],
            "more": False,
        }

    def versions(self, prefix: str = "t/1/") -> list[str]:
        found = self.s3.list_object_versions(Bucket=self.bucket, Prefix=prefix)
        return sorted(each["Key"] for each in found.get("Versions", []) + found.get("DeleteMarkers", []))

    def document(self, name: str) -> Any:
        (key,) = {key for key in self.versions("t/erasures/") if key.endswith(f"{name}.json")}
        return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def ran(self, _: Any, operation: str, *, arguments: list[str], follow: Any) -> dict[str, Any]:
        assert operation == "Erase"
        self.asked.append(arguments)
        if arguments[0].startswith("--what"):
            return json.loads(json.dumps(self.planned))  # type: ignore[no-any-return]
        left = [each for each in ("a", "b") if self.versions(f"t/1/{each}/")]
        kept = {f"runs {each}": "a file is still there" for each in left}
        return {"kept": kept, "rows_left": {"runs": 1, "tags": 3} if left else {}}

    def erase(self, *, dry_run: bool = False, what: str = "author", value: str = AUTHOR) -> Report:
        sts = Scripted({"get_caller_identity": lambda: {"Arn": self.who}}, service="sts")
        base = deployment({"s3": self.s3, "sts": sts})
        artifacts = base.environment.artifacts.model_copy(
            update={
                "prefix": "t",
                "break_glass_role_arn": self.role,
                "object_lock": ObjectLockConfig(mode="governance", years=1),
            }
        )
        environment = base.environment.model_copy(update={"artifacts": artifacts})
        here = dataclasses.replace(base, environment=environment, outputs={"ArtifactBucket": self.bucket})
        options = argparse.Namespace(**dict.fromkeys(erase.WHAT), dry_run=dry_run, yes=True)
        setattr(options, what, value)
        return erase.run(here, options, lambda _: None)


@pytest.fixture
def site(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(object_store)
    monkeypatch.setattr(task, "run", site.ran)
    return site


def test_every_version_and_marker_goes_and_a_certificate_says_so(site: Site) -> None:
    report = site.erase()
    assert site.versions() == ["t/1/other/x"]
    certificate = site.document("certificate")
    assert certificate["rows"] == {"runs": 2, "tags": 6}
    assert certificate["things"] == {"runs": 2}
    assert [certificate[each] for each in ("versions", "markers", "bytes")] == [4, 1, 40]
    assert (certificate["by"], certificate["kept"], report.good) == (SESSION, {}, True)
    # It proves for whom, and does not name them.
    assert certificate["value"] == f"sha256:{hashlib.sha256(AUTHOR.encode()).hexdigest()}"
    assert AUTHOR not in json.dumps(certificate)
    assert any("automated backups" in each for each in certificate["left"])
    name, sha256 = certificate["request"]["id"], certificate["request"]["sha256"]
    assert site.asked[1] == [f"--request={name}", f"--sha256={sha256}"]
    assert report.document["certificate"] == {
        "uri": f"s3://{site.bucket}/t/erasures/{name}/certificate.json",
        "sha256": report.text.split()[-1],
    }
    assert "went for author" in report.text


def test_a_dry_run_changes_nothing_and_needs_no_break_glass(site: Site) -> None:
    before, site.who = site.versions(""), "arn:aws:iam::111122223333:user/somebody"
    report = site.erase(dry_run=True)
    assert report.text.startswith("would go for author")
    assert "4 versions of objects, 40 bytes, and 1 delete markers" in report.text
    assert site.versions("") == before


@pytest.mark.parametrize("lock", ["hold", "retention"])
def test_what_a_lock_holds_stays_whole_and_the_certificate_says_so(lock: str, site: Site) -> None:
    if lock == "hold":
        site.s3.put_object_legal_hold(Bucket=site.bucket, Key="t/1/b/y", LegalHold={"Status": "ON"})
    else:
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": "2099-01-01T00:00:00Z"}
        site.s3.put_object_retention(Bucket=site.bucket, Key="t/1/b/y", Retention=retention)
    report = site.erase()
    assert site.versions() == ["t/1/b/x", "t/1/b/y", "t/1/other/x"]
    certificate = site.document("certificate")
    why = "legal hold on t/1/b/y" if lock == "hold" else "t/1/b/y is locked until 2099-01-01"
    assert certificate["kept"] == {"runs b": why}
    assert certificate["rows"] == {"runs": 1, "tags": 3}
    assert [certificate[each] for each in ("versions", "markers", "bytes")] == [2, 1, 20]
    assert (certificate["things"], report.good) == ({"runs": 1}, False)


@pytest.mark.parametrize("where", ["files", "rows", "certificate"])
def test_interrupted_anywhere_it_goes_on_and_counts_all_of_it(
    where: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if where == "files":
            patched.setattr(erase, "_AT_ONCE", 1)
            patched.setattr(site, "s3", Dying(site.s3, "delete_objects", after=2))
        elif where == "rows":
            patched.setattr(task, "run", lambda *a, **k: dies() if site.asked else site.ran(*a, **k))
        else:
            patched.setattr(erase, "_difference", dies)
        with pytest.raises(KeyboardInterrupt):
            site.erase()
    # Another erasure is not taken for this one.
    assert site.erase(value="somebody else", dry_run=True).document["things"]
    site.erase()
    certificate = site.document("certificate")
    assert certificate["rows"] == {"runs": 2, "tags": 6}
    assert [certificate[each] for each in ("versions", "markers", "bytes")] == [4, 1, 40]
    assert site.versions() == ["t/1/other/x"]


class Dying:
    """A client whose process is killed at a call."""

    def __init__(self, client: Any, operation: str, *, after: int) -> None:
        self._client, self._operation, self._left = client, operation, after

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self._client, name)
        if name == self._operation:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        return call


def test_only_a_session_of_the_break_glass_role_begins(site: Site) -> None:
    before = site.versions("")
    for who in (
        "arn:aws:sts::111122223333:assumed-role/break-glass-too/ada",
        "arn:aws:sts::444455556666:assumed-role/break-glass/ada",
        "arn:aws:iam::111122223333:user/break-glass",
    ):
        site.who = who
        with pytest.raises(CannotRunError, match=r"only .*break-glass may erase"):
            site.erase()
    site.role = None  # type: ignore[assignment]
    with pytest.raises(CannotRunError, match=r"set artifacts\.break_glass_role_arn"):
        site.erase()
    assert (site.versions(""), site.asked) == (before, [])
