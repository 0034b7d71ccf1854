from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from examples.credit_risk.data import CSV, TARGET, dvc_md5, features, load, snapshot


def test_snapshot_names_the_bytes() -> None:
    taken = load().snapshot
    assert taken.sha256 == hashlib.sha256(CSV.read_bytes()).hexdigest()
    assert (taken.bytes, taken.rows) == (CSV.stat().st_size, 2400)


def test_snapshot_names_the_commit_that_changed_the_file_and_whether_it_was_edited_since(
    tmp_path: Path,
) -> None:
    file = tmp_path / "credit.csv"
    file.write_text("a\n")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "data"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert (snapshot(file, rows=1).git_revision, snapshot(file, rows=1).git_modified) == (head, False)
    file.write_text("b\n")
    assert (snapshot(file, rows=1).git_revision, snapshot(file, rows=1).git_modified) == (head, True)


def test_outside_git_and_dvc_the_snapshot_claims_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    file = tmp_path / "credit.csv"
    file.write_text("a\n")
    assert set(snapshot(file, rows=1).tags()) == {"file", "sha256", "bytes", "rows"}


def test_dvc_pointer_beside_the_file_gives_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "credit.csv"
    assert dvc_md5(file) is None
    pointer = "outs:\n- md5: 0f343b0931126a20f133d67c2b018a3b\n  size: 2\n  path: {}\n"
    (tmp_path / "credit.csv.dvc").write_text(pointer.format("other.csv"))
    assert dvc_md5(file) is None
    (tmp_path / "credit.csv.dvc").write_text(pointer.format("credit.csv"))
    assert dvc_md5(file) == "0f343b0931126a20f133d67c2b018a3b"


def test_file_of_something_else_is_refused_by_its_columns(tmp_path: Path) -> None:
    other = tmp_path / "credit.csv"
    other.write_text("colour,defaulted\nred,1\n")
    with pytest.raises(ValueError, match=r"'colour'.*python -m examples\.credit_risk\.generate"):
        load(other)


def test_rows_for_judging_are_never_learned_from_and_stay_the_same_for_a_weak_model() -> None:
    data = load()
    assert not set(data.fitting.index) & set(data.judging.index)
    assert len(data.fitting) + len(data.judging) == len(data.table)
    weak = data.only(60)
    assert len(weak.fitting) == 60
    assert weak.judging.equals(data.judging)


def test_answer_is_no_feature() -> None:
    assert TARGET not in features(load().table)
