"""Train, search, track and register: `python -m examples.credit_risk.train --strategy random-forest`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import mlflow
import requests
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.exceptions import MlflowException

from examples.credit_risk import data as credit
from examples.credit_risk import tracking
from examples.credit_risk.search import choose, evaluate, judge
from examples.credit_risk.strategies import STRATEGIES

# So few that every strategy does clearly worse, with the same columns and the same judgement.
WEAK_ROWS = 60
_ALL = "all"
_EPILOG = """\
The server is the one of --tracking-uri or MLFLOW_TRACKING_URI. Nothing is written to the working directory.

exit codes: 0 done; 1 the server or S3 refused, the message says why; 2 wrong usage; 130 interrupted
"""


@dataclass(frozen=True)
class TrainingResult:
    """What was trained: the parent run, the chosen model and how it did on unseen rows."""

    strategy: str
    experiment: str
    run_id: str
    children: tuple[str, ...]
    model_uri: str
    parameters: dict[str, object]
    metrics: dict[str, float]
    registered_as: str | None = None
    version: str | None = None


def train(
    strategy: str,
    *,
    tracking_uri: str | None = None,
    register_as: str | None = None,
    seed: int = 0,
    weak: bool = False,
    progress: Callable[[str], None] = lambda _line: None,
) -> TrainingResult:
    """Search a strategy's grid and track it: a parent run, a child for each combination, one chosen model.

    `weak` learns from `WEAK_ROWS` rows only. With `register_as` the chosen model becomes a new version, after
    all of its evidence is there. The same arguments give the same model. Raises `KeyError` for an unknown
    strategy, `NoTrackingServerError`, and MLflow's and boto3's errors; the parent run is then FAILED.
    """
    plan = STRATEGIES[strategy]
    rows = credit.load()
    if weak:
        rows = rows.only(WEAK_ROWS)
    combinations = plan.combinations()
    with tracking.server(tracking_uri):
        mlflow.set_experiment(plan.experiment)
        with mlflow.start_run(run_name=f"{strategy}{', weak' if weak else ''}, seed {seed}") as parent:
            tracking.describe_search(
                strategy=strategy,
                combinations=len(combinations),
                data=rows,
                seed=seed,
                code_revision=credit.code_revision(),
            )
            tracking.log_data(rows)
            candidates, children = [], []
            for number, parameters in enumerate(combinations, start=1):
                with tracking.child_run(parameters) as child:
                    candidate = evaluate(plan, parameters, rows.fitting, seed=seed)
                    tracking.log_candidate(candidate)
                candidates.append(candidate)
                children.append(child)
                progress(
                    f"{strategy} {number}/{len(combinations)}: {tracking.shown(parameters)} → "
                    f"cross-validated ROC AUC {candidate.metrics['cv_roc_auc']:.4f}"
                )
            chosen = choose(candidates)
            model = plan.pipeline(chosen.parameters, seed=seed).fit(
                credit.features(rows.fitting), rows.fitting[credit.TARGET]
            )
            metrics = judge(model, rows.judging)
            info = tracking.log_chosen(model, chosen, metrics=metrics, data=rows, seed=seed)
        result = TrainingResult(
            strategy=strategy,
            experiment=plan.experiment,
            run_id=parent.info.run_id,
            children=tuple(children),
            model_uri=info.model_uri,
            parameters=dict(chosen.parameters),
            metrics={**chosen.metrics, **metrics},
        )
    return register(result, register_as, tracking_uri=tracking_uri) if register_as else result


def register(result: TrainingResult, name: str, *, tracking_uri: str | None = None) -> TrainingResult:
    """Register a trained model as a new version of `name`; returns the result with the version."""
    with tracking.server(tracking_uri):
        return replace(result, registered_as=name, version=tracking.register(result.model_uri, name))


def best(results: Sequence[TrainingResult]) -> TrainingResult:
    """The one to register: chosen by cross-validation too, so that the unseen rows stay unseen."""
    return max(results, key=lambda result: result.metrics["cv_roc_auc"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # MLflow prints links on standard output, where this program's result belongs.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    names = list(STRATEGIES) if arguments.strategy == _ALL else [arguments.strategy]
    try:
        results = [
            train(
                name,
                tracking_uri=arguments.tracking_uri,
                seed=arguments.seed,
                weak=arguments.weak,
                progress=_say if not arguments.quiet else lambda _line: None,
            )
            for name in names
        ]
        chosen = best(results)
        if arguments.register:
            chosen = register(chosen, arguments.register, tracking_uri=arguments.tracking_uri)
    except tracking.NoTrackingServerError as error:
        _say(f"error: {error}")
        return 2
    except (MlflowException, requests.RequestException, BotoCoreError, ClientError, OSError) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the run that was active is marked as failed")
        return 130
    sys.stdout.write(_as_json(chosen) if arguments.json else _as_text(chosen))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.credit_risk.train",
        description="Grid search on credit data: a parent run, a child for each combination, one model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--strategy",
        required=True,
        choices=[*STRATEGIES, _ALL],
        help=f"what to fit; `{_ALL}` trains each in its own experiment and takes the best one",
    )
    parser.add_argument("--register", metavar="NAME", help="make the chosen model a new version of NAME")
    parser.add_argument("--seed", type=int, default=0, help="of folds and models; the hold-out never changes")
    parser.add_argument(
        "--weak",
        action="store_true",
        help=f"learn from {WEAK_ROWS} rows only: a model that must not be promoted",
    )
    parser.add_argument("--tracking-uri", metavar="URL", help="default: MLFLOW_TRACKING_URI")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="say nothing on the way (standard error)")
    return parser


def _as_json(result: TrainingResult) -> str:
    return json.dumps(asdict(result), indent=2) + "\n"


def _as_text(result: TrainingResult) -> str:
    lines = {
        "experiment": result.experiment,
        "run": f"{result.run_id} with {len(result.children)} children",
        "chosen": tracking.shown(result.parameters),
        "unseen rows": f"ROC AUC {result.metrics['test_roc_auc']:.4f}, "
        f"accuracy {result.metrics['test_accuracy']:.4f}",
        "model": result.model_uri,
        "registered": f"models:/{result.registered_as}/{result.version}" if result.version else "no",
    }
    return "".join(f"{name:<12} {value}\n" for name, value in lines.items())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
