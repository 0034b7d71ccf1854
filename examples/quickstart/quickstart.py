"""Connect, train, find the result again: what `docs/connect.md` shows, as one script.

Run it in a shell whose variables name the server: `python examples/quickstart/quickstart.py`. With
`mlflow-aws-auth` installed, `connect` checks the whole way first and says what is wrong; without it, the
variables alone are enough (MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN).
"""

import os
import sys

import mlflow
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split


def main() -> int:
    """Train a forest under autolog, and load its model back; returns the exit code."""
    if "MLFLOW_TRACKING_URI" not in os.environ:
        sys.stderr.write("quickstart: set MLFLOW_TRACKING_URI to the server's https:// address\n")
        return 2
    if "MLFLOW_TRACKING_TOKEN" not in os.environ:
        import mlflow_aws_auth

        mlflow_aws_auth.connect(os.environ["MLFLOW_TRACKING_URI"])

    mlflow.set_experiment("quickstart")
    mlflow.sklearn.autolog(serialization_format="skops")  # the safe format; autolog's default is a pickle

    features, labels = load_wine(return_X_y=True)
    known, unseen, known_labels, unseen_labels = train_test_split(features, labels, random_state=7)
    with mlflow.start_run(run_name="first forest") as run:
        forest = RandomForestClassifier(n_estimators=20, random_state=7).fit(known, known_labels)
        mlflow.log_metric("accuracy_on_unseen_wine", forest.score(unseen, unseen_labels))

    again = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    same = (again.predict(unseen) == forest.predict(unseen)).all()
    sys.stdout.write(
        f"run {run.info.run_id}: the model came back and predicts {'the same' if same else 'OTHERWISE'}\n"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
