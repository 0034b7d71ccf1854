"""Corrects what MiniStack lacks where objects are copied, locked or missing: one function each.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

# What a write needs permission for, by the header that asks for it.
_BESIDE_THE_BYTES: Mapping[str, str] = {
    "x-amz-object-lock-mode": "s3:PutObjectRetention",
    "x-amz-object-lock-legal-hold": "s3:PutObjectLegalHold",
    "x-amz-tagging": "s3:PutObjectTagging",
}
_UPLOAD = re.compile(rb"<UploadId>([^<]+)</UploadId>")


def copy_and_upload_with_their_own_lock() -> None:
    """MiniStack's copy asks no condition and takes over its source's lock; an upload in parts has no lock.

    In AWS, a copy takes `If-None-Match` as an upload does, and either has the lock that its own request asks
    for, or else the bucket's.
    """
    from ministack.services import s3

    copy, begin, complete = s3._copy_object, s3._create_multipart_upload, s3._complete_multipart_upload
    asked: dict[str, dict[str, str]] = {}

    def lock(bucket: str, key: str, headers: Mapping[str, str]) -> None:
        version = s3._buckets[bucket]["objects"][key].get("version_id")
        for store in (s3._object_retention, s3._object_legal_hold):
            store.pop((bucket, key, version), None)
        s3._apply_object_lock_from_headers(bucket, key, headers, version)

    def copied(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        there = s3._ensure_bucket(bucket) or {"objects": {}}
        if refused := s3._check_put_preconditions(headers, there["objects"].get(key)):
            return refused
        answer = copy(bucket, key, headers)
        if answer[0] == 200:
            lock(bucket, key, headers)
        return answer

    def begun(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        answer = begin(bucket, key, headers)
        if found := _UPLOAD.search(answer[2]):
            asked[found[1].decode()] = {name: headers[name] for name in headers if "object-lock" in name}
        return answer

    def completed(bucket: str, key: str, body: bytes, query: Mapping[str, Any], *rest: Any) -> Any:
        answer = complete(bucket, key, body, query, *rest)
        wanted = asked.pop(s3._qp(query, "uploadId"), None) if answer[0] == 200 else None
        if wanted is not None:
            lock(bucket, key, wanted)
        return answer

    s3._copy_object = copied
    s3._create_multipart_upload = begun
    s3._complete_multipart_upload = completed


def copy_from_another_account() -> None:
    """MiniStack looks for a copy's source in the caller's account only; a bucket's name is everybody's."""
    from ministack.core.responses import get_account_id, request_scope
    from ministack.services import s3

    copy = s3._copy_object

    def copied(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        name, _, path = unquote(headers["x-amz-copy-source"].lstrip("/").partition("?")[0]).partition("/")
        owner = s3._bucket_owner_account(name)
        if owner in (None, get_account_id()):
            return copy(bucket, key, headers)
        with request_scope(owner, s3.get_region()):
            source = s3._ensure_bucket(name)
            found = source["objects"].get(path)
            body = s3._read_body(name, path, found) if found else None
        # Of the caller's for the length of this call.
        s3._buckets[name] = {**source, "objects": {path: {**found, "body": body}} if found else {}}
        try:
            return copy(bucket, key, headers)
        finally:
            del s3._buckets[name]

    s3._copy_object = copied


def copy_parts_into_their_own_upload() -> None:
    """MiniStack copies a part into any upload; in AWS, it is one of the object that the request names."""
    from ministack.services import s3

    copy_part = s3._upload_part_copy

    def copied(bucket: str, key: str, query: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"))
        if upload is not None and (upload["bucket"], upload["key"]) != (bucket, key):
            return s3._error("NoSuchUpload", "The specified multipart upload does not exist.", 404)
        return copy_part(bucket, key, query, headers)

    s3._upload_part_copy = copied


def authorize_what_a_write_asks_for_beside_the_bytes() -> None:
    """MiniStack asks no permission to lock, hold or tag an object by the headers of its upload or copy."""
    from ministack.core import iam_actions

    checks_of = iam_actions.s3_additional_checks

    def every(method: str, path: str, headers: Mapping[str, str], *rest: Any) -> list[tuple[str, str]]:
        checks: list[tuple[str, str]] = list(checks_of(method, path, headers, *rest))
        if method in ("PUT", "POST"):
            arn = f"arn:aws:s3:::{path.strip('/')}"
            checks += [(action, arn) for header, action in _BESIDE_THE_BYTES.items() if headers.get(header)]
        return checks

    iam_actions.s3_additional_checks = every


def hide_what_is_missing_from_who_may_not_list() -> None:
    """MiniStack says 404 of an object that is not there to whoever may read it.

    In AWS, it is 403 without `s3:ListBucket`, and one request about one object names no prefix.
    """
    from ministack.core import iam_evaluator
    from ministack.services import s3

    enforce = iam_evaluator.enforce

    def there(resource_arn: str) -> bool:
        bucket, _, key = resource_arn.rsplit(":", 1)[-1].partition("/")
        held = s3._buckets.get_scoped(s3._bucket_owner_account(bucket), None, bucket)
        return held is None or key in held["objects"]

    def enforced(
        access_key_id: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        denied = enforce(access_key_id, action, service, region, resource_arn, service_context)
        if denied is not None or action != "s3:GetObject" or there(resource_arn):
            return denied
        return enforce(access_key_id, "s3:ListBucket", service, region, resource_arn.split("/", 1)[0])

    iam_evaluator.enforce = enforced
