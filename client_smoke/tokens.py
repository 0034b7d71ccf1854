"""Bearer tokens of this client: read from files that only you can read, looked into, and forged."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_smoke.verdict import CannotRun

# The largest token that the server's gate reads; a file of another kind is told from a token by it, too.
_LONGEST = 16 * 1024
_ENOUGH_SECONDS = 60


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of others that this run may use beside the caller's own identity."""

    viewer: str | None = field(default=None, repr=False)
    approver: str | None = field(default=None, repr=False)


def read_token_file(path: Path, *, whose: str) -> str:
    """The JWT in a file that only its owner may read, or in a pipe (`<(command)`).

    Raises `CannotRun` if it cannot be read, is open to others, holds anything but one JWT, or holds one
    that ends within a minute. What it holds is never repeated in a message.
    """
    again = f"write a fresh {whose} token to it (docs/smoke.md, “Identity”)"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise CannotRun(
                    f"others may read {path} (mode {stat.S_IMODE(mode):04o}), which should hold a token",
                    next_action=f"chmod 600 {path}; if others have seen it, let that token expire",
                )
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise CannotRun(
            f"the {whose} token file {path} cannot be read: {error.strerror or error}", next_action=again
        ) from error
    token = content.decode("ascii", "replace").strip()
    try:
        if len(content) > _LONGEST:
            raise ValueError("too long")
        expires = claims(token).get("exp")
    except ValueError as error:
        raise CannotRun(f"{path} does not hold one JWT ({len(content)} bytes)", next_action=again) from error
    if isinstance(expires, int | float) and expires < time.time() + _ENOUGH_SECONDS:
        moment = dt.datetime.fromtimestamp(expires, dt.UTC).isoformat(timespec="seconds")
        raise CannotRun(
            f"the {whose} token in {path} ends, or ended, at {moment}: too soon for this run",
            next_action=again,
        )
    return token


def claims(token: str) -> dict[str, Any]:
    """The claims of a compact JWT (RFC 7519), unverified; `ValueError` if it is none."""
    return _parts(token)[1]


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    pieces = token.split(".")
    if len(pieces) != 3 or not all(pieces):
        raise ValueError("not a compact JWT")
    header, body = (json.loads(_decode(piece)) for piece in pieces[:2])
    if not isinstance(header, dict) or not isinstance(body, dict):
        raise ValueError("not a compact JWT")
    return header, body, pieces[2]


def forgeries(genuine: str | None, *, audience: str) -> dict[str, str]:
    """Tokens that look right and are not, each under what is wrong with it.

    Made from the caller's own token if there is one: same header, same claims, so that nothing but the
    signature can give them away. Without one, claims of the right form are made up.
    """
    header, body, signature = _made_up(audience)
    if genuine is not None:
        try:
            header, body, signature = _parts(genuine)
        except ValueError:
            genuine = None
    forged = {
        "signed with a foreign RSA key": _sign(header, body),
        "unsigned (alg none)": f"{_encode(header | {'alg': 'none'})}.{_encode(body)}.",
    }
    if genuine is not None:
        somebody_else = body | {"sub": f"{body.get('sub', '')}-somebody-else"}
        forged["with a changed claim"] = f"{_encode(header)}.{_encode(somebody_else)}.{signature}"
    return forged


def _made_up(audience: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    now = int(time.time())
    header = {"alg": "RS256", "typ": "JWT", "kid": secrets.token_hex(8)}
    body = {
        "iss": "https://issuer.invalid",
        "aud": audience,
        "sub": "arn:aws:iam::000000000000:role/smoke-forgery",
        "iat": now,
        "exp": now + 300,
    }
    return header, body, ""


def _sign(header: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    content = f"{_encode(header)}.{_encode(body)}"
    signature = key.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{content}.{_base64url(signature)}"


def _encode(part: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(dict(part), separators=(",", ":")).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(piece: str) -> bytes:
    return base64.b64decode(piece + "=" * (-len(piece) % 4), altchars=b"-_", validate=True)
