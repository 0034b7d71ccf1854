"""Sending objects to readers of any speed, in memory that does not depend on them."""

from __future__ import annotations

import asyncio
import logging

from mlflow_aws_server.artifacts.bucket import Bucket, Found
from mlflow_aws_server.asgi import STALLED_SECONDS, Header, Receive, Send, StalledReaderError, in_slices
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.limits import DOWNLOADS, DOWNLOADS_OF_ONE
from mlflow_aws_server.shares import Turns

_PART = 1024 * 1024
# Of one caller: a page of the UI shows tens of pictures.
_QUEUE = 64
# Of all downloads through one process together. To ask for a part and to pass it on takes some 6 ms of the
# processor, and at this pace most of the time is others'.
_BYTES_A_SECOND = 50 * 1024 * 1024

_log = logging.getLogger(__name__)


class Streams:
    """A bounded number of downloads at a time, each with one part of an object in memory.

    Parts are asked for one by one, so that a slow reader holds neither a thread nor a connection to S3.
    """

    def __init__(self, bucket: Bucket, *, stalled_seconds: float = STALLED_SECONDS) -> None:
        """A reader that takes nothing for `stalled_seconds` loses its connection."""
        self._bucket = bucket
        self._stalled_seconds = stalled_seconds
        self._pace = asyncio.Lock()
        self._turns = Turns(
            "one of the downloads to end", places=DOWNLOADS.most, each=DOWNLOADS_OF_ONE.most, queue=_QUEUE
        )

    async def send(
        self,
        found: Found,
        span: range,
        *,
        status: int,
        headers: list[Header],
        principal: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer with those bytes of an object.

        Raises:
            OverloadedError: too many downloads are under way; nothing was sent.
            RefusedError: S3 does not give the first part; nothing was sent.
        """
        await self._turns.enter(principal)
        try:
            part = await self._part(found, span)
            gone = asyncio.create_task(_disconnect(receive))
            send = in_slices(send, stalled_seconds=self._stalled_seconds)
            try:
                await send({"type": "http.response.start", "status": status, "headers": headers})
                while part and not gone.done():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    span = span[len(part) :]
                    part = await self._part(found, span)
                await send({"type": "http.response.body", "body": b""})
            except (RefusedError, StalledReaderError) as error:
                # uvicorn closes the connection: the answer is not complete.
                _log.warning("a download breaks off: %s", error)
            finally:
                gone.cancel()
        finally:
            self._turns.leave(principal)

    async def _part(self, found: Found, span: range) -> bytes:
        part = span[:_PART]
        if not part:
            return b""
        async with self._pace:
            await asyncio.sleep(len(part) / _BYTES_A_SECOND)
        return await self._bucket.part(found, part[0], part[-1])


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
