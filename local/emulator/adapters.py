"""Corrects where MiniStack differs from AWS in a way that matters here: one function each, with the reason.

They replace functions of modules in this process only; nothing installed is changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from local.emulator import bucket_documents
from local.emulator.address_book import AddressBook
from local.emulator.containers import HealthCheck, Settings
from local.emulator.task_credentials import TaskCredentials

_NOTICE_ATTEMPTS = 50
_NOTICE_PAUSE_SECONDS = 0.2


def refuse_anonymous_s3() -> None:
    """Unsigned S3 requests count as the account's root in MiniStack; our buckets block public access."""
    from ministack.core import iam_evaluator

    enforce = iam_evaluator.enforce

    def strict(access_key_id: str, iam_action: str, service: str, *args: Any, **kwargs: Any) -> Any:
        if service == "s3" and iam_evaluator._anonymous.get():
            return iam_evaluator.AuthError("AccessDenied", "Access Denied")
        return enforce(access_key_id, iam_action, service, *args, **kwargs)

    iam_evaluator.enforce = strict


def count_loopback_as_tls() -> None:
    """The API is plain HTTP on loopback, and the bucket policies rightly refuse requests without TLS.

    Requests that never leave this machine count as encrypted, so that the policies stay as deployed.
    """
    from ministack import app
    from ministack.core import iam_evaluator

    pin = iam_evaluator.pin_request_origin

    def pinned(source_ip: str, secure_transport: bool) -> None:  # noqa: ARG001
        pin(source_ip, True)

    iam_evaluator.pin_request_origin = pinned
    app.pin_request_origin = pinned


def authorize_ecs_calls_as_documented() -> None:
    """MiniStack authorizes every ECS call on its cluster, and does not know the condition key `ecs:cluster`.

    In AWS, the resource of RunTask is the task definition, and that of DescribeTasks and StopTask the task.
    """
    from ministack.core import iam_actions
    from ministack.core.responses import get_account_id, get_region

    context_of, resource_of = iam_actions.request_tag_context, iam_actions.extract_resource_arn

    def arn_of(kind: str, name: str) -> str:
        return (
            name
            if name.startswith("arn:")
            else f"arn:aws:ecs:{get_region()}:{get_account_id()}:{kind}/{name}"
        )

    def with_cluster(service: str, iam_action: str, body: bytes, params: Any) -> dict[str, Any]:
        context: dict[str, Any] = dict(context_of(service, iam_action, body, params))
        if service == "ecs":
            context["ecs:cluster"] = arn_of("cluster", str(_json(body).get("cluster") or "default"))
        return context

    def documented(
        service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any, **more: Any
    ) -> Any:
        request = _json(body) if service == "ecs" else {}
        cluster = str(request.get("cluster") or "default").rsplit("/", 1)[-1]
        if request.get("taskDefinition") and not request.get("service"):
            return arn_of("task-definition", str(request["taskDefinition"]))
        for task in [request.get("task"), *(request.get("tasks") or [])]:
            if task:
                return arn_of("task", task if task.startswith("arn:") else f"{cluster}/{task}")
        return resource_of(service, method, path, headers, body, *rest, **more)

    iam_actions.request_tag_context = with_cluster
    iam_actions.extract_resource_arn = documented


def authorize_log_streams_as_documented() -> None:
    """MiniStack authorizes the reading of a log stream on its group; in AWS, its resource is the stream.

    And a policy names a group as its attribute `Arn` does, with `:*` at the end (its guide, "IAM ARNs").
    """
    from ministack.core import iam_actions
    from ministack.core.responses import get_account_id, get_region

    resource_of = iam_actions.extract_resource_arn

    def documented(
        service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any, **more: Any
    ) -> Any:
        request = _json(body) if service == "logs" else {}
        if request.get("logGroupName"):
            stream = request.get("logStreamName")
            return f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{request['logGroupName']}:" + (
                f"log-stream:{stream}" if stream else "*"
            )
        return resource_of(service, method, path, headers, body, *rest, **more)

    iam_actions.extract_resource_arn = documented


def _json(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def run_functions_with(python: Path) -> None:
    """Lambda's Python has boto3; MiniStack runs functions with its own interpreter, which does not."""
    from ministack.core import lambda_runtime

    detect = lambda_runtime._detect_runtime_binary

    def detected(runtime: str) -> tuple[str, str]:
        binary, script = detect(runtime)
        return (str(python), script) if runtime.startswith("python") else (binary, script)

    lambda_runtime._detect_runtime_binary = detected


def give_tasks_their_roles(credentials: TaskCredentials, *, gateway: str) -> None:
    """MiniStack's credentials endpoint invents a role; ours serves the one in the task definition."""
    from ministack.services import ecs, imds

    register, handle = ecs._register_metadata, imds.handle_request

    def registered(
        task_arn: str, cluster_arn: str, td: Any, cdef: Any, launch_type: str, env: dict[str, str], *rest: Any
    ) -> Any:
        token = register(task_arn, cluster_arn, td, cdef, launch_type, env, *rest)
        env.pop("AWS_CONTAINER_CREDENTIALS_FULL_URI", None)
        env.pop("AWS_CONTAINER_AUTHORIZATION_TOKEN", None)
        if td.get("taskRoleArn"):
            path, secret = credentials.admit(
                role_arn=td["taskRoleArn"], session_name=task_arn.rsplit("/", 1)[-1]
            )
            env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{gateway}{path}"
            env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = secret
        return token

    async def handled(method: str, path: str, headers: Any, body: Any, query_params: Any) -> Any:
        if path.startswith("/v2/credentials/") and method.upper() == "GET":
            status, document = credentials.answer(path, headers)
            return status, {"Content-Type": "application/json"}, json.dumps(document).encode()
        return await handle(method, path, headers, body, query_params)

    ecs._register_metadata = registered
    imds.handle_request = handled


def configure_buckets_fully() -> None:
    """A bucket from CloudFormation lacks most of its configuration in MiniStack."""
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    handler = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    create, update = handler["create"], handler["update"]

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        return complete(create(logical_id, props, stack_name), props)

    def updated(physical_id: str, old: Any, new: dict[str, Any], *rest: Any) -> tuple[str, dict[str, Any]]:
        return complete(update(physical_id, old, new, *rest), new)

    def complete(made: Any, props: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name, attributes = made
        for render, put in (
            (bucket_documents.encryption, s3._put_bucket_encryption),
            (bucket_documents.lifecycle, s3._put_bucket_lifecycle),
            (bucket_documents.logging, s3._put_bucket_logging),
            (bucket_documents.object_lock, s3._put_object_lock_configuration),
            (bucket_documents.replication, s3._put_bucket_replication),
        ):
            document = render(props)
            if document is not None and (answer := put(name, document))[0] >= 400:
                raise ValueError(f"bucket {name}: {answer[2]!r}")
        return name, attributes

    handler["create"], handler["update"] = created, updated


def define_tasks_fully() -> None:
    """A task definition from CloudFormation loses nested settings in MiniStack, such as its health check."""
    from ministack.services import ecs
    from ministack.services.cloudformation import provisioners

    normalize = provisioners._normalize_container_defs
    handler = provisioners._RESOURCE_HANDLERS["AWS::ECS::TaskDefinition"]
    create, update = handler["create"], handler["update"]

    def normalized(definitions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        containers: list[dict[str, Any]] = normalize(definitions)
        for container in containers:
            for key in ("healthCheck", "linuxParameters", "secrets", "ulimits", "dependsOn"):
                if key in container:
                    container[key] = provisioners._pascal_to_camel(container[key])
        return containers

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        return complete(create(logical_id, props, stack_name), props)

    def updated(physical_id: str, old: Any, new: dict[str, Any], *rest: Any) -> tuple[str, dict[str, Any]]:
        return complete(update(physical_id, old, new, *rest), new)

    def complete(made: Any, props: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        arn, attributes = made
        definition = ecs._task_defs[arn.rsplit("/", 1)[-1]]
        definition["volumes"] = provisioners._pascal_to_camel(props.get("Volumes") or [])
        if props.get("RuntimePlatform"):
            definition["runtimePlatform"] = provisioners._pascal_to_camel(props["RuntimePlatform"])
        return arn, attributes

    provisioners._normalize_container_defs = normalized
    handler["create"], handler["update"] = created, updated


def task_settings(
    *,
    address_book: AddressBook,
    environment: dict[str, str],
    free_port: Callable[[], int],
    volumes: Path,
) -> Callable[..., Settings]:
    """What the laptop adds to an ECS container: its task's address, a port, its health check, its volumes."""
    from ministack.core.arn import parse_arn
    from ministack.services import ec2, ecs

    addresses: dict[str, str] = {}

    def prepare(labels: dict[str, str]) -> Settings:
        arn, name = labels["com.amazonaws.ecs.task-arn"], labels["com.amazonaws.ecs.container-name"]
        scope = parse_arn(arn)
        task = ecs._tasks.get_scoped(scope.account_id, scope.region, arn) or {}
        key = task.get("taskDefinitionArn", "").rsplit("/", 1)[-1]
        definition = ecs._task_defs.get_scoped(scope.account_id, scope.region, key) or {}
        container: dict[str, Any] = next(
            (each for each in definition.get("containerDefinitions", []) if each["name"] == name), {}
        )
        subnet = ec2._subnets.get_scoped(scope.account_id, scope.region, task.get("_subnet")) or {}
        ports = [int(each["containerPort"]) for each in container.get("portMappings", [])]
        local_port = free_port()
        # A task's containers share its address; the first one listens.
        listens = arn not in addresses
        if listens:
            addresses[arn] = address_book.take(
                IPv4Network(subnet.get("CidrBlock", "10.0.0.0/24")), ports=ports, local_port=local_port
            )

        def on_exit() -> None:
            if listens:
                address_book.give_back(addresses.pop(arn))
            _notice_end(arn, account_id=scope.account_id, region=scope.region)

        def on_health(status: str) -> None:
            for each in task.get("containers", []):
                if each["name"] == name:
                    each["healthStatus"] = status
            told = {each.get("healthStatus", "UNKNOWN") for each in task.get("containers", [])}
            task["healthStatus"] = next(
                (each for each in ("UNHEALTHY", "UNKNOWN") if each in told), "HEALTHY"
            )
            if status == "UNHEALTHY" and container.get("essential", True):
                _stop_unhealthy(arn, account_id=scope.account_id, region=scope.region)

        return Settings(
            environment={
                **_on_volumes(container, volumes / arn.rsplit("/", 1)[-1]),
                **environment,
                "MLFLOW_AWS_BIND": "127.0.0.1",
                "MLFLOW_AWS_PORT": str(local_port),
            },
            entry_point=tuple(container.get("entryPoint") or ()),
            stop_seconds=float(container.get("stopTimeout") or 30),
            health_check=HealthCheck.of(container.get("healthCheck")),
            address=addresses[arn],
            on_health=on_health,
            on_exit=on_exit,
        )

    return prepare


def _on_volumes(container: dict[str, Any], directory: Path) -> dict[str, str]:
    """The variables that name a place on a volume: processes have no mounts, and find it in a directory."""
    moved = {}
    for mount in container.get("mountPoints", []):
        volume = directory / mount["sourceVolume"]
        for variable in container.get("environment", []):
            if variable["value"].startswith(f"{mount['containerPath']}/"):
                volume.mkdir(mode=0o700, parents=True, exist_ok=True)
                rest = variable["value"].removeprefix(f"{mount['containerPath']}/")
                moved[variable["name"]] = str(volume / rest)
    return moved


def announce_stopped_tasks() -> None:
    """ECS tells EventBridge when a task has stopped; MiniStack's does not."""
    from ministack.services import ecs, eventbridge

    mark = ecs._mark_task_stopped

    def marked(task_arn: str, task: dict[str, Any], *rest: Any, **more: Any) -> bool:
        stopped = bool(mark(task_arn, task, *rest, **more))
        if stopped:
            entry = {
                "Source": "aws.ecs",
                "DetailType": "ECS Task State Change",
                "Resources": [task_arn],
                "Detail": json.dumps(ecs._sanitize(task), default=str),
            }
            eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
        return stopped

    ecs._mark_task_stopped = marked


def _notice_end(task_arn: str, *, account_id: str, region: str) -> None:
    """MiniStack looks whether a task's containers have ended only when it is asked about the task."""
    from ministack.core.responses import request_scope
    from ministack.services import ecs

    with request_scope(account_id, region):
        # A container may end while its task is still on the way to RUNNING.
        for _ in range(_NOTICE_ATTEMPTS):
            task = ecs._tasks.get(task_arn)
            if task is None or task["lastStatus"] == "STOPPED":
                return
            ecs._maybe_mark_stopped(task)
            time.sleep(_NOTICE_PAUSE_SECONDS)


def _stop_unhealthy(task_arn: str, *, account_id: str, region: str) -> None:
    """MiniStack runs no container health checks, so nothing there stops a task that fails its own."""
    from ministack.core.responses import request_scope
    from ministack.services import ecs

    with request_scope(account_id, region):
        task = ecs._tasks.get(task_arn)
        if task is None:
            return
        ecs._mark_task_stopped(
            task_arn, task, "Task failed container health checks", "EssentialContainerExited", exit_code=None
        )
        ecs._cleanup_task_resources(task, ecs._get_docker())
