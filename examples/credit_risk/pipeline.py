"""The steps from training to production, one process each: `python -m examples.credit_risk.pipeline STEP`.

They are the same on a laptop and in CI. The trainer trains, evaluates and registers; the approver promotes,
checks and, if need be, rolls back. Steps share their state through a file (`--state`); jobs of GitHub Actions
share it through the output `candidate` and the variable PIPELINE_CANDIDATE.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY = Path(__file__).parent / "policy.toml"
MODEL = "credit-risk"
_SAME = 1e-9
_EPILOG = """\
exit codes: 0 done; 1 it failed or the check did not hold; 2 wrong usage; from promotions and rollbacks
also those of mlflow-lifecycle (3 refused by the policy, 4 by the server, 5 somebody else was first)
"""


class PipelineError(Exception):
    """The step did not succeed; the message says what was seen and what to do."""


@dataclass(frozen=True)
class PipelineStep:
    """One step: who takes it, and what it does with the state so far; returns an exit code."""

    name: str
    role: str
    run: Callable[[argparse.Namespace, dict[str, Any]], int]
    only_after_failure: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        """How to run it with Python, from the root of the repository."""
        return ("-m", "examples.credit_risk.pipeline", self.name)


def train(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """Search a grid: one parent run, one child run for each combination, one chosen model."""
    from examples.credit_risk.train import train as search

    result = search(arguments.strategy, seed=arguments.seed, weak=arguments.weak)
    state.update(
        model=arguments.model,
        strategy=result.strategy,
        run_id=result.run_id,
        children=len(result.children),
        model_uri=result.model_uri,
        metrics=result.metrics,
    )
    _say(
        f"{result.strategy}: {len(result.children)} child runs below {result.run_id}; "
        f"test_roc_auc {result.metrics['test_roc_auc']:.4f}"
    )
    return 0


def evaluate(_arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """Load the logged model as a stranger would, and measure it again on the rows it has never seen."""
    measured = _roc_auc(*_predicted(state["model_uri"]))
    claimed = state["metrics"]["test_roc_auc"]
    if abs(measured - claimed) > _SAME:
        raise PipelineError(
            f"the run claims test_roc_auc {claimed:.6f}, but the logged model has {measured:.6f}: "
            "what was logged is not what was measured; train again"
        )
    _say(f"the logged model has test_roc_auc {measured:.4f}, as its run claims")
    return 0


def register(_arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """Make the chosen model a new version, and wait until the server has sealed it."""
    import mlflow
    from model_lifecycle import Registry, record

    version = str(mlflow.register_model(state["model_uri"], state["model"]).version)
    seal = record(Registry(), state["model"], version)
    state["version"] = version
    sealed = f"{seal.files} files, manifest sha256 {seal.sha256}" if seal else "sealed with its promotion"
    _say(f"{state['model']} version {version}: {sealed}")
    return 0


def promote_staging(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """None → Staging, and the alias challenger."""
    return _lifecycle("promote", state["model"], state["version"], "--to=staging", *_policy(arguments))


def promote_production(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """Staging → Production, and the alias champion; who was live is archived."""
    return _lifecycle("promote", state["model"], state["version"], "--to=production", *_policy(arguments))


def smoke(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """Load what consumers load, by stage and by alias: it must be the version, and good enough."""
    import mlflow

    name, version = state["model"], state["version"]
    expected, _ = _predicted(f"models:/{name}/{version}")
    client = mlflow.MlflowClient()
    champion = str(client.get_model_version_by_alias(name, "champion").version)
    if champion != version:
        raise PipelineError(
            f"the champion is version {champion}, not {version}: see mlflow-lifecycle explain"
        )
    served = {uri: _predicted(uri) for uri in (f"models:/{name}/Production", f"models:/{name}@champion")}
    for uri, (predictions, _) in served.items():
        if predictions != expected:
            raise PipelineError(f"{uri} does not predict as version {version} does: it is another model")
    measured = _roc_auc(*served[f"models:/{name}@champion"])
    if not measured >= arguments.minimum:
        raise PipelineError(
            f"test_roc_auc of the live model is {measured:.4f}, which is below {arguments.minimum}"
        )
    _say(f"Production and champion predict as version {version} does; test_roc_auc {measured:.4f}")
    return 0


def rollback(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """If the version is still live, make the one before it live again; metadata only."""
    return _lifecycle("rollback", state["model"], f"--from={state['version']}", *_policy(arguments))


def explain(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    """The whole account of the version as an HTML report."""
    return _lifecycle("explain", state["model"], state["version"], f"--html={arguments.report}")


STEPS: tuple[PipelineStep, ...] = (
    PipelineStep("train", "contributor", train),
    PipelineStep("evaluate", "contributor", evaluate),
    PipelineStep("register", "contributor", register),
    PipelineStep("promote-staging", "approver", promote_staging),
    PipelineStep("promote-production", "approver", promote_production),
    PipelineStep("smoke", "approver", smoke),
    PipelineStep("rollback", "approver", rollback, only_after_failure=True),
    PipelineStep("explain", "approver", explain),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; returns its exit code."""
    arguments = _parser().parse_args(argv)
    for name in ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    step: PipelineStep = arguments.step
    try:
        state = {} if step.run is train else _read(arguments.state, os.environ)
        code = step.run(arguments, state)
        if code == 0:
            _write(arguments.state, state, os.environ)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except Exception as error:
        _say(f"{step.name} failed: {error}")
        return getattr(error, "exit_code", 1)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.credit_risk.pipeline",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", metavar="STEP", type=_step, help=", ".join(step.name for step in STEPS))
    parser.add_argument("--state", metavar="FILE", type=Path, default=Path("pipeline.json"))
    parser.add_argument("--model", default=os.environ.get("PIPELINE_MODEL", MODEL), help="registered name")
    parser.add_argument("--policy", metavar="FILE", type=Path, default=POLICY)
    parser.add_argument("--strategy", default=os.environ.get("PIPELINE_STRATEGY") or "random-forest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weak", action="store_true", help="train on few rows, for a model to refuse")
    parser.add_argument(
        "--minimum",
        type=float,
        default=float(os.environ.get("PIPELINE_MINIMUM") or 0.70),
        help="smoke: the least test_roc_auc of the live model",
    )
    parser.add_argument("--report", metavar="FILE", default="model-report.html", help="explain: where to")
    return parser


def _step(text: str) -> PipelineStep:
    for step in STEPS:
        if step.name == text:
            return step
    raise argparse.ArgumentTypeError(
        f'there is no step "{text}"; the steps: {", ".join(s.name for s in STEPS)}'
    )


def _read(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    if not file.is_file() and environ.get("PIPELINE_CANDIDATE"):
        return dict(json.loads(environ["PIPELINE_CANDIDATE"]))
    try:
        return dict(json.loads(file.read_text()))
    except FileNotFoundError:
        raise PipelineError(f"{file} is not there: run the step train first") from None


def _write(file: Path, state: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    file.write_text(json.dumps(state, indent=2) + "\n")
    if environ.get("GITHUB_OUTPUT"):
        with Path(environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as output:
            output.write(f"candidate={json.dumps(state)}\n")


def _policy(arguments: argparse.Namespace) -> tuple[str, str]:
    return "--policy", str(arguments.policy)


def _lifecycle(*arguments: str) -> int:
    from model_lifecycle.cli import main as lifecycle

    return lifecycle(arguments)


def _roc_auc(predictions: list[float], truth: list[int]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, predictions))


def _predicted(uri: str) -> tuple[list[float], list[int]]:
    import mlflow.pyfunc

    from examples.credit_risk import data as credit

    rows = credit.load().judging
    probabilities = mlflow.pyfunc.load_model(uri).predict(credit.features(rows))
    return [float(each[1]) for each in probabilities], [int(each) for each in rows[credit.TARGET]]


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
