# mypy: ignore-errors
# MLflow 3: models are named, and exist beside runs.
import mlflow
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

mlflow.set_experiment("Logged-Models")
X, y = load_iris(return_X_y=True, as_frame=True)

with mlflow.start_run() as run:
    model = RandomForestClassifier(n_estimators=10, random_state=0).fit(X, y)
    info = mlflow.sklearn.log_model(model, name="iris_model", input_example=X.head(2))
    mlflow.log_metric("accuracy", model.score(X, y), model_id=info.model_id)

logged = mlflow.get_logged_model(info.model_id)
assert logged.name == "iris_model"
assert logged.source_run_id == run.info.run_id
found = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
assert info.model_id in {each.model_id for each in found}
assert (mlflow.pyfunc.load_model(info.model_uri).predict(X) == model.predict(X)).all()
