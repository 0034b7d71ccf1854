"""The container's health check: asks the server in this container whether it is ready."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

_TIMEOUT_SECONDS = 4


def is_ready(environ: Mapping[str, str]) -> bool:
    """Whether http://127.0.0.1:$MLFLOW_AWS_PORT/ready answers 200 within 4 seconds."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(environ.get("MLFLOW_AWS_PORT", "5000")), timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
