# mypy: ignore-errors
# A tree model of each library, registered under the client's version, for load_trees.py of all clients.
import lightgbm
import mlflow
import xgboost
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

mlflow.set_experiment("Client-Matrix")
X, y = load_iris(return_X_y=True)
models = {
    "sklearn": RandomForestClassifier(n_estimators=5, random_state=0),
    "xgboost": xgboost.XGBClassifier(n_estimators=5, random_state=0),
    "lightgbm": lightgbm.LGBMClassifier(n_estimators=5, random_state=0, verbose=-1),
}
for flavor, model in models.items():
    with mlflow.start_run():
        getattr(mlflow, flavor).log_model(
            model.fit(X, y),
            artifact_path="model",
            registered_model_name=f"{flavor}-{mlflow.__version__}",
            # Finding them by itself takes many seconds a model; the other patterns let it.
            pip_requirements=[f"mlflow=={mlflow.__version__}"],
        )
