# mypy: ignore-errors
# The registry as the courses teach it: log and register at once, move through the stages, load by stage.
import mlflow
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

mlflow.set_experiment("Model-Registry")
name = "sk-learn-random-forest"

X, y = make_classification(n_samples=200, n_features=4, n_informative=2, random_state=0, shuffle=False)
client = MlflowClient()
versions = []
for max_depth in (2, 5):
    with mlflow.start_run():
        clf = RandomForestClassifier(max_depth=max_depth, n_estimators=10, random_state=0).fit(X, y)
        mlflow.log_params({"max_depth": max_depth})
        mlflow.log_metric("accuracy", clf.score(X, y))
        mlflow.sklearn.log_model(
            sk_model=clf,
            artifact_path="model",
            signature=infer_signature(X, clf.predict(X)),
            registered_model_name=name,
        )
    versions.append(max(client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version)).version)
first, second = versions

client.update_model_version(name=name, version=second, description="deeper trees")
for stage in ("Staging", "Production"):
    client.transition_model_version_stage(name=name, version=first, stage=stage)
assert (
    mlflow.pyfunc.load_model(f"models:/{name}/Production").metadata.run_id
    == client.get_model_version(name, first).run_id
)

client.transition_model_version_stage(
    name=name, version=second, stage="Production", archive_existing_versions=True
)
assert client.get_model_version(name, first).current_stage == "Archived"
assert client.get_model_version(name, second).current_stage == "Production"
assert [v.version for v in client.get_latest_versions(name, stages=["Production"])] == [second]

model = mlflow.pyfunc.load_model(model_uri=f"models:/{name}/Production")
assert (model.predict(X) == clf.predict(X)).all()
same = mlflow.sklearn.load_model(f"models:/{name}/{second}")
assert same.get_params()["max_depth"] == 5
