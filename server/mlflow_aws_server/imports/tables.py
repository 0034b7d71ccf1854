"""MLflow's tables: what is copied, in which order, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """One table that is copied.

    A row is copied if no row here has its key. If it belongs to another row, its `owner`, it is copied only
    together with that: what is here already stays as it is, and nothing is added to it.
    """

    name: str
    key: str
    owner: str = ""
    link: str = ""
    """SQL: the owner's id in this table, called `t`. Empty: columns of the same names."""
    id: str = ""
    """What refers to a row. Empty: its key."""

    @property
    def referred_to_by(self) -> str:
        """The columns that other tables name a row by."""
        return self.id or self.key


ANY_OWNER = "anything"
"""Stands for the table of an owner that may be in several."""

# Parents before children, as foreign keys demand.
COPIED: tuple[CopiedTable, ...] = (
    CopiedTable("experiments", "experiment_id"),
    CopiedTable("experiment_tags", "experiment_id, key", "experiments"),
    CopiedTable("runs", "run_uuid"),
    CopiedTable("params", "run_uuid, key", "runs"),
    CopiedTable("tags", "run_uuid, key", "runs"),
    CopiedTable("metrics", "run_uuid, key, timestamp, step, value, is_nan", "runs"),
    CopiedTable("latest_metrics", "run_uuid, key", "runs"),
    CopiedTable("datasets", "experiment_id, name, digest"),
    CopiedTable("logged_models", "model_id"),
    CopiedTable("logged_model_params", "model_id, param_key", "logged_models"),
    CopiedTable("logged_model_tags", "model_id, tag_key", "logged_models"),
    CopiedTable(
        "logged_model_metrics",
        "model_id, metric_name, metric_timestamp_ms, metric_step, run_id",
        "logged_models",
    ),
    CopiedTable(
        "inputs",
        "source_type, source_id, destination_type, destination_id",
        "runs",
        # A data set or a model is an input of a run, and a model its output: one end is always the run.
        "CASE WHEN t.destination_type = 'RUN' THEN t.destination_id ELSE t.source_id END",
        id="input_uuid",
    ),
    CopiedTable("input_tags", "input_uuid, name", "inputs"),
    CopiedTable("trace_info", "request_id"),
    CopiedTable("trace_tags", "request_id, key", "trace_info"),
    CopiedTable("trace_request_metadata", "request_id, key", "trace_info"),
    CopiedTable("trace_metrics", "request_id, key", "trace_info"),
    CopiedTable("spans", "trace_id, span_id", "trace_info", "t.trace_id"),
    CopiedTable("span_metrics", "trace_id, span_id, key", "trace_info", "t.trace_id"),
    CopiedTable("assessments", "assessment_id", "trace_info", "t.trace_id"),
    CopiedTable("registered_models", "workspace, name"),
    CopiedTable("registered_model_tags", "workspace, name, key", "registered_models"),
    CopiedTable("model_versions", "workspace, name, version"),
    CopiedTable("model_version_tags", "workspace, name, version, key", "model_versions"),
    CopiedTable("registered_model_aliases", "workspace, name, alias", "registered_models"),
    CopiedTable("evaluation_datasets", "dataset_id"),
    CopiedTable("evaluation_dataset_records", "dataset_record_id", "evaluation_datasets", "t.dataset_id"),
    CopiedTable("evaluation_dataset_tags", "dataset_id, key", "evaluation_datasets"),
    CopiedTable(
        "entity_associations",
        "source_type, source_id, destination_type, destination_id",
        ANY_OWNER,
        "t.source_id",
    ),
    CopiedTable("issues", "issue_id"),
    CopiedTable("scorers", "scorer_id"),
    CopiedTable("scorer_versions", "scorer_id, scorer_version", "scorers"),
    CopiedTable("online_scoring_configs", "online_scoring_config_id", "scorers", "t.scorer_id"),
    CopiedTable("label_schemas", "schema_id"),
    CopiedTable("review_queues", "queue_id"),
    CopiedTable("review_queue_items", "queue_id, item_id", "review_queues"),
    CopiedTable("review_queue_users", "queue_id, user_id", "review_queues"),
    CopiedTable("review_queue_label_schemas", "queue_id, schema_id", "review_queues"),
    CopiedTable("mcp_servers", "workspace, name"),
    CopiedTable("mcp_server_versions", "workspace, name, version", "mcp_servers"),
    CopiedTable("mcp_server_tags", "workspace, name, key", "mcp_servers"),
    CopiedTable("mcp_server_version_tags", "workspace, name, version, key", "mcp_servers"),
    CopiedTable("mcp_server_aliases", "workspace, name, alias", "mcp_servers"),
    CopiedTable("mcp_access_endpoints", "id", "mcp_servers", "t.workspace, t.server_name"),
)

LEFT_OUT: Mapping[str, str] = {
    "alembic_version": "the schema's revision",
    "workspaces": "there is one workspace here",
    "jobs": "work of the source's own processes",
    "job_locks": "work of the source's own processes",
    "scheduler_leases": "work of the source's own processes",
    "secrets": "encrypted with the source's key",
    "endpoints": "the AI gateway is off here",
    "endpoint_bindings": "the AI gateway is off here",
    "endpoint_model_mappings": "the AI gateway is off here",
    "endpoint_tags": "the AI gateway is off here",
    "model_definitions": "the AI gateway is off here",
    "budget_policies": "the AI gateway is off here",
    "guardrails": "the AI gateway is off here",
    "guardrail_configs": "the AI gateway is off here",
    "webhooks": "their secrets are encrypted with the source's key",
    "webhook_events": "their secrets are encrypted with the source's key",
    "sql_trace_metric_daily_rollups": "MLflow computes them from traces",
    "sql_span_cost_daily_rollups": "MLflow computes them from traces",
    "sql_assessment_daily_rollups": "MLflow computes them from traces",
    "sql_trace_rollup_rebuild_queue": "MLflow computes them from traces",
}
"""Every other table of MLflow's, and why its rows stay behind."""

TAGS: Mapping[str, str] = {
    "experiment_tags": "key",
    "tags": "key",
    "logged_model_tags": "tag_key",
    "trace_tags": "key",
    "trace_request_metadata": "key",
    "registered_model_tags": "key",
    "model_version_tags": "key",
    "evaluation_dataset_tags": "key",
    "mcp_server_tags": "key",
    "mcp_server_version_tags": "key",
}
"""Where a name may begin with `mlflow_aws.`, and its column."""

OF_MODELS = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
"""Where the name of a registered model is."""
