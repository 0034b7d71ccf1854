"""Whether the caller's own AWS role reaches the artifacts, as cheaply as S3 lets one find out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mlflow_aws_auth import web_identity

_PROBE = "connection-check"


@dataclass(frozen=True)
class Access:
    """What the caller may do below the artifact root. `problem` is empty if that is what the role needs."""

    can_read: bool
    can_write: bool
    problem: str = ""


def check(artifact_root: str, *, must_write: bool) -> Access:
    """List at most one object below the root; begin an upload and give it up, if the role must write.

    Nothing is stored: an upload that is given up leaves no object. Amazon S3 User Guide, "Uploading and
    copying objects using multipart upload": beginning one needs s3:PutObject and kms:GenerateDataKey.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = artifact_root.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    can_read = False
    try:
        s3 = _client()
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        can_read = True
        if must_write:
            upload = s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}{_PROBE}")
            s3.abort_multipart_upload(Bucket=bucket, Key=f"{prefix}{_PROBE}", UploadId=upload["UploadId"])
    except ClientError as error:
        code, message = (str(error.response["Error"].get(name, "")) for name in ("Code", "Message"))
        return Access(can_read, False, f"S3 answered {code} to {error.operation_name}: {message}")
    except BotoCoreError as error:
        return Access(can_read, False, f"S3 cannot be reached: {error}")
    return Access(can_read, must_write)


def _client() -> Any:
    from botocore.config import Config

    session = web_identity.default_session()
    # The endpoint as MLflow's own artifact client finds it.
    return session.client(
        "s3",
        region_name=web_identity.region_of(session),
        endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
        config=Config(
            connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
        ),
    )
