"""`python -m client_smoke.canary`: the steps that need no data science library, on a schedule, as metrics.

Runs in the server's image, as a task of its own. Its last line is CloudWatch's embedded metric format, from
which CloudWatch Logs makes the metrics
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from client_smoke.artifacts import (
    artifacts_come_back_identical,
    objects_are_versioned_and_encrypted,
    role_reaches_s3,
    server_never_carries_artifacts,
)
from client_smoke.cleanup import delete_objects, may
from client_smoke.cli import interruptible, quiet
from client_smoke.environment import bound_waits, ca_bundle, process_environment, use_bounded_aws_session
from client_smoke.evidence import (
    PRINCIPAL,
    promotion_leaves_history,
    run_records_its_author,
    version_records_its_author,
)
from client_smoke.identity import Caller, forged_token_is_refused, no_token_is_refused, server_knows_you
from client_smoke.models import (
    alias_names_the_champion,
    model_is_registered_as_taught,
    model_is_registered_by_name,
    stage_promotes_and_archives,
    version_predicts_the_same,
)
from client_smoke.roles import must_be_denied
from client_smoke.runner import run
from client_smoke.sealing import contributor_is_refused_a_frozen_run, version_is_sealed
from client_smoke.server import server_is_healthy
from client_smoke.sign_in import people_are_shown_the_sign_in_page
from client_smoke.smoke import Smoke, Step
from client_smoke.steps import STEPS
from client_smoke.target import TrackingTarget
from client_smoke.tracking import (
    Experiment,
    metric_history_is_in_order,
    run_is_logged,
    search_finds_the_run,
)
from client_smoke.transport import certificate_is_valid, only_tls_1_3
from client_smoke.verdict import Result, Status, StepFailed

NAMESPACE = "MLflowOnAws"
# Of its experiment, and what the names of its models begin with: the server lets it change no others.
NAME = "smoke-canary"
_NAME_OF_A_RUN = re.compile(f"{NAME}-[0-9a-f]{{12}}")
LARGEST_RUN_SECONDS = 600
_ANSWER_SECONDS = 20.0
# A run that was killed leaves what it made to the next one after this time.
_LEFT_BEHIND_MS = 3600 * 1000
_BROKEN = frozenset((Status.FAILED, Status.COULD_NOT_RUN, Status.INTERRUPTED))


@dataclass
class CanaryRun(Smoke):
    """A run in the canary's own experiment, which stays: only an approver could remove it."""

    @property
    def experiment_name(self) -> str:
        """The experiment of all its runs."""
        return NAME

    @property
    def model_name(self) -> str:
        """The model of this run, and the name of its MLflow runs."""
        return f"{NAME}-{self.identifier}"


def token_is_issued(smoke: Smoke) -> str:
    """AWS STS gives this task's role a token for the server."""
    import boto3

    use_bounded_aws_session(seconds=smoke.timeout)
    issued = boto3.client("sts").get_web_identity_token(
        Audience=[os.environ["MLFLOW_AWS_TOKEN_AUDIENCE"]], SigningAlgorithm="RS256", DurationSeconds=900
    )
    os.environ["MLFLOW_TRACKING_TOKEN"] = issued["WebIdentityToken"]
    smoke.versions["mlflow"] = version("mlflow")
    return "RS256, for 15 minutes"


def models_of_others_are_out_of_reach(smoke: Smoke) -> str:
    """Whatever this run may promote, a model of somebody else is not among it."""
    body = {"name": "model-of-somebody-else", "version": "1", "stage": "Production"}
    path = "/api/2.0/mlflow/model-versions/transition-stage"
    must_be_denied(smoke, smoke.own_token(), path, body, who="the canary")
    return "refused with 403"


def experiment_is_there(smoke: Smoke) -> str:
    """The experiment of all runs, made by the first of them where this task's role may write."""
    location = os.environ["MLFLOW_AWS_CANARY_ARTIFACTS"]
    found = smoke.mlflow.get_experiment_by_name(smoke.experiment_name)
    if found is None:
        smoke.mlflow.create_experiment(smoke.experiment_name, artifact_location=location)
        found = smoke.mlflow.get_experiment_by_name(smoke.experiment_name)
    if found.artifact_location != location or found.lifecycle_stage != "active":
        raise StepFailed(
            f"experiment {smoke.experiment_name} is {found.lifecycle_stage}, at {found.artifact_location}",
            next_action="restore it, or rename what somebody else has made under this name",
        )
    smoke.made_something = True
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    smoke.remember(Experiment(id=found.experiment_id, bucket=bucket, prefix=prefix))
    return location


def nothing_of_it_is_left(smoke: Smoke) -> str:
    """Remove what this run made, what a run of an hour ago or more has left, and nothing of anybody else.

    Runs and versions are known by the principal that the server recorded; a model without a version, by a
    name of a run's form. `make gc` deletes runs for good; sealed copies stay.
    """
    client, before = smoke.mlflow, int(time.time() * 1000) - _LEFT_BEHIND_MS
    experiment, principal = smoke.recall(Experiment).id, smoke.recall(Caller).principal
    models = [
        model.name
        for model in client.search_registered_models(f"name LIKE '{NAME}-%'")
        if _NAME_OF_A_RUN.fullmatch(model.name)
        and (model.name == smoke.model_name or model.creation_timestamp < before)
        and all(
            each.tags.get(PRINCIPAL) == principal
            for each in client.search_model_versions(f"name = '{model.name}'")
        )
    ]
    for name in models:
        if not may(smoke, lambda name=name: client.delete_registered_model(name)):  # type: ignore[misc]
            raise StepFailed(f"{name} may not be deleted", next_action="look at the server's route table")
    mine = f"tags.`{PRINCIPAL}` = '{principal}'"
    runs = {
        found.info.run_id: found.info.artifact_uri
        for condition in (f"attributes.run_name = '{smoke.model_name}'", f"attributes.start_time < {before}")
        for found in client.search_runs([experiment], filter_string=f"{mine} and {condition}")
    }
    logged = [model for model in client.search_logged_models([experiment]) if model.source_run_id in runs]
    for model in logged:
        client.delete_logged_model(model.model_id)
    for run_id in runs:
        client.delete_run(run_id)
    for place in (*runs.values(), *(model.artifact_location for model in logged)):
        delete_objects(smoke, place)
    return f"{len(models)} models, {len(runs)} runs and {len(logged)} logged models removed"


_KNOWN = {step.run: step for step in STEPS}
CLEANUP = Step(nothing_of_it_is_left, "everything that the canary made is removed")


def _known(function: Callable[[Smoke], str], *needs: Callable[[Smoke], str]) -> Step:
    step = _KNOWN[function]
    return replace(step, needs=needs) if needs else step


_ORDER: tuple[tuple[str, Step], ...] = (
    ("Connection", _known(certificate_is_valid)),
    ("Connection", _known(only_tls_1_3)),
    ("Identity", Step(token_is_issued, "AWS gives the canary a token", needs=(certificate_is_valid,))),
    ("Identity", _known(server_knows_you, token_is_issued)),
    ("Identity", _known(no_token_is_refused, token_is_issued)),
    ("Identity", _known(forged_token_is_refused, token_is_issued)),
    (
        "Identity",
        Step(models_of_others_are_out_of_reach, "others' models are out of reach", needs=(server_knows_you,)),
    ),
    (
        "Identity",
        Step(
            people_are_shown_the_sign_in_page,
            "people are shown the sign-in page",
            needs=(certificate_is_valid,),
        ),
    ),
    ("Tracking", _known(server_is_healthy, server_knows_you)),
    ("Tracking", Step(experiment_is_there, "the canary's experiment is there", needs=(server_is_healthy,))),
    ("Artifacts", _known(role_reaches_s3, experiment_is_there)),
    ("Tracking", _known(run_is_logged)),
    ("Tracking", _known(run_records_its_author)),
    ("Tracking", _known(metric_history_is_in_order)),
    ("Tracking", _known(search_finds_the_run)),
    ("Artifacts", _known(artifacts_come_back_identical)),
    ("Artifacts", _known(objects_are_versioned_and_encrypted)),
    ("Artifacts", _known(server_never_carries_artifacts)),
    ("Registry", _known(model_is_registered_as_taught)),
    ("Registry", _known(model_is_registered_by_name)),
    ("Registry", _known(version_predicts_the_same)),
    ("Registry", _known(version_records_its_author)),
    ("Registry", _known(stage_promotes_and_archives)),
    ("Registry", _known(promotion_leaves_history)),
    ("Registry", _known(alias_names_the_champion)),
    ("Registry", _known(version_is_sealed)),
    ("Registry", _known(contributor_is_refused_a_frozen_run)),
    ("Tracking", CLEANUP),
)
GROUP = {step.name: group for group, step in _ORDER}


def metrics(results: Sequence[Result], *, seconds: float) -> dict[str, float]:
    """Whether nothing is broken, and a 0 for each group in which something is.

    A group has no other value: CloudWatch bills a metric for the hours in which it has one.
    """
    broken = [each for each in results if each.status in _BROKEN]
    groups = dict.fromkeys((f"Canary{GROUP[each.name]}" for each in broken if each.name in GROUP), 0.0)
    return {"CanarySucceeded": float(not broken), "CanarySeconds": round(seconds, 1), **groups}


def line(results: Sequence[Result], *, deployment: str, seconds: float, at: float) -> str:
    """One line of JSON: the metrics, and what is broken in words."""
    values = metrics(results, seconds=seconds)
    definitions = [
        {"Name": name, "Unit": "Seconds" if name == "CanarySeconds" else "None"} for name in values
    ]
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Deployment"]], "Metrics": definitions}
    broken = [
        {"step": each.name, "status": str(each.status), "seen": each.seen, "next": each.next_action}
        for each in results
        if each.status in _BROKEN
    ]
    return json.dumps(
        {
            "_aws": {"Timestamp": int(at * 1000), "CloudWatchMetrics": [directive]},
            "Deployment": deployment,
            **values,
            "message": "canary",
            "passed": sum(each.status is Status.PASSED for each in results),
            "broken": broken,
        }
    )


def main(environ: Mapping[str, str]) -> int:
    """Run once, print the line, and return 1 if something is broken.

    The registry's steps leave sealed copies, which nobody deletes: they run in the first run of each hour.
    """
    started, clock = time.time(), time.perf_counter()
    registry = time.gmtime(started).tm_min < int(environ["MLFLOW_AWS_CANARY_MINUTES"])
    bound_waits(process_environment(), seconds=_ANSWER_SECONDS)
    with (
        tempfile.TemporaryDirectory(prefix="canary-") as scratch,
        interruptible(signal.SIGALRM) as interrupted,
    ):
        signal.alarm(LARGEST_RUN_SECONDS)
        canary = CanaryRun(
            target=TrackingTarget.parse(environ["MLFLOW_AWS_PUBLIC_URL"]),
            ca_file=ca_bundle(environ),
            timeout=_ANSWER_SECONDS,
            scratch=Path(scratch),
        )
        with quiet(debug=False):
            results = run(
                canary,
                steps=[
                    step
                    for group, step in _ORDER
                    if step is not CLEANUP and (registry or group != "Registry")
                ],
                cleanup=CLEANUP,
                keep=False,
                display=_Nobody(),
                interrupted=interrupted,
            )
        signal.alarm(0)
    seconds = time.perf_counter() - clock
    print(line(results, deployment=environ["MLFLOW_AWS_DEPLOYMENT"], seconds=seconds, at=started), flush=True)
    return int(any(each.status in _BROKEN for each in results))


class _Nobody:
    """Watches the run."""

    def begin(self, step: Step) -> None:
        """A step starts."""

    def end(self, result: Result) -> None:
        """A step ended."""


if __name__ == "__main__":
    sys.exit(main(os.environ))
