"""Has CodeBuild build the server's image on behalf of CloudFormation, and reports why if that failed.

Needs nothing but AWS Lambda's Python runtime; the template carries this file as it is.
"""

import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

POLL_SECONDS = 5
# A permission granted by the same deployment takes seconds to be known everywhere. CodeBuild calls a role
# that it may not assume yet an invalid input.
NOT_YET = ("AccessDeniedException", "InvalidInputException")
PERMISSION_ATTEMPTS = 12
# Kept back to stop the build, read its log and answer before Lambda ends this invocation.
RESERVE_SECONDS = 60
LOG_LINES = 20
# CloudFormation refuses answers above 4096 bytes.
LONGEST_LOG = 1500

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class BuildFailedError(Exception):
    """There is no image; the text is for the events of the stack."""


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Answer one request of CloudFormation; never leave it waiting."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
    try:
        answer(event, "SUCCESS", "", act(event, client=boto3.client, deadline=deadline))
    except Exception as error:
        logger.exception("there is no image")
        answer(event, "FAILED", str(error) or repr(error), {})


def act(event: Mapping[str, Any], *, client: Callable[[str], Any], deadline: float) -> Mapping[str, str]:
    """Return the digest of the image that the request names, which is built unless it is there."""
    if event["RequestType"] == "Delete":
        return {}
    properties, ecr = event["ResourceProperties"], client("ecr")
    digest = find(properties, ecr=ecr)
    if digest is None:
        codebuild = client("codebuild")
        build_id = start(properties["Project"], token=event["RequestId"], codebuild=codebuild)
        logger.info("started %s", build_id)
        build = wait(build_id, codebuild=codebuild, deadline=deadline)
        if build["buildStatus"] != "SUCCEEDED":
            raise BuildFailedError(failure(build, logs=client("logs")))
        digest = find(properties, ecr=ecr)
    if digest is None:
        raise BuildFailedError(f"the build pushed no image {properties['Repository']}:{properties['Tag']}")
    return {"Digest": digest}


def find(properties: Mapping[str, Any], *, ecr: Any) -> str | None:
    """Return the digest of the image with this tag, which is immutable, or None."""
    try:
        found = ecr.describe_images(
            repositoryName=properties["Repository"], imageIds=[{"imageTag": properties["Tag"]}]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ImageNotFoundException":
            raise
        return None
    return str(found["imageDetails"][0]["imageDigest"])


def start(project: str, *, token: str, codebuild: Any) -> str:
    """Start the build and return its id. The same token never starts a second one."""
    for attempt in range(1, PERMISSION_ATTEMPTS + 1):
        try:
            return str(codebuild.start_build(projectName=project, idempotencyToken=token)["build"]["id"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in NOT_YET or attempt == PERMISSION_ATTEMPTS:
                raise BuildFailedError(f"CodeBuild could not start the build: {error}. {REMEDY}") from None
        time.sleep(POLL_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def wait(build_id: str, *, codebuild: Any, deadline: float) -> Mapping[str, Any]:
    """Return the build once it has ended; past the deadline, stop it."""
    stopping = False
    while True:
        (build,) = codebuild.batch_get_builds(ids=[build_id])["builds"]
        if build["buildStatus"] != "IN_PROGRESS":
            return dict(build)
        if not stopping and time.monotonic() >= deadline:
            codebuild.stop_build(id=build_id)
            stopping = True
        time.sleep(POLL_SECONDS)


REMEDY = (
    "Correct the cause and deploy again; or give an image in server.image_uri, "
    'or set server.build = "local" to build it with Docker on your machine.'
)


def failure(build: Mapping[str, Any], *, logs: Any) -> str:
    """Return what is known of a build that did not succeed: status, errors and the end of its log."""
    said = [
        context["message"]
        for phase in build.get("phases", [])
        for context in phase.get("contexts", [])
        if context.get("message")
    ]
    log = build.get("logs", {})
    group, stream = log.get("groupName"), log.get("streamName")
    lines = last_lines(group, stream, logs=logs) if group and stream else "It wrote no log."
    status = "took too long" if build["buildStatus"] == "STOPPED" else f"ended as {build['buildStatus']}"
    return (
        f"the build of the image {status}: {'; '.join(said)[:500]}\n{lines}\n"
        f"Whole log: {group} {stream}. {REMEDY}"
    )


def last_lines(group: str, stream: str, *, logs: Any) -> str:
    """Return the end of a log, or why there is none."""
    try:
        events = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False
        )["events"]
    except logs.exceptions.ResourceNotFoundException:
        return "It wrote no log."
    return "".join(each["message"] for each in events)[-LONGEST_LOG:].strip()


def answer(event: Mapping[str, Any], status: str, reason: str, data: Mapping[str, str]) -> None:
    """Tell CloudFormation the outcome, at the URL it gave us."""
    outcome = {
        "Status": status,
        "Reason": reason[:2500],
        # One identity for all times: at a new one, CloudFormation would delete the former.
        "PhysicalResourceId": "image",
        "Data": dict(data),
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        event["ResponseURL"], data=json.dumps(outcome).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
