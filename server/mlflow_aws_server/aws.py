"""Clients of AWS with the server's role, for what this server does itself."""

from __future__ import annotations

import functools
import threading
from typing import Any

_making = threading.Lock()


def aws_client(service: str, region: str, **config: Any) -> Any:
    """A client that gives up after three attempts; `config` is botocore's."""
    from botocore.config import Config

    settings = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5, **config)
    with _making:
        # boto3 makes clients in one thread at a time only.
        return _session().client(service, region_name=region, config=settings)


@functools.cache
def _session() -> Any:
    import boto3

    # Not the default one, which is stock MLflow's: that may not even look at a large object, see `stock`.
    return boto3.Session()
