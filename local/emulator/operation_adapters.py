"""Operations of AWS that MiniStack lacks: what an administrator changes by hand, and a check must notice.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_KEPT = ("JwtValidationConfig", "AuthenticateCognitoConfig")


def keep_identifying_actions_of_requests() -> None:
    """A rule that is made or modified by the API loses what identifies callers."""
    from ministack.services import alb

    parse = alb._parse_actions

    def parsed(params: Mapping[str, Any], prefix: str = "DefaultActions") -> list[dict[str, Any]]:
        actions: list[dict[str, Any]] = parse(params, prefix)
        for number, action in enumerate(actions, start=1):
            for key in _KEPT:
                if settings := _nested(params, f"{prefix}.member.{number}.{key}."):
                    action[key] = settings
        return actions

    alb._parse_actions = parsed


def keep_certificates(certificates: Mapping[str, str], *, account_id: str, region: str) -> None:
    """A certificate whose ARN was chosen elsewhere, such as a laptop's: MiniStack makes ARNs itself."""
    from ministack.core.responses import request_scope
    from ministack.services import acm

    with request_scope(account_id, region):
        for arn, domain in certificates.items():
            _status, _headers, body = acm._request_certificate({"DomainName": domain})
            made = json.loads(body)["CertificateArn"]
            acm._certificates[arn] = {**acm._certificates.pop(made), "CertificateArn": arn}


def offer_every_database_class() -> None:
    """MiniStack offers a few old classes with one version; here each class is offered that is asked for."""
    from ministack.core.responses import get_region
    from ministack.services import rds

    def offered(params: Any) -> Any:
        zones = "".join(
            f"<AvailabilityZone><Name>{get_region()}{letter}</Name></AvailabilityZone>" for letter in "abc"
        )
        options = "".join(
            f"<OrderableDBInstanceOption><Engine>{escape(rds._p(params, 'Engine'))}</Engine>"
            f"<EngineVersion>{version}</EngineVersion>"
            f"<DBInstanceClass>{escape(rds._p(params, 'DBInstanceClass'))}</DBInstanceClass>"
            f"<AvailabilityZones>{zones}</AvailabilityZones></OrderableDBInstanceOption>"
            for version in ("17.6", "18.1")
        )
        action = "DescribeOrderableDBInstanceOptions"
        listed = f"<OrderableDBInstanceOptions>{options}</OrderableDBInstanceOptions>"
        return rds._xml(200, f"{action}Response", f"<{action}Result>{listed}</{action}Result>")

    rds._ACTION_MAP["DescribeOrderableDBInstanceOptions"] = offered


def _nested(params: Mapping[str, Any], prefix: str) -> Any:
    """The part of a Query request below a prefix, with lists where it has `member`."""
    tree: dict[str, Any] = {}
    for key, value in params.items():
        if key.startswith(prefix):
            *path, last = key.removeprefix(prefix).split(".")
            place = tree
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value[0] if isinstance(value, list) else value
    return _lists(tree)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"member"}:
        return [_lists(each) for _, each in sorted(tree["member"].items(), key=lambda pair: int(pair[0]))]
    return {key: _lists(each) for key, each in tree.items()}


def share_snapshots() -> None:
    """Snapshots of an instance have no attributes: who may restore them."""
    from ministack.services import rds

    def answer(action: str, name: str) -> Any:
        shared = rds._snapshots[name].get("_restorable_by", [])
        values = "".join(f"<AttributeValue>{escape(each)}</AttributeValue>" for each in shared)
        return rds._xml(
            200,
            f"{action}Response",
            f"<{action}Result><DBSnapshotAttributesResult>"
            f"<DBSnapshotIdentifier>{escape(name)}</DBSnapshotIdentifier><DBSnapshotAttributes>"
            "<DBSnapshotAttribute><AttributeName>restore</AttributeName>"
            f"<AttributeValues>{values}</AttributeValues></DBSnapshotAttribute>"
            f"</DBSnapshotAttributes></DBSnapshotAttributesResult></{action}Result>",
        )

    def found(params: Any) -> str:
        return str(rds._p(params, "DBSnapshotIdentifier"))

    def described(params: Any) -> Any:
        name = found(params)
        if name not in rds._snapshots:
            return rds._error("DBSnapshotNotFound", f"Snapshot {name} not found.", 404)
        return answer("DescribeDBSnapshotAttributes", name)

    def modified(params: Any) -> Any:
        name = found(params)
        added = _nested(params, "ValuesToAdd.") or {}
        removed = _nested(params, "ValuesToRemove.") or {}
        shared = rds._snapshots[name].get("_restorable_by", [])
        rds._snapshots[name]["_restorable_by"] = sorted({*shared, *_values(added)} - {*_values(removed)})
        return answer("ModifyDBSnapshotAttribute", name)

    rds._ACTION_MAP["DescribeDBSnapshotAttributes"] = described
    rds._ACTION_MAP["ModifyDBSnapshotAttribute"] = modified


def _values(tree: Mapping[str, Any]) -> list[str]:
    return [str(each) for members in tree.values() for each in members.values()]


def change_the_key_of_a_log() -> None:
    """A log group's key is chosen when it is made, and cannot be changed."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import cloudwatch_logs

    handle = cloudwatch_logs.handle_request

    async def handled(method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        action = str(headers.get("x-amz-target", "")).rsplit(".", 1)[-1]
        if action not in ("AssociateKmsKey", "DisassociateKmsKey"):
            return await handle(method, path, headers, body, query)
        request = json.loads(body)
        group = cloudwatch_logs._log_groups.get(request.get("logGroupName"))
        if group is None:
            return error_response_json("ResourceNotFoundException", "no such log group", 400)
        group["kmsKeyId"] = request.get("kmsKeyId")
        return json_response({})

    cloudwatch_logs.handle_request = handled


def choose_a_policy_s_version() -> None:
    """A managed policy's default version can only be changed by making another version."""
    from ministack.services import iam

    def chosen(params: Any) -> Any:
        policy = iam._policies.get(iam._p(params, "PolicyArn"))
        version = iam._p(params, "VersionId")
        if policy is None or version not in policy["Versions"]:
            return iam._error(404, "NoSuchEntity", "Policy version not found.", ns="iam")
        for each in policy["Versions"].values():
            each["IsDefaultVersion"] = each["VersionId"] == version
        policy["DefaultVersionId"] = version
        return iam._xml(200, "SetDefaultPolicyVersionResponse", "", ns="iam")

    iam._IAM_HANDLERS["SetDefaultPolicyVersion"] = chosen
