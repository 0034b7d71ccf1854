# mypy: ignore-errors
# mlflow.lightgbm.autolog() with LightGBM's own API.
import lightgbm as lgb
import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

mlflow.set_experiment("Autolog-LightGBM")
mlflow.lightgbm.autolog()

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
train_set = lgb.Dataset(X_train, label=y_train)

with mlflow.start_run() as run:
    model = lgb.train(
        {"objective": "binary", "num_leaves": 15, "metric": "binary_logloss", "verbose": -1},
        train_set,
        num_boost_round=10,
        valid_sets=[train_set],
        valid_names=["train"],
    )

data = MlflowClient().get_run(run.info.run_id).data
assert data.params["num_leaves"] == "15", data.params
assert "train-binary_logloss" in data.metrics, data.metrics

loaded = mlflow.lightgbm.load_model(f"runs:/{run.info.run_id}/model")
assert (loaded.predict(X_test) == model.predict(X_test)).all()
