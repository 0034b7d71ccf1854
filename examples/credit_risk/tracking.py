"""The rim: everything that this example says to MLflow, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import mlflow
import mlflow.data
import mlflow.sklearn
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline

from examples.credit_risk import evidence
from examples.credit_risk.data import TARGET, CreditData, features
from examples.credit_risk.search import FOLDS, Candidate
from examples.credit_risk.strategies import Parameters
from examples.credit_risk.trusted_types import TRUSTED_TYPES

_REQUIREMENTS = ("mlflow", "scikit-learn", "skops", "pandas")
_LONGEST_DIGEST = 36


class NoTrackingServerError(Exception):
    """Nobody said where to track; MLflow would quietly write into the working directory."""


@contextmanager
def server(uri: str | None) -> Iterator[str]:
    """Track to `uri` or `MLFLOW_TRACKING_URI`, for the time of the block; raises `NoTrackingServerError`."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise NoTrackingServerError(
            "no tracking server is named: set MLFLOW_TRACKING_URI, or give --tracking-uri https://…"
        )
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield uri
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def child_run(parameters: Parameters) -> Iterator[str]:
    """A child of the active run for one combination, active in the block; yields its id."""
    with mlflow.start_run(run_name=shown(parameters), nested=True) as child:
        mlflow.log_params(parameters)
        yield str(child.info.run_id)


def log_candidate(candidate: Candidate) -> None:
    """What cross-validation says of the active run's combination."""
    mlflow.log_metrics(candidate.metrics)
    for fold, roc_auc in enumerate(candidate.fold_roc_auc, start=1):
        mlflow.log_metric("fold_roc_auc", roc_auc, step=fold)


def shown(parameters: Mapping[str, object]) -> str:
    """Parameters as people read them."""
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def log_data(data: CreditData) -> None:
    """Name the data that the active run learns from and is judged by, down to hash and revision."""
    tags = data.snapshot.tags()
    # The repository is where the data are; a path of this machine would mean nothing to the next reader.
    source = CodeDatasetSource(
        {
            "mlflow.source.name": f"examples/credit_risk/data/{data.snapshot.file}",
            "mlflow.source.git.commit": data.snapshot.git_revision or "",
        }
    )
    for context, rows in (("training", data.fitting), ("evaluation", data.judging)):
        dataset = mlflow.data.from_pandas(
            rows,
            source=source,
            targets=TARGET,
            name=f"credit-risk-{context}",
            digest=data.snapshot.sha256[:_LONGEST_DIGEST],
        )
        mlflow.log_input(dataset, context=context, tags=tags)
    mlflow.log_dict(asdict(data.snapshot), "evidence/data.json")


def log_chosen(
    model: Pipeline, chosen: Candidate, *, metrics: Mapping[str, float], data: CreditData, seed: int
) -> Any:
    """The chosen model, once, on the active run, with its figures and evidence; returns its ModelInfo."""
    mlflow.log_params({f"best_{name}": value for name, value in chosen.parameters.items()})
    examples = features(data.judging).head(3)
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        # A lender needs the probability, not only the verdict.
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(examples, model.predict_proba(examples)),
        input_example=examples,
        skops_trusted_types=list(TRUSTED_TYPES),
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
    )
    mlflow.log_metrics({**chosen.metrics, **metrics}, model_id=info.model_id)
    for file, figure in evidence.plots(model, data.judging, seed=seed).items():
        mlflow.log_figure(figure, f"evidence/{file}")
    for file, source in evidence.scripts().items():
        mlflow.log_text(source, f"evidence/code/{file}")
    mlflow.log_dict(evidence.environment(), "evidence/environment.json")
    return info


def describe_search(
    *, strategy: str, combinations: int, data: CreditData, seed: int, code_revision: str | None
) -> None:
    """What the active run, the parent, is about to do."""
    mlflow.log_params(
        {
            "strategy": strategy,
            "combinations": combinations,
            "folds": FOLDS,
            "seed": seed,
            "training_rows": len(data.fitting),
        }
    )
    tags = {"python": sys.version.split()[0]}
    if code_revision:
        tags["code.revision"] = code_revision
    mlflow.set_tags(tags)


def register(model_uri: str, name: str) -> str:
    """Make the model a new version of the registered model `name`; returns the version's number."""
    return str(mlflow.register_model(model_uri, name).version)
