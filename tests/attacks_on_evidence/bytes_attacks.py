"""What somebody may try with the files of a model, below a prefix of the bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.attacks_on_evidence.site import FILES

FILE = "model.skops"
Attack = Callable[[Any, str, str], None]
_PART = 5 * 2**20


def overwrite(s3: Any, bucket: str, prefix: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"{prefix}/{FILE}", Body=b"another model")


def overwrite_in_parts(s3: Any, bucket: str, prefix: str) -> None:
    where = {"Bucket": bucket, "Key": f"{prefix}/{FILE}"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in ((1, b"x" * _PART), (2, b"y"))
    ]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def copy_over(s3: Any, bucket: str, prefix: str) -> None:
    source = {"Bucket": bucket, "Key": f"{prefix}/MLmodel"}
    s3.copy_object(Bucket=bucket, Key=f"{prefix}/{FILE}", CopySource=source)


def upload_the_same_again(s3: Any, bucket: str, prefix: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"{prefix}/{FILE}", Body=FILES[FILE])


def delete(s3: Any, bucket: str, prefix: str) -> None:
    s3.delete_object(Bucket=bucket, Key=f"{prefix}/{FILE}")


def delete_all(s3: Any, bucket: str, prefix: str) -> None:
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": f"{prefix}/{path}"} for path in FILES]}
    )
    _raise_first(answer)


def add_a_file(s3: Any, bucket: str, prefix: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"{prefix}/sitecustomize.py", Body=b"print('loaded too')")


def delete_the_version(s3: Any, bucket: str, prefix: str) -> None:
    where = {"Bucket": bucket, "Key": f"{prefix}/{FILE}"}
    s3.delete_object(**where, VersionId=s3.head_object(**where)["VersionId"])


def tag_it(s3: Any, bucket: str, prefix: str) -> None:
    tags = {"TagSet": [{"Key": "approved", "Value": "no"}]}
    s3.put_object_tagging(Bucket=bucket, Key=f"{prefix}/{FILE}", Tagging=tags)


def open_it_to_others(s3: Any, bucket: str, prefix: str) -> None:
    s3.put_object_acl(Bucket=bucket, Key=f"{prefix}/{FILE}", ACL="public-read")


def _raise_first(answer: Any) -> None:
    """DeleteObjects answers 200 and lists what was refused."""
    from botocore.exceptions import ClientError

    for error in answer.get("Errors", []):
        raise ClientError({"Error": {"Code": error["Code"]}}, "DeleteObjects")


ON_ORIGINALS: Mapping[str, Attack] = {
    each.__name__: each
    for each in (overwrite, overwrite_in_parts, upload_the_same_again, delete, delete_all, add_a_file)
}
"""What whoever may log may do with the files they logged."""

ON_SEALED: Mapping[str, Attack] = {
    **ON_ORIGINALS,
    **{each.__name__: each for each in (copy_over, delete_the_version, tag_it, open_it_to_others)},
}
