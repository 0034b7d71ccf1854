"""server-info says what the gate lets through."""

from __future__ import annotations

import pytest

from tests.server.artifacts.harness import Site


@pytest.mark.parametrize("api", ["/api", "/ajax-api"])
def test_every_field_is_what_the_gate_allows(site: Site, api: str) -> None:
    got = site.send("GET", f"{api}/3.0/mlflow/server-info")
    assert got.status == 200
    assert got.json == {
        "store_type": "SqlStore",
        # No job of this server archives traces, and no setting makes it one.
        "trace_archival_enabled": False,
        "workspaces_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
    }
    for upload in ({"run_id": "x", "path": "y"}, {"model_id": "x", "path": "y"}):
        refused = site.send("POST", f"{api}/2.0/mlflow/artifacts/presigned-upload-url", upload, role="admin")
        assert refused.status == 403
    assert site.send("GET", f"{api}/3.0/mlflow/workspaces", role="admin").status == 403
    assert site.send("GET", f"{api}/3.0/mlflow/gateway/endpoints/list", role="admin").status == 403
