"""A tracking store of MLflow's own, and one whole training in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from examples.credit_risk.train import TrainingResult


@dataclass(frozen=True)
class Store:
    """Where to track, and a client that looks it up."""

    uri: str
    client: Any


@dataclass(frozen=True)
class Training:
    """A finished training, and what was in the working directory afterwards."""

    result: TrainingResult
    store: Store
    left_behind: list[str]
    progress: list[str]


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """Stores whose artifacts are beside them; MLflow's default would be the working directory."""
    from mlflow import MlflowClient

    def make(*experiments: str) -> Store:
        folder = tmp_path_factory.mktemp("store")
        uri = f"sqlite:///{folder}/mlflow.db"
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for experiment in experiments:
            client.create_experiment(experiment, artifact_location=(folder / "artifacts").as_uri())
        return Store(uri, client)

    return make


@pytest.fixture(scope="session")
def store(make_store: Callable[..., Store]) -> Store:
    from examples.credit_risk.autolog import EXPERIMENT
    from examples.credit_risk.strategies import STRATEGIES

    return make_store(EXPERIMENT, *(strategy.experiment for strategy in STRATEGIES.values()))


@pytest.fixture(scope="session")
def training(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The quickest strategy, registered as `credit-risk`."""
    from examples.credit_risk.train import train

    progress: list[str] = []
    with working_in(tmp_path_factory.mktemp("work")) as folder:
        result = train(
            "logistic-regression",
            tracking_uri=store.uri,
            register_as="credit-risk",
            seed=3,
            progress=progress.append,
        )
        left_behind = sorted(path.name for path in folder.iterdir())
    return Training(result, store, left_behind, progress)
