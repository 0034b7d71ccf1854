"""A bucket's CloudFormation properties as documents of the S3 API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def encryption(properties: Mapping[str, Any]) -> bytes | None:
    """The body of PutBucketEncryption; None if the template has no encryption."""
    rules = (properties.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration")
    if not rules:
        return None
    return _document("ServerSideEncryptionConfiguration", (_encryption_rule(rule) for rule in rules))


def lifecycle(properties: Mapping[str, Any]) -> bytes | None:
    """The body of PutBucketLifecycleConfiguration; None if the template has no rule.

    Raises:
        NotImplementedError: a rule has a part that is not translated here.
    """
    rules = (properties.get("LifecycleConfiguration") or {}).get("Rules")
    if not rules:
        return None
    return _document("LifecycleConfiguration", (_lifecycle_rule(rule) for rule in rules))


def logging(properties: Mapping[str, Any]) -> bytes | None:
    """The body of PutBucketLogging; None if the template has no logging."""
    stated = properties.get("LoggingConfiguration")
    if not stated:
        return None
    enabled = _element("TargetBucket", stated.get("DestinationBucketName", "")) + _element(
        "TargetPrefix", stated.get("LogFilePrefix", "")
    )
    return _document("BucketLoggingStatus", [f"<LoggingEnabled>{enabled}</LoggingEnabled>"])


def object_lock(properties: Mapping[str, Any]) -> bytes | None:
    """The body of PutObjectLockConfiguration; None if the template does not turn Object Lock on."""
    if not properties.get("ObjectLockEnabled"):
        return None
    return _document("ObjectLockConfiguration", [_element("ObjectLockEnabled", "Enabled")])


def replication(properties: Mapping[str, Any]) -> bytes | None:
    """The body of PutBucketReplication; None if the template has no replication."""
    stated = properties.get("ReplicationConfiguration")
    if not stated:
        return None
    rules = "".join(f"<Rule>{_elements(rule)}</Rule>" for rule in stated["Rules"])
    return _document("ReplicationConfiguration", [_element("Role", stated["Role"]), rules])


def _elements(properties: Mapping[str, Any]) -> str:
    """Properties, and those inside them, as elements of the same names."""
    return "".join(
        f"<{name}>{_elements(value)}</{name}>"
        if isinstance(value, Mapping)
        else _element({"Id": "ID"}.get(name, name), value)
        for name, value in properties.items()
    )


def _encryption_rule(rule: Mapping[str, Any]) -> str:
    default = rule.get("ServerSideEncryptionByDefault") or {}
    inner = "".join(
        _element(key, default[key]) for key in ("SSEAlgorithm", "KMSMasterKeyID") if default.get(key)
    )
    return (
        f"<Rule><ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault>"
        f"{_element('BucketKeyEnabled', rule.get('BucketKeyEnabled', False))}</Rule>"
    )


def _lifecycle_rule(rule: Mapping[str, Any]) -> str:
    known = {
        "Id",
        "Status",
        "Prefix",
        "AbortIncompleteMultipartUpload",
        "ExpirationInDays",
        "ExpiredObjectDeleteMarker",
        "NoncurrentVersionExpiration",
    }
    if unknown := set(rule) - known:
        raise NotImplementedError(f"lifecycle rule with {', '.join(sorted(unknown))}")
    expiration = "".join(
        _element(name, rule[key])
        for key, name in (
            ("ExpirationInDays", "Days"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if rule.get(key)
    )
    noncurrent = (rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays")
    abort = (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation")
    parts = [
        _element("ID", rule.get("Id", "")),
        f"<Filter>{_element('Prefix', rule.get('Prefix', ''))}</Filter>",
        _element("Status", rule.get("Status", "Enabled")),
        f"<Expiration>{expiration}</Expiration>" if expiration else "",
        _wrapped("NoncurrentVersionExpiration", "NoncurrentDays", noncurrent),
        _wrapped("AbortIncompleteMultipartUpload", "DaysAfterInitiation", abort),
    ]
    return f"<Rule>{''.join(parts)}</Rule>"


def _wrapped(outer: str, inner: str, value: object) -> str:
    return "" if value is None else f"<{outer}>{_element(inner, value)}</{outer}>"


def _element(name: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escape(text)}</{name}>"


def _document(root: str, parts: Iterable[str]) -> bytes:
    return f"<{root} {_NAMESPACE}>{''.join(parts)}</{root}>".encode()
