"""The same search with autolog: `python -m examples.credit_risk.autolog`.

Two lines of MLflow instead of a module: autolog fills the parent run and makes a child for each of the best
combinations, with their parameters, metrics and plots. The price: it decides what is logged, keeps only some
children, and names nothing of ours (data revision, evidence on unseen rows). Use it to explore; what shall
reach the registry comes from `examples.credit_risk.train`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

import mlflow
from mlflow.exceptions import MlflowException
from sklearn.model_selection import GridSearchCV

from examples.credit_risk import data as credit
from examples.credit_risk import tracking
from examples.credit_risk.search import FOLDS
from examples.credit_risk.strategies import STRATEGIES

EXPERIMENT = "credit-risk/autolog"


def search(strategy: str, *, tracking_uri: str | None = None, seed: int = 0, children: int = 5) -> str:
    """Let scikit-learn search and MLflow log, `children` child runs at most; returns the parent run's id."""
    plan, rows = STRATEGIES[strategy], credit.load()
    grid = {f"classifier__{name}": list(values) for name, values in plan.grid.items()}
    with tracking.server(tracking_uri):
        mlflow.set_experiment(EXPERIMENT)
        # No models: autolog saves the whole search as a pickle, which runs what it says when loaded.
        mlflow.sklearn.autolog(max_tuning_runs=children, log_models=False)
        try:
            with mlflow.start_run(run_name=f"{strategy}, autolog") as run:
                GridSearchCV(plan.pipeline({}, seed=seed), grid, cv=FOLDS, scoring="roc_auc").fit(
                    credit.features(rows.fitting), rows.fitting[credit.TARGET]
                )
        finally:
            # Never mixed: whatever this process fits next is logged by nobody.
            mlflow.sklearn.autolog(disable=True)
    return str(run.info.run_id)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; exit codes as of `examples.credit_risk.train`."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.credit_risk.autolog",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done; 1 the server or S3 refused; 2 wrong usage; 130 interrupted",
    )
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="random-forest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracking-uri", metavar="URL", help="default: MLFLOW_TRACKING_URI")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        run_id = search(arguments.strategy, tracking_uri=arguments.tracking_uri, seed=arguments.seed)
    except tracking.NoTrackingServerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (MlflowException, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    sys.stdout.write(json.dumps({"experiment": EXPERIMENT, "run_id": run_id}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
