"""The command line: `python -m client_smoke --tracking-uri URL`."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from client_smoke.target import TrackingTarget
from client_smoke.tokens import Tokens, read_token_file
from client_smoke.verdict import CannotRun, Result, Status, exit_code

if TYPE_CHECKING:
    from boto3.session import Session

_EPILOG = """\
exit codes:
  0  every step passed, except those that the output names as skipped
  1  a step failed; the output names it, what was seen, and what to do next
  2  the run could not be completed (address, credentials, network, interruption), so nothing is proven

environment, as for any MLflow client:
  MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_AUTH=aws   who you are (docs/smoke.md, "Identity")
  MLFLOW_TRACKING_SERVER_CERT_PATH   PEM file of a private CA
  AWS_REGION, AWS_PROFILE, AWS_…     temporary role credentials (long-lived keys are refused)
  AWS_ENDPOINT_URL, MLFLOW_S3_ENDPOINT_URL   only for something other than AWS, such as `make up`
"""


def parser() -> argparse.ArgumentParser:
    """The arguments; importing nothing heavier than argparse."""
    arguments = argparse.ArgumentParser(
        prog="python -m client_smoke",
        description="Prove a deployed MLflow on AWS: log, register, promote, load and remove a real model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument(
        "--tracking-uri",
        metavar="URL",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="the stack's TrackingUrl output (default: MLFLOW_TRACKING_URI)",
    )
    arguments.add_argument(
        "--viewer-token-file",
        metavar="FILE",
        type=Path,
        help="a viewer's bearer token, in a file of mode 0600 or a pipe: tries that a viewer cannot write",
    )
    arguments.add_argument(
        "--approver-token-file",
        metavar="FILE",
        type=Path,
        help="an approver's bearer token, likewise: promotes when your own role may not",
    )
    arguments.add_argument(
        "--approver-profile",
        metavar="NAME",
        help="the AWS profile of an approver: tries that an approver cannot change sealed files either",
    )
    arguments.add_argument(
        "--require-all",
        action="store_true",
        help="exit with 2 if a step was skipped, for example because no token was given",
    )
    arguments.add_argument("--keep", action="store_true", help="leave the experiment and the model in place")
    arguments.add_argument("--json", metavar="FILE", type=Path, help="write a JSON report")
    arguments.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit XML report")
    arguments.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=30.0,
        help="longest wait for one answer (default: 30)",
    )
    arguments.add_argument(
        "--debug", action="store_true", help="show tracebacks and the libraries' own messages"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the smoke client; returns the exit code."""
    arguments = parser().parse_args(argv)
    with interruptible() as interrupted:
        try:
            return _run(arguments, interrupted)
        except CannotRun as error:
            if arguments.debug:
                traceback.print_exc()
            print(f"could not run: {error.seen}\n  next: {error.next_action}", file=sys.stderr)
        except KeyboardInterrupt:
            print("could not run: interrupted", file=sys.stderr)
    return 2


def _run(arguments: argparse.Namespace, interrupted: Callable[[], bool]) -> int:
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    for path in (arguments.json, arguments.junit):
        if path is not None:
            from client_smoke.report import check_writable

            check_writable(path)
    try:
        smoke_target, ca_file, tokens, approver_session = _prepare(arguments)
    except CannotRun as error:
        refused = Result(
            "can_run",
            "the smoke client can run here",
            Status.COULD_NOT_RUN,
            0.0,
            "",
            error.seen,
            error.next_action,
        )
        _write_reports(arguments, started, time.perf_counter() - clock, [refused], code=2)
        raise

    from client_smoke.display import Screen, closing_words
    from client_smoke.runner import run
    from client_smoke.smoke import Smoke
    from client_smoke.steps import CLEANUP, STEPS

    with tempfile.TemporaryDirectory(prefix="client-smoke-") as scratch:
        smoke = Smoke(
            target=smoke_target,
            ca_file=ca_file,
            timeout=arguments.timeout,
            scratch=Path(scratch),
            tokens=tokens,
            approver_session=approver_session,
        )
        with Screen(sys.stdout, total=len(STEPS) + 1) as screen, quiet(arguments.debug):
            results = run(
                smoke,
                steps=STEPS,
                cleanup=CLEANUP,
                keep=arguments.keep,
                display=screen,
                on_error=_print_traceback if arguments.debug else _ignore,
                interrupted=interrupted,
            )
    seconds = time.perf_counter() - clock
    code = exit_code(results, require_all=arguments.require_all)
    print()
    print(closing_words(results, url=smoke.target.url, seconds=seconds, remains=smoke.remains, code=code))
    _write_reports(
        arguments,
        started,
        seconds,
        results,
        code=code,
        identifier=smoke.identifier,
        versions=smoke.versions,
        remains=smoke.remains,
    )
    return code


def _prepare(arguments: argparse.Namespace) -> tuple[TrackingTarget, str, Tokens, Session | None]:
    from client_smoke.environment import (
        bound_waits,
        bounded_aws_session,
        ca_bundle,
        process_environment,
        use_bounded_aws_session,
    )

    if not arguments.tracking_uri:
        raise CannotRun(
            "no tracking URI was given",
            next_action="pass the stack's TrackingUrl output: --tracking-uri https://mlflow.example.com",
        )
    target = TrackingTarget.parse(arguments.tracking_uri)
    tokens = Tokens(
        **{
            whose: read_token_file(path, whose=whose)
            for whose, path in (
                ("viewer", arguments.viewer_token_file),
                ("approver", arguments.approver_token_file),
            )
            if path is not None
        }
    )
    ca_file = ca_bundle(process_environment())
    bound_waits(process_environment(), seconds=arguments.timeout)
    use_bounded_aws_session(seconds=arguments.timeout)
    profile, approver = arguments.approver_profile, None
    if profile is not None:
        approver = bounded_aws_session(profile, seconds=arguments.timeout)
    return target, ca_file, tokens, approver


def _write_reports(
    arguments: argparse.Namespace,
    started: dt.datetime,
    seconds: float,
    results: Sequence[Result],
    *,
    code: int,
    identifier: str = "",
    versions: dict[str, str] | None = None,
    remains: Sequence[str] = (),
) -> None:
    from client_smoke.report import Report, write

    report = Report(
        tracking_uri=arguments.tracking_uri or "",
        identifier=identifier,
        started=started,
        seconds=seconds,
        versions=versions or {},
        results=results,
        remains=remains,
        code=code,
    )
    if arguments.json is not None:
        write(arguments.json, report.as_json())
    if arguments.junit is not None:
        write(arguments.junit, report.as_junit())


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 3600")
    return value


@contextlib.contextmanager
def interruptible(*more: int) -> Iterator[Callable[[], bool]]:
    """Make of SIGINT, SIGTERM and `more` signals a `KeyboardInterrupt`; says whether one came.

    CI cancels a job with SIGTERM; what was made has to go then, too.
    """
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)  # remembered, because an exception raised in a callback can get lost
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, *more)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """Keep the libraries' notices, which would tear the table apart, unless --debug shows them."""
    if debug:
        yield
        return
    unheard = io.StringIO()
    with contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
        yield


def _print_traceback(error: Exception) -> None:
    traceback.print_exception(error)


def _ignore(_error: Exception) -> None: ...
