# mypy: ignore-errors
# mlflow.xgboost.autolog() with XGBoost's own API.
import mlflow
import xgboost as xgb
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

mlflow.set_experiment("Autolog-XGBoost")
mlflow.xgboost.autolog()

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
dtrain, dtest = xgb.DMatrix(X_train, label=y_train), xgb.DMatrix(X_test, label=y_test)

with mlflow.start_run() as run:
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 3, "eval_metric": "logloss"},
        dtrain,
        num_boost_round=10,
        evals=[(dtrain, "train"), (dtest, "test")],
        verbose_eval=False,
    )

data = MlflowClient().get_run(run.info.run_id).data
assert data.params["max_depth"] == "3", data.params
assert "test-logloss" in data.metrics, data.metrics
assert len(MlflowClient().get_metric_history(run.info.run_id, "test-logloss")) == 10

loaded = mlflow.xgboost.load_model(f"runs:/{run.info.run_id}/model")
assert (loaded.predict(dtest) == booster.predict(dtest)).all()
