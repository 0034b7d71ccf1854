"""The emulator's process: AWS's API, the ECS tasks that it starts, and the front doors of its RDS instances.

Runs in the emulator's own virtual environment: `python -m local.emulator SETTINGS.json`. The root
credentials come as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Prints `ready` when it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import ssl
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from local.emulator.address_book import AddressBook
from local.emulator.containers import Image, Runtime
from local.emulator.databases import Databases
from local.emulator.front_door import FrontDoor, ThreadedFrontDoor
from local.emulator.hosted_sign_in import HostedSignIn
from local.emulator.measurements import Measurements
from local.emulator.metrics import PublishedMetrics
from local.emulator.settings import EmulatorSettings
from local.emulator.web_identity import AccountIssuer, Federation
from local.parts.backups import ARCHIVING
from local.parts.certificates import ServerCertificate
from local.parts.postgres import Postgres
from local.parts.processes import Ledger
from local.parts.rds import SOCKET_RULES

LOOPBACK = "127.0.0.1"
# The issuer's and the sign-in's host in tokens: the name on their certificate.
HOST = "localhost"


def main(arguments: list[str]) -> NoReturn:
    """Serve until SIGTERM, then stop the tasks in order and end the process."""
    settings = EmulatorSettings.read(Path(arguments[0]))
    configure(settings)
    runtime = make_runtime(settings)
    federation = Federation(issuers(settings))
    databases = make_databases(settings)
    install(settings, runtime, federation, databases)
    metrics = PublishedMetrics()
    metrics.install()
    measurements = Measurements(metrics, databases, runtime, balancer=Path(settings.balancer_metrics))
    databases.door = door = open_door(settings, settings.database_port, databases.socket)
    code = 1
    try:
        with contextlib.ExitStack() as serving:
            for issuer in federation.issuers.values():
                serving.enter_context(issuer.serving())
            measurements.start(settings.account_id, settings.region)
            asyncio.new_event_loop().run_until_complete(serve(settings, runtime, metrics))
        code = 0
    except Exception:
        traceback.print_exc()
    measurements.stop()
    door.close()
    databases.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # A deployment that waits for its custom resource would keep this process alive for minutes.
    os._exit(code)


def configure(settings: EmulatorSettings) -> None:
    """Set what MiniStack reads from its environment when it is imported."""
    state = Path(settings.state)
    temporary = state / "tmp"
    temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.update(
        AUTH="true",
        BIND_HOST=LOOPBACK,
        MINISTACK_HOST=LOOPBACK,
        GATEWAY_PORT=str(settings.port),
        MINISTACK_REGION=settings.region,
        MINISTACK_ACCOUNT_ID=settings.account_id,
        STATE_DIR=str(state / "state"),
        S3_DATA_DIR=str(state / "s3"),
        TMPDIR=str(temporary),
        # Neither is used here, and each would take a fixed port.
        SFTP_ENABLED="0",
        IOT_MTLS_ENABLED="0",
        LAMBDA_EXECUTOR="local",
        # Never use a Docker engine of this machine.
        DOCKER_HOST=f"unix://{state}/no-docker.sock",
        LOG_LEVEL="WARNING",
    )
    # MiniStack would look for its own container by this name.
    os.environ.pop("HOSTNAME", None)


def make_runtime(settings: EmulatorSettings) -> Runtime:
    """The container runtime for ECS, with the one image this machine has."""
    from local.emulator.adapters import task_settings
    from local.parts.ports import free_port

    return Runtime(
        images={
            settings.image: Image(settings.image_entrypoint, settings.image_environment),
        },
        directory=Path(settings.state) / "tasks",
        logs=Path(settings.logs),
        ledger=Ledger(Path(settings.ledger)),
        gateway=LOOPBACK,
        prepare=task_settings(
            address_book=AddressBook(Path(settings.address_book)),
            environment=dict(settings.task_environment),
            free_port=free_port,
            volumes=Path(settings.state) / "volumes",
        ),
    )


def issuers(settings: EmulatorSettings) -> dict[str, AccountIssuer]:
    """The issuer of each account's web identity tokens; it listens while it is `serving`."""
    certificate = ServerCertificate(Path(settings.identity_certificate), Path(settings.identity_key))
    return {
        account_id: AccountIssuer(certificate, host=HOST, port=port)
        for account_id, port in settings.issuer_ports.items()
    }


def sign_in_url(settings: EmulatorSettings) -> str:
    """Where user pools and their page are."""
    return f"https://{HOST}:{settings.sign_in_port}"


def install(
    settings: EmulatorSettings, runtime: Runtime, federation: Federation, databases: Databases
) -> None:
    """Install our parts in MiniStack."""
    from local.emulator import (
        adapters,
        copy_adapters,
        identity_adapters,
        monitoring_adapters,
        operation_adapters,
        rds_adapters,
        scaling_adapters,
        stack_adapters,
        storage_adapters,
    )
    from local.emulator.task_credentials import TaskCredentials, issue_session

    adapters.refuse_anonymous_s3()
    adapters.authorize_ecs_calls_as_documented()
    adapters.authorize_log_streams_as_documented()
    adapters.run_functions_with(Path(settings.function_python))
    adapters.give_tasks_their_roles(
        TaskCredentials(issue_session), gateway=f"http://{LOOPBACK}:{settings.port}"
    )
    rds_adapters.complete_db_instances(databases, host=settings.database_host)
    rds_adapters.stop_and_start_real_instances(databases)
    rds_adapters.take_real_snapshots(databases)
    rds_adapters.copy_snapshots(databases)
    rds_adapters.restore_real_instances(databases, host=settings.database_host)
    rds_adapters.manage_passwords(databases)
    rds_adapters.authorize_snapshots()
    adapters.configure_buckets_fully()
    adapters.define_tasks_fully()
    adapters.announce_stopped_tasks()
    adapters.count_loopback_as_tls()
    identity_adapters.vend_web_identity_tokens(federation)
    identity_adapters.federate_outbound(federation)
    identity_adapters.authorize_oidc_providers_by_name()
    stack_adapters.keep_listener_attributes()
    identity_adapters.keep_identifying_actions()
    storage_adapters.know_every_encryption_header()
    storage_adapters.judge_other_accounts_by_their_roles()
    storage_adapters.authorize_the_key_through_s3()
    storage_adapters.authorize_the_first_of_a_batch_too()
    storage_adapters.encrypt_with_the_account_key_by_default()
    storage_adapters.copy_once_if_asked_to()
    storage_adapters.compute_the_checksums_that_a_copy_asks_for()
    copy_adapters.copy_and_upload_with_their_own_lock()
    copy_adapters.copy_from_another_account()
    copy_adapters.copy_parts_into_their_own_upload()
    copy_adapters.authorize_what_a_write_asks_for_beside_the_bytes()
    copy_adapters.hide_what_is_missing_from_who_may_not_list()
    stack_adapters.create_single_security_group_rules()
    stack_adapters.publish_every_amazon_linux()
    stack_adapters.refuse_role_names_that_are_taken()
    stack_adapters.refuse_to_delete_what_is_protected()
    stack_adapters.remember_what_a_rollback_left()
    scaling_adapters.register_scalable_targets()
    monitoring_adapters.make_types_of_operations()
    monitoring_adapters.keep_metric_math()
    monitoring_adapters.name_secrets_by_their_arn()
    monitoring_adapters.name_target_groups_fully()
    stack_adapters.record_other_types()
    operation_adapters.keep_identifying_actions_of_requests()
    operation_adapters.share_snapshots()
    operation_adapters.change_the_key_of_a_log()
    operation_adapters.choose_a_policy_s_version()
    operation_adapters.offer_every_database_class()
    operation_adapters.keep_certificates(
        settings.certificates, account_id=settings.account_id, region=settings.region
    )
    storage_adapters.let_pages_of_this_machine_read(settings.public_urls)
    identity_adapters.give_user_pools_a_host(sign_in_url(settings), public_urls=settings.public_urls)
    from ministack.services import ecs

    ecs._docker = runtime


def make_databases(settings: EmulatorSettings) -> Databases:
    """PostgreSQL behind each DB instance; the platform started the first."""
    return Databases(
        Postgres(
            Path(settings.database_directory), 5432, host="", socket_hba=SOCKET_RULES, settings=ARCHIVING
        ),
        open_door=functools.partial(open_door, settings),
        ledger=Ledger(Path(settings.ledger)),
    )


def open_door(settings: EmulatorSettings, port: int, socket: Path) -> ThreadedFrontDoor:
    """Listen at a DB instance's endpoint; port 0 is any free one."""
    from ministack.core.responses import get_account_id, get_region

    from local.emulator.database_login import judge

    # The request's that made the instance; without one, the emulator's own.
    account_id, region = get_account_id(), get_region()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.load_cert_chain(settings.database_certificate, settings.database_key)
    door = FrontDoor(
        host=LOOPBACK,
        port=port,
        tls=tls,
        socket=socket,
        judge=lambda user, token: judge(
            user,
            token,
            host=settings.database_host,
            port=door.port,
            account_id=account_id,
            region=region,
        ),
        log=lambda line: print(f"database: {line}", file=sys.stderr, flush=True),
    )
    return ThreadedFrontDoor(door)


async def serve(settings: EmulatorSettings, runtime: Runtime, metrics: PublishedMetrics) -> None:
    """Serve the AWS API until SIGTERM or SIGINT; tasks stop first, since they need the API to stop."""
    from hypercorn.asyncio import serve as hypercorn  # type: ignore[import-not-found]
    from hypercorn.config import Config  # type: ignore[import-not-found]
    from ministack.app import app

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def stopped() -> None:
        await stop.wait()
        await asyncio.to_thread(runtime.close)

    config = Config()
    config.bind = [f"{LOOPBACK}:{settings.port}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    page = Config()
    page.bind = [f"{LOOPBACK}:{settings.sign_in_port}"]
    page.certfile, page.keyfile = settings.identity_certificate, settings.identity_key
    page.alpn_protocols = ["http/1.1"]
    page.graceful_timeout = 1
    hosted = HostedSignIn(url=sign_in_url(settings), origins=list(settings.public_urls.values()))
    announcement = asyncio.create_task(_announce(settings))
    await asyncio.gather(
        hypercorn(metrics.of_buckets(app), config, shutdown_trigger=stopped),
        hypercorn(hosted, page, shutdown_trigger=stop.wait),
    )
    announcement.cancel()


async def _announce(settings: EmulatorSettings) -> None:
    """Tell the platform, through the state directory, that the API answers and what it can create."""
    for port in (settings.port, settings.sign_in_port):
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break
    file = Path(settings.state) / "ready.json"
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps({"pid": os.getpid(), "types": resource_types()}))
    temporary.replace(file)


def resource_types() -> list[str]:
    """The CloudFormation types that MiniStack can create."""
    from ministack.services.cloudformation import provisioners

    handlers: dict[str, Any] = provisioners._RESOURCE_HANDLERS
    return sorted(handlers)


if __name__ == "__main__":
    main(sys.argv[1:])
