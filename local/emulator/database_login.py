"""Whether an IAM token opens the RDS instance: RDS's decision when a member of `rds_iam` signs in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.emulator.front_door import Refusal


def judge(user: str, token: str, *, host: str, port: int, account_id: str, region: str) -> Refusal | None:
    """Check a token presented at `host`:`port` for a database user; None if it is valid, else why not.

    It is valid if the instance at this endpoint has IAM authentication on, if the token is signed by live
    credentials for exactly this user and endpoint and has not expired, and if the signer's policies allow
    `rds-db:connect` on the instance's resource id and this user.
    """
    from ministack.core.rds_iam import RdsIamTokenError, verify_rds_iam_token

    instance = _instance_at(host, port, account_id=account_id, region=region)
    if instance is None:
        return Refusal(f"there is no DB instance at {host}:{port}")
    if instance.get("IAMDatabaseAuthenticationEnabled") is not True:
        return Refusal(f"IAM authentication is off for {instance['DBInstanceIdentifier']}")
    verified = verify_rds_iam_token(
        token, hostname=host, port=port, db_user=user, region=region, account_id=account_id
    )
    if isinstance(verified, RdsIamTokenError):
        return Refusal(str(verified.code))
    resource = f"arn:aws:rds-db:{region}:{account_id}:dbuser:{instance['DbiResourceId']}/{user}"
    if not _allows(verified, resource, account_id=account_id, region=region):
        return Refusal(f"{verified.principal_arn} may not rds-db:connect to {resource}")
    return None


def _instance_at(host: str, port: int, *, account_id: str, region: str) -> Mapping[str, Any] | None:
    from ministack.services import rds

    for (account, in_region, _), instance in list(rds._instances.all_items()):
        endpoint = instance.get("Endpoint") or {}
        if (account, in_region) == (account_id, region) and (
            str(endpoint.get("Address")).lower(),
            int(endpoint.get("Port", 0)),
        ) == (host.lower(), port):
            return dict(instance)
    return None


def _allows(verified: Any, resource: str, *, account_id: str, region: str) -> bool:
    from ministack.core.iam_evaluator import AuthError, EvalContext, evaluate, resolve_principal
    from ministack.core.responses import request_scope

    with request_scope(account_id, region):
        principal = resolve_principal(verified.access_key_id, account_id)
        if isinstance(principal, AuthError) or principal.arn != verified.principal_arn:
            return False
        if principal.policies is None:
            # The account's root, which no policy limits.
            return True
        context = EvalContext(
            principal_arn=principal.arn,
            principal_type=principal.type,
            principal_account=account_id,
            action="rds-db:connect",
            resource_arn=resource,
            region=region,
            principal_keys=principal.keys,
        )
        return bool(evaluate(context, principal.policies, *principal.limits).decision == "Allow")
