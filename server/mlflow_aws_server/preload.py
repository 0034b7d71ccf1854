"""What every worker needs, imported in uvicorn's supervisor before it forks them.

Nothing here may start a thread, open a connection or draw a random number: a fork would share it.
"""
# ruff: noqa: F401 - imported for the memory pages that workers share

from __future__ import annotations

import functools
import gc
import warnings

with warnings.catch_warnings():
    # MLflow no longer uses what is deprecated, but still imports it.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    import mlflow.server.fastapi_app

import alembic.command
import alembic.config
import anyio._backends._asyncio
import httptools
import mlflow.server.sandbox.container
import mlflow.store.db.utils
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import mlflow.tracing.export.utils
import mlflow.tracing.processor.otel
import mlflow.tracing.trace_rollup_service
import psycopg2.extras
import sqlalchemy.dialects.postgresql
import sqlalchemy.orm
import uvicorn.lifespan.on
import uvicorn.loops.uvloop
import uvicorn.protocols.http.httptools_impl
import uvloop

import mlflow_aws_server.app
import mlflow_aws_server.artifacts
import mlflow_aws_server.database.check
import mlflow_aws_server.database.token
import mlflow_aws_server.events.dispatcher
import mlflow_aws_server.fastpath
import mlflow_aws_server.frozen
import mlflow_aws_server.provenance
import mlflow_aws_server.schema
import mlflow_aws_server.sealing
import mlflow_aws_server.webhook_key

# The newest revision of the installed migration scripts cannot change; reading all of them costs each
# worker 13 MB, and MLflow does it for every store that it opens.
mlflow.store.db.utils._get_latest_schema_revision = functools.cache(
    mlflow.store.db.utils._get_latest_schema_revision
)
mlflow.store.db.utils._get_latest_schema_revision()
mlflow_aws_server.schema.installed()

# Otherwise each worker would do it at its first query, and copy every page that holds a mapper.
sqlalchemy.orm.configure_mappers()

# Otherwise Flask sorts its routes at each worker's first request.
mlflow.server.app.url_map.update()
mlflow.server.app.url_map.bind("localhost").test("/health")

# Finds the credential providers; none is asked before the fork.
mlflow_aws_server.database.token.prepare()

gc.collect()
# The collector writes to every object it visits, which would copy the pages that workers share.
gc.freeze()
