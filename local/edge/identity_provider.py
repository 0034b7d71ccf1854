"""What a load balancer asks of token issuers and user pools, over HTTPS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

_LARGEST_DOCUMENT = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class IdentityProvider:
    """Asks hosts that `trust` verifies; reads no more than 256 KB of what they send."""

    def __init__(self, session: aiohttp.ClientSession, trust: ssl.SSLContext) -> None:
        self._session = session
        self._trust = trust

    async def keys(self, url: str) -> bytes:
        """An issuer's published keys.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: it does not answer with 200.
        """
        async with self._session.get(
            url, ssl=self._trust, timeout=_TIMEOUT, allow_redirects=False
        ) as response:
            response.raise_for_status()
            return await _bounded(response)

    async def post_form(self, url: str, form: Mapping[str, str], basic: str) -> dict[str, Any] | None:
        """The JSON that a user pool answers to a form; None if it refuses or does not answer."""
        return await self._document("POST", url, data=form, headers={"Authorization": f"Basic {basic}"})

    async def get_with_token(self, url: str, token: str) -> dict[str, Any] | None:
        """The JSON that a user pool answers to a bearer token; None if it refuses or does not answer."""
        return await self._document("GET", url, headers={"Authorization": f"Bearer {token}"})

    async def _document(self, method: str, url: str, **more: Any) -> dict[str, Any] | None:
        if "data" in more:
            more["headers"]["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            async with self._session.request(
                method, url, ssl=self._trust, timeout=_TIMEOUT, allow_redirects=False, **more
            ) as response:
                document = json.loads(await _bounded(response)) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            print(f"{url} does not answer as a user pool: {error}", flush=True)
            return None
        if not isinstance(document, dict):
            print(f"{url} refused: {response.status}", flush=True)
            return None
        return document


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_DOCUMENT:
            raise aiohttp.ClientPayloadError(f"{response.url} sends more than {_LARGEST_DOCUMENT} bytes")
    return body
