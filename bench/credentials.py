"""An ECS-style credentials endpoint with made-up credentials, for the server under load.

The server signs database tokens with them, as it does in a task; the benchmark's PostgreSQL does not check
the tokens.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator

from local.parts.http_server import JsonHandler, serving


class _Handler(JsonHandler):
    def do_GET(self) -> None:
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
        self.answer(
            200,
            {
                "AccessKeyId": "ASIA" + "BENCH" * 3 + "B",
                "SecretAccessKey": "made-up-for-the-benchmark",
                "Token": "made-up-for-the-benchmark",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )


@contextlib.contextmanager
def credentials_endpoint() -> Iterator[str]:
    """The URL of an endpoint on the loopback interface, for AWS_CONTAINER_CREDENTIALS_FULL_URI."""
    with serving(_Handler) as port:
        yield f"http://127.0.0.1:{port}/credentials"
