"""An order of magnitude over stock MLflow for the calls that training loops and the UI make most.

`FastPath` wraps MLflow's own ASGI application. It answers a dozen routes straight from PostgreSQL, with
set-based statements, and hands everything else, and every request it does not fully understand, to MLflow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_aws_server.fastpath.middleware import FastPath
    from mlflow_aws_server.fastpath.settings import FastPathSettings

__all__ = ["FastPath", "FastPathSettings"]


def __getattr__(name: str) -> Any:
    # Only on demand: it loads MLflow's server, which the migration task wants the indexes without.
    if name == "FastPath":
        from mlflow_aws_server.fastpath.middleware import FastPath

        return FastPath
    if name == "FastPathSettings":
        from mlflow_aws_server.fastpath.settings import FastPathSettings

        return FastPathSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
