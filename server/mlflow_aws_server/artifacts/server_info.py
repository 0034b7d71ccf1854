"""What server-info says of uploads and other features: what the gate lets through."""

from __future__ import annotations

from typing import Any

from mlflow_aws_server.identity import offers

PATHS = frozenset(("/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"))

_UPLOAD = ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url")
# A feature, and a route that somebody must be able to use for it to be there.
_NEEDS = {
    "presigned_upload_run_id_supported": _UPLOAD,
    "presigned_upload_model_id_supported": _UPLOAD,
    "multipart_uploads_enabled": ("POST", "/api/2.0/mlflow-artifacts/mpu/create/x"),
    "multipart_downloads_enabled": ("GET", "/api/2.0/mlflow-artifacts/presigned/x"),
    "workspaces_enabled": ("GET", "/api/3.0/mlflow/workspaces"),
}
_FEATURES = {"gateway": ("GET", "/api/3.0/mlflow/gateway/endpoints/list")}


def corrected(info: dict[str, Any]) -> dict[str, Any]:
    """MLflow's answer, without the features that the gate offers to nobody."""
    features = info.get("features_enabled")
    if isinstance(features, dict):
        info = {**info, "features_enabled": _only_offered(features, _FEATURES)}
    return _only_offered(info, _NEEDS)


def _only_offered(said: dict[str, Any], needs: dict[str, tuple[str, str]]) -> dict[str, Any]:
    return {
        name: bool(value) and offers(*needs[name]) if name in needs else value for name, value in said.items()
    }
