"""What a registered version rests on cannot change: its run and its logged model.

`Frozen` stands in front of stock MLflow, behind the fast path, which answers for open runs only.
"""

from mlflow_aws_server.frozen.middleware import Frozen

__all__ = ["Frozen"]
