"""Reading objects from S3 piece by piece, in threads of its own, and signing URLs for others to read them."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from mlflow_aws_server.artifacts.errors import ArtifactError, StoreError
from mlflow_aws_server.s3 import s3_client
from mlflow_aws_server.sealing.places import Prefix

_THREADS = 8
_MISSING = frozenset(("NoSuchKey", "404"))
_DENIED = frozenset(("AccessDenied", "403"))

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Found:
    """An object, at the time it was looked at."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: dt.datetime


class Bucket:
    """S3 with the server's role. Nothing is written, to S3 or to the disk."""

    def __init__(self, make_client: Callable[[], Any]) -> None:
        """`make_client` makes the client of S3 when it is first needed."""
        self._make_client = make_client
        self._made: Any = None
        self._making = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")

    async def look(self, directory: Prefix, path: str) -> Found | None:
        """The file at `path` in a directory, or None if there is none.

        Raises:
            ArtifactError: S3 does not let the server read it.
            StoreError: S3 cannot be asked.
        """

        def look(client: Any) -> Found | None:
            key = directory.inside + path
            try:
                head = client.head_object(Bucket=directory.bucket, Key=key)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
            return Found(directory.bucket, key, head["ContentLength"], head["ETag"], head["LastModified"])

        return await self._ask(look)

    async def is_directory(self, directory: Prefix, path: str) -> bool:
        """Whether there are files below `path`.

        Raises:
            ArtifactError: S3 does not let the server look.
            StoreError: S3 cannot be asked.
        """

        def look(client: Any) -> bool:
            below = directory.inside + path.rstrip("/")
            inside = f"{below.rstrip('/')}/"
            return bool(client.list_objects_v2(Bucket=directory.bucket, Prefix=inside, MaxKeys=1)["KeyCount"])

        return await self._ask(look)

    async def part(self, found: Found, first: int, last: int) -> bytes:
        """The bytes from `first` to `last`, both included.

        Raises:
            ArtifactError: the object is another one by now.
            StoreError: S3 cannot be asked.
        """

        def read(client: Any) -> bytes:
            answer = client.get_object(
                Bucket=found.bucket, Key=found.key, Range=f"bytes={first}-{last}", IfMatch=found.etag
            )
            with answer["Body"] as body:
                content: bytes = body.read()
            return content

        return await self._ask(read)

    async def sign(self, found: Found, *, disposition: str, seconds: int) -> str:
        """A URL under which S3 gives the object to anybody, as an attachment, for so many seconds.

        It ends sooner if the credentials of the server's role do.

        Raises:
            StoreError: there are no credentials.
        """

        def sign(client: Any) -> str:
            url: str = client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": found.bucket,
                    "Key": found.key,
                    "ResponseContentDisposition": disposition,
                },
                ExpiresIn=seconds,
            )
            return url

        return await self._ask(sign)

    async def _ask(self, question: Callable[[Any], Result]) -> Result:
        def ask() -> Result:
            try:
                return question(self._client())
            except ClientError as error:
                if _code(error) in _DENIED:
                    raise ArtifactError(
                        403, "PERMISSION_DENIED", "The server's role may not read this object."
                    ) from error
                if _code(error) == "PreconditionFailed":
                    raise ArtifactError(409, "RESOURCE_CONFLICT", "The object was replaced.") from error
                raise StoreError(f"S3 answered {_code(error)}; try again.") from error
            except (BotoCoreError, OSError) as error:
                raise StoreError(f"S3 cannot be reached ({type(error).__name__}); try again.") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._make_client()
            return self._made


def client(region: str) -> Any:
    """A client of S3 that signs URLs which browsers can open from anywhere."""
    return s3_client(
        region,
        # URLs name the bucket's own host in its region: the only one that the UI's pages may load from.
        signature_version="s3v4",
        s3={"addressing_style": "virtual"},
        read_timeout=20,
        max_pool_connections=_THREADS,
        # S3 has no checksum of a part, and TLS protects it on its way.
        response_checksum_validation="when_required",
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
