"""`python -m model_lifecycle`, the same as `mlflow-lifecycle`."""

import sys

from model_lifecycle.cli import main

sys.exit(main())
