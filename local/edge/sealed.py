"""Values that a browser carries for the load balancer, encrypted and authenticated with a key of this run."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
# Browsers accept 4 KB per cookie, name and attributes included; ELB too splits its cookies at 4 KB.
_SHARD = 3900
_MOST_SHARDS = 4


class CookieSeal:
    """AES-256-GCM; a sealed value opens only for its purpose, and only until it expires."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(256))

    def close(self, values: Mapping[str, Any], *, purpose: str, seconds: float) -> str:
        """Seal values for a number of seconds."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        document = json.dumps({"values": dict(values), "until": time.time() + seconds}).encode()
        sealed = nonce + self._cipher.encrypt(nonce, document, purpose.encode())
        return base64.urlsafe_b64encode(sealed).decode()

    def open(self, sealed: str, *, purpose: str) -> dict[str, Any] | None:
        """The values; None if they were sealed with another key, for another purpose, or have expired."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode())
            document = json.loads(
                self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
            )
        except (InvalidTag, ValueError):
            return None
        return dict(document["values"]) if document["until"] > time.time() else None


def shards(name: str, value: str) -> dict[str, str]:
    """Cookies that together hold a value: NAME-0, NAME-1, …, as ELB names them.

    Raises:
        ValueError: it does not fit into ELB's cookies.
    """
    parts = [value[start : start + _SHARD] for start in range(0, len(value), _SHARD)]
    if len(parts) > _MOST_SHARDS:
        raise ValueError(f"the session has {len(value)} characters, more than {_MOST_SHARDS} cookies hold")
    return {f"{name}-{number}": part for number, part in enumerate(parts)}


def joined(name: str, cookies: Mapping[str, str]) -> str:
    """The value that the cookies of a name hold; empty if there are none."""
    parts: list[str] = []
    while (part := cookies.get(f"{name}-{len(parts)}")) is not None and len(parts) < _MOST_SHARDS:
        parts.append(part)
    return "".join(parts)
