"""S3 for the session's servers: MiniStack's, with no permissions to speak of, started by the first who asks.

The server's credentials in these tests are examples that no account knows, so nothing is enforced here;
tests/iam has an account that enforces the deployed policies.

The other half of this module is that process: `python -m tests.object_store SOCKET DIRECTORY`, in the
emulator's virtual environment.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

BUCKET = "example-artifacts"
PROJECT = Path(__file__).resolve().parents[1]
_REGION = "eu-central-1"
_START_SECONDS = 60
# Any will do: nothing is enforced.
_CREDENTIALS = ("ASIAEXAMPLEEXAMPLE", "example")


@dataclass
class ObjectStore:
    """A bucket with versioning at an address that is known, and taken, before anything listens there."""

    bucket: str = BUCKET
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _directory: Path | None = field(default=None, repr=False)

    @cached_property
    def _socket(self) -> socket.socket:
        # Bound and not listening: a connection is refused, and nobody else gets the port.
        reserved = socket.socket()
        reserved.bind(("127.0.0.1", 0))
        return reserved

    @property
    def endpoint(self) -> str:
        """The address; asking for it starts nothing."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def root(self) -> str:
        """The artifact root of the servers that use it."""
        return f"s3://{self.bucket}/runs"

    @cached_property
    def client(self) -> Any:
        """A boto3 client of it."""
        import boto3

        # A session of its own: the default one keeps the first credentials that it finds.
        return boto3.Session(*_CREDENTIALS, region_name=_REGION).client("s3", endpoint_url=self.endpoint)

    def write_model(self, prefix: str, files: Mapping[str, bytes]) -> str:
        """Put these files below a prefix, as a client does that logs a model; returns its URI."""
        for path, content in files.items():
            self.client.put_object(Bucket=self.bucket, Key=f"{prefix}/{path}", Body=content)
        return f"s3://{self.bucket}/{prefix}"

    def read(self, prefix: str) -> dict[str, bytes]:
        """The files below a prefix, by their path there."""
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{prefix}/"
        ):
            for item in page.get("Contents", []):
                got = self.client.get_object(Bucket=self.bucket, Key=item["Key"])
                found[item["Key"].removeprefix(f"{prefix}/")] = got["Body"].read()
        return found

    def start(self) -> None:
        """Start it and make the bucket, unless it runs."""
        if self._process is not None:
            return
        self._directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-s3-"))
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    str(PROJECT / ".local" / "venvs" / "emulator" / "bin" / "python"),
                    "-m",
                    "tests.object_store",
                    str(self._socket.fileno()),
                    str(self._directory),
                ],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"]},
                pass_fds=[self._socket.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"S3 did not start in {_START_SECONDS} s:\n{log.read_text()}"
            time.sleep(0.05)
        self.client.create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": _REGION}
        )
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def stop(self) -> None:
        """End the process and remove what it kept; its address stays refused."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._socket.getsockname(), timeout=5).close()
        except OSError:
            return False
        return True


STORE = ObjectStore()
"""The session's; the fixture `object_store` starts it."""


def main(descriptor: int, directory: Path) -> None:
    """Serve MiniStack's API on an inherited socket until SIGTERM."""
    os.environ.update(
        BIND_HOST="127.0.0.1",
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=_REGION,
        STATE_DIR=str(directory / "state"),
        S3_DATA_DIR=str(directory / "s3"),
        TMPDIR=str(directory),
        SFTP_ENABLED="0",
        IOT_MTLS_ENABLED="0",
        DOCKER_HOST=f"unix://{directory}/no-docker.sock",
        LOG_LEVEL="WARNING",
    )
    from hypercorn.asyncio import serve  # type: ignore[import-not-found]
    from hypercorn.config import Config  # type: ignore[import-not-found]
    from ministack.app import app

    from local.emulator import storage_adapters

    storage_adapters.copy_once_if_asked_to()
    storage_adapters.compute_the_checksums_that_a_copy_asks_for()
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    asyncio.run(serve(app, config))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
