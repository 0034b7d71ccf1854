"""Downloads as an ASGI application around another one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from email.utils import formatdate
from pathlib import PurePosixPath
from typing import Any

import orjson
from mlflow.environment_variables import MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS
from mlflow.protos.service_pb2 import CreatePresignedDownloadUrl
from mlflow.server.handlers import _content_disposition_attachment
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.proto_json_utils import message_to_json

from mlflow_aws_server.artifacts import server_info, wanted
from mlflow_aws_server.artifacts.bucket import Bucket, Found, client
from mlflow_aws_server.artifacts.errors import ArtifactError, invalid, missing
from mlflow_aws_server.artifacts.locations import Locations
from mlflow_aws_server.artifacts.streams import Streams
from mlflow_aws_server.artifacts.wanted import Wanted
from mlflow_aws_server.asgi import (
    JSON,
    NOT_STORED,
    PRINCIPAL,
    App,
    Header,
    Receive,
    Scope,
    Send,
    header_values,
    refuse,
    respond,
    whole,
)
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.identity import OBJECT, Lane, Principal
from mlflow_aws_server.limits import SENT_TO_BROWSERS, SIGNED_SECONDS
from mlflow_aws_server.provenance import ArtifactPlaces, inner

_SIGN = frozenset(f"/{api}/2.0/mlflow/artifacts/presigned-download-url" for api in ("api", "ajax-api"))
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_READS = frozenset(("GET", "HEAD"))
_REDIRECT_SECONDS = 300
_ONE_RANGE = re.compile(rb"bytes=(\d{1,18})-(\d{0,18})|bytes=-(\d{1,18})")


class Artifacts:
    """Answers downloads itself: from S3 to the reader, in bounded memory, and never through the disk.

    Only what is under the artifact root is read with the server's role, and always as an attachment: no
    artifact becomes a page of this server. A browser is sent to S3 for large files. Whoever gets a URL of S3,
    its name, the object's key and the seconds go into the audit log.
    """

    def __init__(
        self,
        app: App,
        questions: ConnectionPool,
        places: ArtifactPlaces,
        *,
        region: str,
        make_client: Callable[[], Any] | None = None,
    ) -> None:
        """`questions` is for short statements; `make_client` makes the client of S3."""
        self._app = app
        self._locations = Locations(questions, places)
        self._bucket = Bucket(make_client or functools.partial(client, region))
        self._streams = Streams(self._bucket)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        serve = self._serving(scope) if scope["type"] == "http" else None
        if serve is None:
            await self._app(scope, receive, send)
            return
        try:
            await serve(scope, receive, send)
        except RefusedError as refusal:
            await refuse(send, refusal, [_NOSNIFF])

    def _serving(self, scope: Scope) -> App | None:
        method, path = scope["method"], scope["path"]
        if method in _READS:
            if wanted.is_download(path):
                return self._download
            if path in server_info.PATHS:
                return self._server_info
        return self._signed if method == "POST" and path in _SIGN else None

    async def _download(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = wanted.download(scope["path"], scope.get("query_string", b""))
        found = await self._found(file)
        if found is None:
            await self._app(scope, receive, send)
            return
        principal: Principal = scope[PRINCIPAL]
        if scope["method"] == "GET" and principal.lane is Lane.COGNITO and found.size > SENT_TO_BROWSERS.most:
            url = await self._sign(scope, found, _REDIRECT_SECONDS)
            headers = [(b"location", url.encode("ascii")), NOT_STORED]
            await respond(send, 307, b"", content_type=b"text/plain", headers=headers)
            return
        span, status = _span(scope, found)
        headers = _headers(file, found, span, status)
        if scope["method"] == "HEAD" or not span:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._streams.send(
            found,
            span,
            status=status,
            headers=headers,
            principal=principal.name,
            receive=receive,
            send=send,
        )

    async def _signed(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await whole(receive)
        if raw is None:
            return
        file, asked = wanted.to_sign(raw)
        seconds = MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS.get() if asked is None else asked
        SIGNED_SECONDS.check(seconds)
        if seconds < 1:
            raise invalid(f"expiration must be at least 1 second (got {seconds}).")
        found = await self._found(file)
        if found is None:
            raise missing("MLflow keeps this in its database.")
        url = await self._sign(scope, found, seconds)
        answer = CreatePresignedDownloadUrl.Response(presigned_url=url, file_size=found.size)
        body = message_to_json(answer).encode()
        await respond(send, 200, body, content_type=JSON, headers=[NOT_STORED, _NOSNIFF])

    async def _server_info(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await inner.response_to(self._app, {**scope, "method": "GET"}, receive)
        if answer.status != 200:
            await answer.pass_to(send)
            return
        body = orjson.dumps(server_info.corrected(answer.json()))
        await respond(send, 200, body, content_type=JSON, headers=[NOT_STORED, _NOSNIFF])

    async def _found(self, file: Wanted) -> Found | None:
        """The object; None if it is no object, but in the database."""
        directories = await self._locations.of(file)
        for directory in directories:
            found = await self._bucket.look(directory, file.path) if file.path else None
            if found is not None:
                return found
        for directory in directories:
            if await self._bucket.is_directory(directory, file.path):
                raise invalid(f"Artifact path refers to a directory, not a file: '{file.path}'")
        if not directories:
            return None
        raise missing(f"There is no file {file.path!r}.")

    async def _sign(self, scope: Scope, found: Found, seconds: int) -> str:
        url = await self._bucket.sign(found, disposition=_disposition(found.key), seconds=seconds)
        scope.setdefault(OBJECT, {}).update(key=found.key, seconds=str(seconds))
        return url


def _headers(file: Wanted, found: Found, span: range, status: int) -> list[Header]:
    headers = [
        (b"content-type", _guess_mime_type(file.path).encode("latin-1")),
        (b"content-length", b"%d" % len(span)),
        (b"content-disposition", _disposition(file.path).encode("latin-1")),
        _NOSNIFF,
        (b"accept-ranges", b"bytes"),
        (b"etag", found.etag.encode("latin-1")),
        (b"last-modified", formatdate(found.modified.timestamp(), usegmt=True).encode("ascii")),
        (b"cache-control", b"no-cache"),
    ]
    if status == 206:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (span[0], span[-1], found.size)))
    return headers


def _disposition(path: str) -> str:
    disposition: str = _content_disposition_attachment(PurePosixPath(path).name)
    return disposition


def _span(scope: Scope, found: Found) -> tuple[range, int]:
    """The bytes that are asked for, and the status of an answer with them.

    Raises:
        ArtifactError: the object has none of them.
    """
    entire = range(found.size)
    asked = header_values(scope, b"range")
    match = _ONE_RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
    condition = header_values(scope, b"if-range")
    # What else a Range may say need not be understood (RFC 9110, 14.2).
    if match is None or not entire or (condition and condition != [found.etag.encode("latin-1")]):
        return entire, 200
    first, last, suffix = match.groups()
    if suffix is not None:
        span = entire[-int(suffix) :] if int(suffix) else entire[:0]
    elif last and int(last) < int(first):
        return entire, 200
    else:
        span = entire[int(first) : int(last) + 1 if last else None]
    if not span:
        raise ArtifactError(416, "INVALID_PARAMETER_VALUE", f"The artifact has {found.size} bytes.")
    return span, 206
