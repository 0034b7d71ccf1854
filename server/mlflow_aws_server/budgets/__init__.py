"""What a request may ask for, judged before anything is done for it."""

from mlflow_aws_server.budgets.heads import Heads
from mlflow_aws_server.budgets.middleware import Budgets

__all__ = ["Budgets", "Heads"]
