"""Promotion of MLflow models by policy, with evidence: promote, roll back, archive, explain."""

from model_lifecycle.decision import Decision
from model_lifecycle.errors import (
    ConflictError,
    LifecycleError,
    NotPermittedError,
    PolicyError,
)
from model_lifecycle.explanation import Explanation, explain
from model_lifecycle.policy import LoadedPolicy, Policy
from model_lifecycle.promotion import Lifecycle, Outcome, archive, promote, record, rollback
from model_lifecycle.registry import Registry
from model_lifecycle.rules import RefusedByPolicyError

__all__ = [
    "ConflictError",
    "Decision",
    "Explanation",
    "Lifecycle",
    "LifecycleError",
    "LoadedPolicy",
    "NotPermittedError",
    "Outcome",
    "Policy",
    "PolicyError",
    "RefusedByPolicyError",
    "Registry",
    "archive",
    "explain",
    "promote",
    "record",
    "rollback",
]
