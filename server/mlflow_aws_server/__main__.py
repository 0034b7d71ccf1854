"""`python -m mlflow_aws_server COMMAND`: the container's entry point."""

import sys

from mlflow_aws_server.entrypoint import main

sys.exit(main(sys.argv[1:]))
