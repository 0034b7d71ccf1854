# mypy: ignore-errors
# The run has ended when its model is registered: from the run, and in MLflow 3 by the model's own id.
import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

mlflow.set_experiment("Registered-Afterwards")
name = "afterwards-" + mlflow.__version__
X, y = load_iris(return_X_y=True)
with mlflow.start_run() as run:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
    info = mlflow.sklearn.log_model(tree, artifact_path="model")

sources = [f"runs:/{run.info.run_id}/model"]
if hasattr(info, "model_id"):
    sources += [info.model_uri, f"models:/{info.model_id}"]
for source in sources:
    registered = mlflow.register_model(source, name)
    assert (
        mlflow.pyfunc.load_model(f"models:/{name}/{registered.version}").predict(X) == tree.predict(X)
    ).all()
assert len(MlflowClient().search_model_versions(f"name='{name}'")) == len(sources)

# People describe what they made, also afterwards.
MlflowClient().set_tag(run.info.run_id, "mlflow.note.content", "three levels are enough")
MlflowClient().update_model_version(name, "1", description="the first")
