"""What every worker needs, imported in the fork server before it forks them.

Nothing here may start a thread, open a connection or draw a random number: a fork would share it.
"""
# ruff: noqa: F401 - imported for its pages, which the workers share

from __future__ import annotations

import gc
import warnings

with warnings.catch_warnings():
    # MLflow has replaced what is deprecated there, and imports it all the same.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    import mlflow.server.fastapi_app

import alembic.command
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import mlflow.tracing.processor.otel
import mlflow.tracing.trace_rollup_service
import sqlalchemy.dialects.postgresql
import sqlalchemy.orm

import mlflow_aws_server.app
import mlflow_aws_server.database_check
import mlflow_aws_server.fastpath
import mlflow_aws_server.provenance

# Otherwise each worker would do it at its first query, and copy every page that holds a mapper.
sqlalchemy.orm.configure_mappers()

gc.collect()
# The collector writes to every object it visits, and so would copy what the workers share.
gc.freeze()
