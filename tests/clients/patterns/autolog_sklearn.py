# mypy: ignore-errors
# mlflow.sklearn.autolog() and train as always.
import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split

mlflow.set_experiment("Autolog-Sklearn")
mlflow.sklearn.autolog()

X, y = load_diabetes(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

with mlflow.start_run() as run:
    rf = RandomForestRegressor(n_estimators=20, max_depth=6, max_features=3, random_state=0)
    rf.fit(X_train, y_train)
    predictions = rf.predict(X_test)

data = MlflowClient().get_run(run.info.run_id).data
assert data.params["n_estimators"] == "20", data.params
assert "training_r2_score" in data.metrics, data.metrics

loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
assert (loaded.predict(X_test) == predictions).all()
