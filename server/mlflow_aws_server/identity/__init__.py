"""Who calls, and what they may do: each request is verified, mapped to a role, and passed on or refused.

`Gate` wraps the whole application. Nothing in this package needs MLflow.
"""

from mlflow_aws_server.identity.access import offers
from mlflow_aws_server.identity.audit import OBJECT
from mlflow_aws_server.identity.audit_log import AuditLog, AuditPipe, to_standard_output
from mlflow_aws_server.identity.gate import Gate
from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.identity.roles import Lane, Principal, Role
from mlflow_aws_server.identity.settings import IdentitySettings, UserPool

__all__ = [
    "OBJECT",
    "AuditLog",
    "AuditPipe",
    "Gate",
    "IdentitySettings",
    "Lane",
    "Principal",
    "Role",
    "RoleMap",
    "UserPool",
    "offers",
    "to_standard_output",
]
