"""Steps about models: logged the usual way, registered, promoted, loaded, and still right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from client_smoke.roles import as_promoter
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment
from client_smoke.training import train
from client_smoke.verdict import StepFailed


@dataclass(frozen=True)
class FirstVersion:
    """Version 1, logged with `artifact_path=`."""

    version: str
    model_uuid: str


@dataclass(frozen=True)
class SecondVersion:
    """Version 2, a larger forest, logged with `name=`, and the run that it comes from."""

    version: str
    model_uuid: str
    run_id: str


def model_is_registered_as_taught(smoke: Smoke) -> str:
    """Log and register with the call of the field's courses: `mlflow.sklearn.log_model(…)`, word for word."""

    def log(**trust: Any) -> Any:
        return train().flavor.log_model(
            train().forest, artifact_path="model", registered_model_name=smoke.model_name, **trust
        )

    info, note = _log_in_run(smoke, log)
    first = FirstVersion(version=str(info.registered_model_version), model_uuid=info.model_uuid)
    if first.version != "1":
        raise StepFailed(
            f"the first version of a new model is {first.version}",
            next_action="look for another writer of this registered model in the server's log",
        )
    smoke.remember(first)
    return f'log_model(…, artifact_path="model") → models:/{smoke.model_name}/1{note}'


def model_is_registered_by_name(smoke: Smoke) -> str:
    """Log and register a second version with MLflow 3's own call, its requirements pinned by the caller."""
    # The first version has shown that MLflow finds them by itself, which takes many seconds.
    needed = ("mlflow", "scikit-learn", "skops")
    requirements = [f"{name}=={smoke.versions[name]}" for name in needed if name in smoke.versions]

    def log(**trust: Any) -> Any:
        return train().flavor.log_model(
            train().larger_forest,
            name="model",
            registered_model_name=smoke.model_name,
            pip_requirements=requirements,
            **trust,
        )

    info, note = _log_in_run(smoke, log)
    smoke.remember(
        SecondVersion(
            version=str(info.registered_model_version), model_uuid=info.model_uuid, run_id=info.run_id
        )
    )
    return f'log_model(…, name="model") → models:/{smoke.model_name}/{info.registered_model_version}{note}'


def version_predicts_the_same(smoke: Smoke) -> str:
    """`models:/NAME/1`, loaded by pyfunc as a stranger would, predicts what the forest in memory does."""
    first = smoke.recall(FirstVersion)
    return _loads_and_predicts(
        smoke, f"models:/{smoke.model_name}/{first.version}", first.model_uuid, train().forest
    )


def stage_promotes_and_archives(smoke: Smoke) -> str:
    """Move version 1, then 2, to Production; the older one is archived and the stage loads the newer."""
    client, name = smoke.mlflow, smoke.model_name
    first, second = smoke.recall(FirstVersion), smoke.recall(SecondVersion)
    with as_promoter(smoke):
        for version in (first.version, second.version):
            client.transition_model_version_stage(
                name=name, version=version, stage="Production", archive_existing_versions=True
            )
    stages = {
        version: client.get_model_version(name, version).current_stage
        for version in (first.version, second.version)
    }
    if stages != {first.version: "Archived", second.version: "Production"}:
        raise StepFailed(
            f"after two promotions with archive_existing_versions=True the stages are {stages}",
            next_action="look at the server's log for transition-stage calls that failed",
        )
    loaded = _loads_and_predicts(
        smoke, f"models:/{name}/Production", second.model_uuid, train().larger_forest
    )
    return f"{loaded}; version {first.version} archived"


def alias_names_the_champion(smoke: Smoke) -> str:
    """Set the alias `champion` on version 1, move it to 2, and load the model by it."""
    client, name = smoke.mlflow, smoke.model_name
    second = smoke.recall(SecondVersion)
    with as_promoter(smoke):
        for version in (smoke.recall(FirstVersion).version, second.version):
            client.set_registered_model_alias(name, "champion", version)
    return _loads_and_predicts(smoke, f"models:/{name}@champion", second.model_uuid, train().larger_forest)


def _log_in_run(smoke: Smoke, log: Any) -> tuple[Any, str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    smoke.made_something = True
    _ = smoke.mlflow
    # A run of its own: one that is behind a registered version is not written to any more.
    with mlflow.start_run(experiment_id=smoke.recall(Experiment).id, run_name=smoke.model_name):
        try:
            return log(), ""
        except MlflowException as error:
            distrusted = distrusted_types(str(error))
            if not distrusted:
                raise
            # The plain call fails for every user of this skops, which the observation must not hide.
            note = (
                f" — only with skops_trusted_types={distrusted}: skops {smoke.versions['skops']} "
                "distrusts scikit-learn's own trees; users want skops<0.15 (requirements.txt)"
            )
            return log(skops_trusted_types=distrusted), note


def distrusted_types(message: str) -> list[str]:
    """scikit-learn's own types that skops named as untrusted in this error; empty unless all of them are."""
    if "untrusted types" not in message.lower():
        return []
    _, _, root_error = message.partition("Root error:")
    named = re.findall(r"\b[a-z_]\w*(?:\.\w+)+", root_error)
    return sorted(set(named)) if named and all(name.startswith("sklearn.") for name in named) else []


def _loads_and_predicts(smoke: Smoke, uri: str, model_uuid: str, original: Any) -> str:
    import mlflow

    _ = smoke.mlflow
    loaded = mlflow.pyfunc.load_model(uri)
    if loaded.metadata.model_uuid != model_uuid:
        raise StepFailed(
            f"{uri} loads model {loaded.metadata.model_uuid}, not {model_uuid} that was registered",
            next_action="look in the server's log for another change to this registered model",
        )
    samples = train().samples
    predicted, expected = list(loaded.predict(samples)), list(original.predict(samples))
    if predicted != expected:
        differing = sum(one != other for one, other in zip(predicted, expected, strict=False))
        raise StepFailed(
            f"{uri} predicts otherwise for {differing} of {len(expected)} samples",
            next_action="compare scikit-learn's version here with the model's requirements.txt, then "
            "the model's object versions in S3",
        )
    return f"{uri} agrees on {len(expected)} unseen samples"
