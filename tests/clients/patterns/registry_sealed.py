# mypy: ignore-errors
# What is registered stays what it was, whatever becomes of the files that it was registered from.
import os
from urllib.parse import urlsplit

import boto3
import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

mlflow.set_experiment("Sealed")
name = "sealed-" + mlflow.__version__
X, y = load_iris(return_X_y=True)
forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(X, y)

with mlflow.start_run() as run:
    info = mlflow.sklearn.log_model(forest, artifact_path="model", registered_model_name=name)
version = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
versions = ["1", str(version.version)]
if hasattr(info, "model_id"):
    # MLflow 3: a logged model is registered by its own id, and under more than one name.
    versions.append(str(mlflow.register_model(f"models:/{info.model_id}", name).version))
    mlflow.register_model(f"models:/{info.model_id}", f"{name}-too")

client = MlflowClient()
loaded = [client.get_model_version_download_uri(name, each) for each in versions]
assert len(set(loaded)) == len(versions), loaded
assert all("sealed/" in each for each in loaded), loaded
assert all(client.get_model_version(name, each).status == "READY" for each in versions)
assert all(client.get_model_version(name, each).run_id == run.info.run_id for each in versions)

# The files that were logged, as this client finds them, are spoiled.
if hasattr(info, "model_id"):
    logged = urlsplit(client.get_logged_model(info.model_id).artifact_location)
else:
    logged = urlsplit(run.info.artifact_uri + "/model")
s3 = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
listed = s3.list_objects_v2(Bucket=logged.netloc, Prefix=logged.path.lstrip("/") + "/")["Contents"]
assert listed
for each in listed:
    s3.put_object(Bucket=logged.netloc, Key=each["Key"], Body=b"spoiled")

for each in versions:
    assert (mlflow.pyfunc.load_model(f"models:/{name}/{each}").predict(X) == forest.predict(X)).all()
client.transition_model_version_stage(name, versions[-1], stage="Production")
client.set_registered_model_alias(name, "champion", versions[-1])
for uri in (f"models:/{name}/Production", f"models:/{name}@champion"):
    assert (mlflow.sklearn.load_model(uri).predict(X) == forest.predict(X)).all()
