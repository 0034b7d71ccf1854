"""The command line: `python -m local {demo,demo-lifecycle,up,down,env,status}`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from local import demo_roles
from local.deployment import DeploymentError
from local.environment import clean
from local.parts.postgres import PostgresError
from local.parts.progress import Progress
from local.platform import STEPS, Platform, PlatformError, client_environment, not_emulated
from local.state import PROJECT, SUPERVISOR_LOG, AlreadyRunningError, State
from local.synthesis import SynthesisError

_FAILURES = (PlatformError, DeploymentError, SynthesisError, PostgresError, OSError)
_STOP_SECONDS = 120.0
_REFRESH_SECONDS = 1.0
_EPILOG = """\
exit codes: 0 done; 1 it failed, the message says why; 2 wrong usage, or nothing is running; 130 interrupted
"""


class _StoppedError(BaseException):
    """SIGTERM came."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[..., int] = arguments.command
    options = {"role": arguments.role} if command is env else {}
    os.umask(0o077)
    state = State(arguments.state.resolve())
    try:
        return command(state, **options)
    except AlreadyRunningError:
        return _say_it_runs(state)
    except _FAILURES as error:
        print(f"error: {_explained(error, state)}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, _StoppedError):
        print("interrupted; everything that was started has ended", file=sys.stderr)
        return 130


def demo(state: State) -> int:
    """Start everything, prove it with the smoke client, and stop."""
    return _demonstrate(state, _smoke, "The smoke client passed every step")


def demo_lifecycle(state: State) -> int:
    """Start everything, take a model through its life, each step under its own role, and stop."""
    return _demonstrate(state, _live, "The model went through its whole life")


def _demonstrate(state: State, prove: Callable[[Platform], int], proved: str) -> int:
    with state.held():
        progress = Progress(STEPS, _print)
        with _running(state, progress) as platform:
            print()
            code = prove(platform)
            _summarize(platform, proved if code == 0 else f"It ended with exit code {code}", progress.seconds)
        _print(f"Stopped and cleaned up, {progress.seconds:.0f} s after the start.")
    return code


def up(state: State) -> int:
    """Start everything in the background; returns when it is ready."""
    if state.is_held():
        return _say_it_runs(state)
    state.prepare()
    # Left by a killed run, these would be taken for this run's.
    for stale in (state.run / "status.json", state.endpoints):
        stale.unlink(missing_ok=True)
    log = state.logs / SUPERVISOR_LOG
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "local", "--state", str(state.directory), "supervise"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=clean(),
            start_new_session=True,
        )
    try:
        return _follow(log, supervisor, state)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait(_STOP_SECONDS)
        raise


def supervise(state: State) -> int:
    """What `up` leaves in the background: start, watch, and stop at SIGTERM."""
    with state.held():
        progress = Progress(STEPS, _print)
        with _running(state, progress) as platform:
            _report_not_emulated(platform)
            state.write(state.run / "status.json", {"state": "ready"})
            while (broken := platform.failed_part()) is None:
                time.sleep(_REFRESH_SECONDS)
                with contextlib.suppress(Exception):
                    # The emulator may be busy; it is asked again in a second.
                    platform.refresh()
            _print(f"error: {broken}")
    return 1


def down(state: State) -> int:
    """Stop what `up` started and clean up; succeeds if nothing runs."""
    supervisor = state.supervisor() if state.is_held() else None
    if supervisor is not None:
        os.kill(supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while supervisor.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        if supervisor.is_alive():
            print(
                f"error: process {supervisor.pid} has not stopped after {_STOP_SECONDS:.0f} seconds; "
                "run `make down` again, or kill it",
                file=sys.stderr,
            )
            return 1
    try:
        with state.held():
            left = state.ledger.end_all()
            state.clean()
    except AlreadyRunningError:
        return _say_it_runs(state)
    if supervisor is None and not left:
        print("nothing was running")
    else:
        names = ", ".join(each.what for each in left)
        print("stopped" if supervisor else f"ended what a killed run left behind: {names}")
    return 0


def env(state: State, *, role: str) -> int:
    """Print exports for a POSIX shell, with new temporary credentials and a new token each time."""
    try:
        sys.stdout.write(client_environment(_running_state(state), role).shell())
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def status(state: State) -> int:
    """Say what runs and where; exit code 2 if nothing does."""
    if not state.is_held():
        print("not running; start it with `make up`")
        return 2
    endpoints = State.read(state.endpoints)
    print("running" if endpoints else "starting or stopping")
    for name, value in endpoints.items():
        print(f"  {name:<13} {value}")
    for process in state.ledger.alive():
        print(f"  process {process.pid:<7} {process.what}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description="A laptop's AWS: runs the synthesized stacks on embedded parts, without an AWS account.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--state",
        metavar="DIRECTORY",
        type=Path,
        default=State().directory,
        help="where this platform keeps its state, so that another can run beside it (default: .local)",
    )
    commands = parser.add_subparsers(
        dest="name", required=True, metavar="{demo,demo-lifecycle,up,down,env,status}"
    )
    listed: tuple[Callable[..., int], ...] = (demo, demo_lifecycle, up, down, env, status, supervise)
    for command in listed:
        assert command.__doc__ is not None  # noqa: S101 - above
        shown: dict[str, Any] = {} if command is supervise else {"help": command.__doc__.rstrip(".")}
        added = commands.add_parser(command.__name__.replace("_", "-"), description=command.__doc__, **shown)
        added.set_defaults(command=command)
        if command is env:
            added.add_argument(
                "--role",
                choices=demo_roles.ROLES,
                default=demo_roles.DEFAULT,
                help=f"whose credentials and token (default: {demo_roles.DEFAULT})",
            )
    return parser


@contextlib.contextmanager
def _running(state: State, progress: Progress) -> Iterator[Platform]:
    """Start a platform; stop it at the end of the block, at a signal, or at an error."""
    platform = Platform(state, progress)
    before = signal.signal(signal.SIGTERM, _raise_stopped)
    hangup = signal.signal(signal.SIGHUP, _raise_stopped)
    try:
        platform.start()
        yield platform
    finally:
        # From here on only SIGKILL interrupts the clean-up, and then the guard does it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        platform.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, hangup)


def _smoke(platform: Platform) -> int:
    environment = platform.client_environment()
    tokens = _token_files(platform)
    profiles = {"AWS_SHARED_CREDENTIALS_FILE": str(_profile_file(platform))}
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "client_smoke",
            "--tracking-uri",
            environment.tracking_url,
            "--require-all",
            "--viewer-token-file",
            str(tokens["viewer"]),
            "--approver-token-file",
            str(tokens["approver"]),
            "--approver-profile",
            "approver",
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        env={**clean(), **environment.variables(), **profiles},
    )
    with platform.state.ledger.tracked(child, "smoke client"):
        return child.wait()


def _token_files(platform: Platform) -> dict[str, Path]:
    """Tokens of the other roles that the smoke client needs, in files that only this user may read."""
    files = {}
    for role in ("viewer", "approver"):
        files[role] = platform.state.run / f"{role}.token"
        _write_privately(files[role], platform.client_environment(role).token)
    return files


def _profile_file(platform: Platform) -> Path:
    """The approver's AWS credentials as a profile, in a file that only this user may read."""
    variables = platform.client_environment("approver").variables()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    file = platform.state.run / "approver.credentials"
    lines = [f"{name.lower()} = {variables[name]}" for name in names]
    _write_privately(file, "\n".join(["[approver]", *lines, ""]))
    return file


def _write_privately(file: Path, content: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(content)


def _live(platform: Platform) -> int:
    from examples.credit_risk.demo import Demo, play

    def environment(role: str) -> dict[str, str]:
        return {**clean(), **platform.client_environment(role).variables()}

    demo = Demo(environment, platform.state.directory / "lifecycle", platform.state.ledger.tracked)
    return play(demo, url=platform.tracking_url)


def _summarize(platform: Platform, outcome: str, seconds: float) -> None:
    print()
    _report_not_emulated(platform)
    print(f"{outcome}, {seconds:.0f} s after the start.")
    print(f"`make up` keeps this running: the UI is then at {platform.tracking_url}")
    print(f"(certificate authority: {platform.state.authority / 'ca.pem'}; logs: {platform.state.logs}/)")


def _report_not_emulated(platform: Platform) -> None:
    _print("Not emulated:")
    unasked = [f"not checked: {title}" for title in platform.unasked]
    for line in [*not_emulated(platform.only_recorded), *unasked]:
        _print(f"  - {line}")


def _follow(log: Path, supervisor: subprocess.Popen[bytes], state: State) -> int:
    """Show what the supervisor says until it is ready or has ended."""
    with log.open() as lines:
        while True:
            ready = State.read(state.run / "status.json").get("state") == "ready"
            ended = supervisor.poll() is not None
            sys.stdout.write(lines.read())
            sys.stdout.flush()
            if ended:
                if state.is_held():
                    return _say_it_runs(state)
                return supervisor.returncode or 1
            if ready:
                break
            time.sleep(0.1)
    endpoints = State.read(state.endpoints)
    print(f"""
Ready: {endpoints["tracking_url"]}
  browser      trust {endpoints["ca_file"]} once, or accept its warnings;
               sign in as {", ".join(demo_roles.ROLES)}: {endpoints["users_file"]} has the passwords
  Python       eval "$(make -s env)"   then: python -c 'import mlflow; print(mlflow.search_experiments())'
               with another role: eval "$(make -s env ROLE=approver)"
  stop         make down""")
    return 0


def _say_it_runs(state: State) -> int:
    endpoints = State.read(state.endpoints)
    where = f"at {endpoints['tracking_url']}" if endpoints else "and is starting or stopping"
    print(f"already running {where}; `make down` stops it", file=sys.stderr)
    return 0 if endpoints else 1


def _running_state(state: State) -> State:
    if not state.is_held():
        raise PlatformError("nothing is running: start it with `make up`")
    return state


def _explained(error: BaseException, state: State) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        return f"{os.strerror(error.errno)}{where}: the platform needs a writable {state.directory}"
    return str(error)


def _raise_stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _StoppedError


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
