"""The public keys of one issuer: fetched, bounded, kept through an outage of the issuer."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import PyJWK, PyJWTError

from mlflow_aws_server.identity.errors import IssuerUnavailableError

Keys = Mapping[str, rsa.RSAPublicKey]

_MOST_KEYS = 20
_LARGEST_DOCUMENT = 64 * 1024
_FEWEST_BITS, _MOST_BITS = 2048, 8192
# What both issuers use (base64 of either kind); a path, a URL or a line break does not match.
KEY_ID = re.compile(r"[A-Za-z0-9_+/=-]{1,128}")

_CONNECT_SECONDS = 3.0
_FETCH_SECONDS = 5.0

# How often the keys are fetched normally, and how soon after a fetch an unknown key id or a failure may
# cause another one: this bounds what invented key ids cost the issuer.
_REFRESH_SECONDS = 600.0
_SOONEST_SECONDS = 5.0
# A key is trusted for this long after its issuer was last seen to publish it.
_STALE_SECONDS = 24 * 3600.0

_log = logging.getLogger("mlflow_aws_server.identity")


class KeyStore:
    """The keys of one issuer, shared by all requests of a worker's event loop.

    Keys are fetched in a thread, never twice at once, and at most every five seconds. Known keys stay
    valid for 24 hours without the issuer. Nothing is fetched before the first request or `keep_fresh`.
    """

    def __init__(
        self,
        fetch: Callable[[], Keys],
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch` blocks and raises OSError or ValueError; `name` is the issuer's, for the log."""
        self._fetch = fetch
        self.name = name
        self._clock = clock
        self._keys: Keys = {}
        self._made_at = clock()
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._running: asyncio.Task[None] | None = None
        self.generation = 0
        """Changes whenever the set of keys does: tokens verified with older keys must be verified again.

        0 until the first keys are there.
        """

    async def key(self, key_id: str) -> rsa.RSAPublicKey | None:
        """The key of this id, or None if the issuer has no such key.

        Raises:
            IssuerUnavailableError: the issuer cannot be asked.
        """
        if not self._fresh:
            await self._refresh()
        if not self._fresh:
            raise IssuerUnavailableError(
                "issuer-unavailable", "The keys that sign tokens cannot be fetched at the moment. Try again."
            )
        found = self._keys.get(key_id)
        if found is None:
            await self._refresh()
            found = self._keys.get(key_id)
        if found is None and self._failed:
            raise IssuerUnavailableError(
                "issuer-unavailable",
                "The token names a key that this server does not know yet, and its issuer cannot be asked "
                "at the moment. Try again.",
            )
        return found

    async def keep_fresh(self) -> None:
        """Fetch now, and again every ten minutes, or sooner after a failure, until cancelled."""
        while True:
            await self._refresh()
            if self.generation == 0:
                # A server that waits for its first keys serves nobody.
                pause = _SOONEST_SECONDS
            else:
                pause = _REFRESH_SECONDS if not self._failed else 6 * _SOONEST_SECONDS
            await asyncio.sleep(pause)

    @property
    def age(self) -> float:
        """Seconds since the keys were fetched well; as long as this object exists, if they never were."""
        return self._clock() - max(self._fetched_at, self._made_at)

    @property
    def _fresh(self) -> bool:
        return self._clock() - self._fetched_at < _STALE_SECONDS

    async def _refresh(self) -> None:
        if self._running is None:
            if self._clock() - self._tried_at < _SOONEST_SECONDS:
                return
            self._running = asyncio.create_task(self._fetch_once())
        # Shielded: a caller that gives up must not cancel the fetch for the others.
        await asyncio.shield(self._running)

    async def _fetch_once(self) -> None:
        try:
            keys = await asyncio.to_thread(self._fetch)
        except Exception as error:
            if not self._failed:
                _log.warning("keys of %s cannot be fetched: %s", self.name, _one_line(error))
            self._failed = True
        else:
            if self._failed:
                _log.info("keys of %s are back", self.name)
            if not _same(keys, self._keys):
                self._keys = keys
                self.generation += 1
                _log.info("keys of %s: %s", self.name, ", ".join(keys))
            self._failed = False
            self._fetched_at = self._clock()
        finally:
            self._tried_at = self._clock()
            self._running = None


def fetch_keys(issuer: str) -> Keys:
    """Fetch `<issuer>/.well-known/jwks.json` over verified TLS, following no redirect.

    A private authority is trusted through SSL_CERT_FILE.

    Raises:
        OSError: the issuer cannot be reached within five seconds.
        ValueError: its response is not a set of keys.
    """
    parts = urlsplit(issuer)
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("keys are fetched over https only")
    deadline = time.monotonic() + _FETCH_SECONDS
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=_CONNECT_SECONDS, context=ssl.create_default_context()
    )
    try:
        connection.request(
            "GET", f"{parts.path}/.well-known/jwks.json", headers={"Accept": "application/json"}
        )
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ValueError(f"the issuer answered {response.status}")
        document = bytearray()
        while chunk := response.read1(16 * 1024):
            document += chunk
            if len(document) > _LARGEST_DOCUMENT:
                raise ValueError(f"the issuer's response has more than {_LARGEST_DOCUMENT} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the issuer's response took more than {_FETCH_SECONDS:.0f} s")
    except http.client.HTTPException as error:
        raise ValueError(f"the issuer's response is not HTTP ({type(error).__name__})") from None
    finally:
        with contextlib.suppress(OSError):
            connection.close()
    return read_keys(bytes(document))


def read_keys(document: bytes) -> Keys:
    """The RSA keys that may sign tokens, of a JSON Web Key Set (RFC 7517); other keys are left out.

    Raises:
        ValueError: there is no usable key, or there are more than twenty keys.
    """
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the issuer's response is not a JSON Web Key Set") from None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ValueError(f"the issuer's response is not a list of at most {_MOST_KEYS} keys")
    keys: dict[str, rsa.RSAPublicKey] = {}
    for item in listed:
        key = _usable(item)
        if key is not None:
            keys.setdefault(item["kid"], key)
    if not keys:
        raise ValueError(f"the issuer publishes no RSA key of {_FEWEST_BITS} bits or more for RS256")
    return keys


def _usable(item: Any) -> rsa.RSAPublicKey | None:
    if not isinstance(item, dict) or item.get("kty") != "RSA" or "d" in item:
        return None
    if item.get("use", "sig") != "sig" or item.get("alg", "RS256") != "RS256":
        return None
    key_id = item.get("kid")
    if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
        return None
    try:
        key = PyJWK({"kty": "RSA", "n": item["n"], "e": item["e"]}, algorithm="RS256").key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, rsa.RSAPublicKey) or not _FEWEST_BITS <= key.key_size <= _MOST_BITS:
        return None
    return key


def _same(one: Keys, other: Keys) -> bool:
    return one.keys() == other.keys() and all(
        one[name].public_numbers() == other[name].public_numbers() for name in one
    )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
