"""Corrects where MiniStack authorizes S3 requests by less than AWS does: one function each.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What S3 needs from KMS on the caller's behalf, by the S3 action.
_KEY_ACTIONS: Mapping[str, str] = {
    "s3:GetObject": "kms:Decrypt",
    "s3:GetObjectVersion": "kms:Decrypt",
    "s3:PutObject": "kms:GenerateDataKey",
}
_KEY = re.compile(r"<KMSMasterKeyID>([^<]+)</KMSMasterKeyID>")
_WRITE_HEADERS = (
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)


def let_pages_of_this_machine_read(public_urls: Mapping[str, str]) -> None:
    """A bucket's CORS rules name the application's URL, which `public_urls` maps to the one here."""
    from ministack.services.cloudformation import provisioners

    (name, write, *rest), *others = provisioners._S3_BUCKET_CONFIGURATIONS
    assert name == "CorsConfiguration"  # noqa: S101 - MiniStack's order, which is pinned

    def here(cors: Mapping[str, Any]) -> Any:
        rules = [
            {**rule, "AllowedOrigins": [public_urls.get(each, each) for each in rule["AllowedOrigins"]]}
            for rule in cors.get("CorsRules") or ()
        ]
        return write({**cors, "CorsRules": rules})

    provisioners._S3_BUCKET_CONFIGURATIONS = ((name, here, *rest), *others)


def know_every_encryption_header() -> None:
    """MiniStack has no condition keys for two headers by which an upload chooses its encryption."""
    from ministack.core import iam_actions

    context_of = iam_actions.s3_service_context

    def with_encryption(
        iam_action: str, query: Any, path: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        context: dict[str, Any] = dict(context_of(iam_action, query, path, headers))
        if iam_action == "s3:PutObject" and "uploadId" not in (query or {}):
            stated = headers or {}
            context.update({f"s3:{name}": stated[name] for name in _WRITE_HEADERS if name in stated})
        return context

    iam_actions.s3_service_context = with_encryption


def authorize_the_key_through_s3() -> None:
    """In MiniStack, S3 checks no permission for the key of a bucket encrypted with KMS.

    In AWS, the caller needs permission for the key too; S3 uses it on their behalf and says so in
    `kms:ViaService`. A direct call of KMS has no such context key, so a policy that requires it refuses it.
    """
    from ministack.core import iam_evaluator

    enforce = iam_evaluator.enforce

    def with_key(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        denied = enforce(access_key_id, iam_action, service, region, resource_arn, service_context)
        if denied is not None or service != "s3" or iam_action not in _KEY_ACTIONS or not access_key_id:
            return denied
        key_arn = _key_of(resource_arn)
        if key_arn is None:
            return None
        through = {"kms:ViaService": f"s3.{region}.amazonaws.com"}
        return enforce(access_key_id, _KEY_ACTIONS[iam_action], "kms", region, key_arn, through)

    iam_evaluator.enforce = with_key


def judge_other_accounts_by_their_roles() -> None:
    """MiniStack asks a bucket's policy about the root of another account, and a key's policy not at all.

    In AWS, both are asked about the caller, and `aws:PrincipalArn` of a session is its role. Across accounts,
    the policies of both must allow.
    """
    from ministack.core import iam_evaluator
    from ministack.core.responses import get_account_id, request_scope
    from ministack.services import iam, kms, s3

    value_of, key_policy, foreign = (
        iam_evaluator._resolve_condition_key,
        kms.key_policy_for_arn,
        s3._foreign_bucket_allows,
    )

    def with_role(key: str, context: Any) -> Any:
        value = value_of(key, context)
        if key.lower() == "aws:principalarn" and ":assumed-role/" in str(value):
            name = str(value).split("/")[1]
            role = iam._roles.get_scoped(context.principal_account, None, name)
            return str(role["Arn"]) if role else value
        return value

    def of_key(arn: str) -> Any:
        _, _, _, region, account, _ = arn.split(":", 5)
        with request_scope(account, region):
            return key_policy(arn)

    def of_bucket(arn: str) -> Any:
        owner = s3._bucket_owner_account(_bucket_of(arn))
        with request_scope(owner or get_account_id(), s3.get_region()):
            return bucket_policy(arn)

    def allowed_already(*request: Any) -> bool:
        return bool(request[5]) or bool(foreign(*request))

    bucket_policy = s3.bucket_policy_for_arn
    iam_evaluator._resolve_condition_key = with_role
    kms.key_policy_for_arn = of_key
    s3.bucket_policy_for_arn = of_bucket
    # Both policies have been asked by now, about the request and about the source of a copy; not for nobody.
    s3._foreign_bucket_allows = allowed_already


def _bucket_of(arn: str) -> str:
    return arn.rsplit(":", 1)[-1].split("/", 1)[0]


def _key_of(object_arn: str) -> str | None:
    """The ARN of the key that the object's bucket is encrypted with; None if it is not named by an ARN."""
    from ministack.services import s3

    bucket = _bucket_of(object_arn)
    owner = s3._bucket_owner_account(bucket)
    found = _KEY.search(str(s3._bucket_encryption.get_scoped(owner, None, bucket) or ""))
    return found[1] if found and found[1].startswith("arn:") else None


def authorize_the_first_of_a_batch_too() -> None:
    """MiniStack does not authorize the first of the versions that a DeleteObjects names.

    It refuses the whole request where AWS would list what it refused; nothing is deleted either way.
    """
    from ministack.core import iam_actions

    checks_of = iam_actions.s3_additional_checks

    def every(
        method: str, path: str, headers: Any, body: bytes, query: Mapping[str, Any]
    ) -> list[tuple[str, str]]:
        checks: list[tuple[str, str]] = list(checks_of(method, path, headers, body, query))
        if method == "POST" and "delete" in query:
            bucket = path.strip("/").split("/")[0]
            for arn, version in iam_actions._s3_batch_delete_targets(bucket, body)[:1]:
                if version:
                    checks.insert(0, ("s3:DeleteObjectVersion", arn))
        return checks

    iam_actions.s3_additional_checks = every


def encrypt_with_the_account_key_by_default() -> None:
    """MiniStack refuses an upload that asks for KMS and names no key, as the CDK CLI's are.

    In AWS, S3 takes the bucket's key, or else the account's own `aws/s3`.
    """
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import s3

    resolve = s3._resolve_sse_write_headers

    def resolved(headers: Mapping[str, str], bucket: str) -> Any:
        if headers.get("x-amz-server-side-encryption") != "aws:kms" or headers.get(_WRITE_HEADERS[0]):
            return resolve(headers, bucket)
        found = _KEY.search(str(s3._bucket_encryption.get(bucket) or ""))
        account_key = f"arn:aws:kms:{get_region()}:{get_account_id()}:alias/aws/s3"
        return resolve({**headers, _WRITE_HEADERS[0]: found[1] if found else account_key}, bucket)

    s3._resolve_sse_write_headers = resolved


def copy_once_if_asked_to() -> None:
    """MiniStack minds `If-None-Match` of an upload, but not of a copy, which S3 minds as well."""
    from ministack.services import s3

    copy = s3._copy_object

    def copied(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        there = (s3._ensure_bucket(bucket) or {"objects": {}})["objects"].get(key)
        refused = s3._check_put_preconditions(headers, there)
        return copy(bucket, key, headers) if refused is None else refused

    s3._copy_object = copied


def compute_the_checksums_that_a_copy_asks_for() -> None:
    """MiniStack computes a checksum of what is uploaded, but not of what is copied, whole or in parts.

    In AWS, a copy has the checksum of the algorithm that it names, and no other. That of an upload in parts
    is composite for each of the object's versions; MiniStack forgets it for those asked for by their id.
    """
    from ministack.services import s3

    copy, copy_part, describe = s3._copy_object, s3._upload_part_copy, s3._object_response_headers

    def copied(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        algorithm = headers.get("x-amz-checksum-algorithm")
        if algorithm is None:
            return copy(bucket, key, headers)
        answer = copy(bucket, key, {**headers, "x-amz-sdk-checksum-algorithm": algorithm})
        if answer[0] == 200:
            checksums = s3._buckets[bucket]["objects"][key]["checksums"]
            for other in checksums.keys() - {algorithm.upper()}:
                del checksums[other]
        return answer

    def copied_part(bucket: str, key: str, query: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        status, more, body = copy_part(bucket, key, query, headers)
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"), {})
        algorithm = upload.get("checksum_algorithm")
        if status == 200 and algorithm:
            part = upload["parts"][int(s3._qp(query, "partNumber", "1"))]
            checksum = s3._compute_s3_checksum(algorithm, part["body"])
            part["checksums"] = {algorithm: checksum}
            element = f"<Checksum{algorithm}>{checksum}</Checksum{algorithm}></CopyPartResult>".encode()
            body = body.replace(b"</CopyPartResult>", element)
        return status, more, body

    def described(obj: Any, *rest: Any, **more: Any) -> dict[str, str]:
        headers: dict[str, str] = describe(obj, *rest, **more)
        if "x-amz-checksum-type" in headers and any("-" in str(value) for value in obj["checksums"].values()):
            headers["x-amz-checksum-type"] = "COMPOSITE"
        return headers

    s3._copy_object, s3._upload_part_copy, s3._object_response_headers = copied, copied_part, described
