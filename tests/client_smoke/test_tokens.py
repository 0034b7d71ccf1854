from __future__ import annotations

import os
import time
from pathlib import Path

import jwt
import pytest

from client_smoke.tokens import Tokens, claims, forgeries, read_token_file
from client_smoke.verdict import CannotRun
from local.parts.token_issuer import SigningKey

KEY = SigningKey.generate()


def genuine(*, seconds: int = 300) -> str:
    return KEY.sign({"sub": "arn:aws:iam::123456789012:role/me", "exp": int(time.time()) + seconds})


def written(path: Path, content: str, *, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


def test_token_is_read_from_a_file_of_its_owner(tmp_path: Path) -> None:
    token = genuine()
    assert read_token_file(written(tmp_path / "token", token + "\n"), whose="viewer") == token


def test_token_is_read_from_a_pipe() -> None:
    token, (reader, writer) = genuine(), os.pipe()
    os.write(writer, token.encode())
    os.close(writer)
    try:
        assert read_token_file(Path(f"/dev/fd/{reader}"), whose="viewer") == token
    finally:
        os.close(reader)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "token", genuine(), mode=mode)
    with pytest.raises(CannotRun, match=f"others may read .* \\(mode {mode:04o}\\)") as error:
        read_token_file(path, whose="viewer")
    assert f"chmod 600 {path}" in error.value.next_action


@pytest.mark.parametrize("content", ["", "hunter2", "a.b", "a.b.c", "e30.W10.c", "x" * 20_000])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    with pytest.raises(CannotRun, match="does not hold one JWT") as error:
        read_token_file(written(tmp_path / "token", content), whose="approver")
    assert "hunter2" not in error.value.seen + error.value.next_action
    assert "approver token" in error.value.next_action


@pytest.mark.parametrize("seconds", [-3600, 0, 30])
def test_token_that_ends_too_soon_is_refused(tmp_path: Path, seconds: int) -> None:
    path = written(tmp_path / "token", genuine(seconds=seconds))
    with pytest.raises(CannotRun, match="ends, or ended, at 20"):
        read_token_file(path, whose="viewer")


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="cannot be read: No such file or directory"):
        read_token_file(tmp_path / "nowhere", whose="viewer")


def test_forgeries_differ_from_the_genuine_token_in_one_thing_only() -> None:
    token = genuine()
    made = forgeries(token, audience="https://mlflow.example.com")
    assert set(made) == {"signed with a foreign RSA key", "unsigned (alg none)", "with a changed claim"}
    foreign = made["signed with a foreign RSA key"]
    assert jwt.get_unverified_header(foreign) == jwt.get_unverified_header(token)
    assert claims(foreign) == claims(token)
    assert made["with a changed claim"].rpartition(".")[2] == token.rpartition(".")[2]
    assert claims(made["with a changed claim"])["sub"] != claims(token)["sub"]
    assert made["unsigned (alg none)"].endswith(".")


def test_no_forgery_passes_for_genuine() -> None:
    for forged in forgeries(genuine(), audience="x").values():
        with pytest.raises(jwt.InvalidTokenError):
            jwt.decode(forged, KEY.public_pem, algorithms=["RS256"])


@pytest.mark.parametrize("token", [None, "opaque"])
def test_forgeries_are_made_up_without_a_genuine_token(token: str | None) -> None:
    made = forgeries(token, audience="https://mlflow.example.com")
    assert claims(made["signed with a foreign RSA key"])["aud"] == "https://mlflow.example.com"
    assert len(made) == 2


def test_tokens_are_not_in_their_representation() -> None:
    assert "secret" not in repr(Tokens(viewer="secret-1", approver="secret-2"))
