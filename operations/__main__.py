"""What an operator does with a deployment, each as one command that can be run again.

Exit code 0 if all is well, 1 if it failed, 2 if nothing was begun, 130 if it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from operations import cleanup, drill, erase, rehearsal, relocate, restore, restore_artifacts, smoke
from operations.command import Command
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from operations.imports import command as importing

FAILED, COULD_NOT_RUN, INTERRUPTED = 1, 2, 130

COMMANDS: tuple[Command, ...] = (
    cleanup.COMMAND,
    erase.COMMAND,
    importing.COMMAND,
    rehearsal.COMMAND,
    drill.COMMAND,
    relocate.COMMAND,
    restore.COMMAND,
    restore_artifacts.COMMAND,
    smoke.COMMAND,
)


def main(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    commands: Sequence[Command] = COMMANDS,
) -> int:
    """Run one command: progress on standard error, the result on standard output; return the exit code."""
    from botocore.exceptions import BotoCoreError, ClientError

    options = _parser(commands).parse_args(arguments)
    command = next(each for each in commands if each.name == options.command)
    # What ends a job of CI must not leave a task or a scratch database behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        deployment = Deployment.of(options.env, environ=environ)
        _say(f"{command.name}: {options.env}, account {deployment.account}, region {deployment.region}")
        report = command.run(deployment, options, _say)
    except CannotRunError as error:
        _say(f"{command.name}: {error}")
        return COULD_NOT_RUN
    except (FailedError, BotoCoreError, ClientError) as error:
        _say(f"{command.name}: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say(f"{command.name}: stopped; run it again to begin anew or to go on")
        return INTERRUPTED
    print(json.dumps(report.document, indent=2, ensure_ascii=False) if options.json else report.text)
    return 0 if report.good else FAILED


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        each = choices.add_parser(command.name, help=command.help, description=command.help)
        each.add_argument("--env", default="dev", help="the environment, a file in config/ without .toml")
        each.add_argument("--json", action="store_true", help="print the result for programs")
        command.add_arguments(each)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
