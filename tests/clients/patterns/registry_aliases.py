# mypy: ignore-errors
# The registry with aliases, registered from a run afterwards.
import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

mlflow.set_experiment("Model-Registry-Aliases")
name = "iris-champion"

X, y = load_iris(return_X_y=True, as_frame=True)
with mlflow.start_run() as run:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
    mlflow.sklearn.log_model(tree, "model", input_example=X.head(2))

client = MlflowClient()
version = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
client.set_model_version_tag(name, version.version, "validation_status", "approved")
client.set_registered_model_alias(name, "champion", version.version)

assert client.get_model_version_by_alias(name, "champion").version == version.version
assert client.get_model_version(name, version.version).tags["validation_status"] == "approved"

champion = mlflow.pyfunc.load_model(f"models:/{name}@champion")
assert (champion.predict(X) == tree.predict(X)).all()

client.delete_registered_model_alias(name, "champion")
assert "champion" not in client.get_registered_model(name).aliases
