"""What every worker needs, imported in the fork server before it forks them.

Nothing here may start a thread, open a connection or draw a random number: a fork would share it.
"""

from __future__ import annotations

import gc
import warnings

with warnings.catch_warnings():
    # MLflow has replaced what is deprecated there, and imports it all the same.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    import mlflow.server.fastapi_app

import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import mlflow.tracing.trace_rollup_service  # noqa: F401

import mlflow_aws_server.app
import mlflow_aws_server.database_check
import mlflow_aws_server.fastpath  # noqa: F401

gc.collect()
# The collector writes to every object it visits, and so would copy what the workers share.
gc.freeze()
