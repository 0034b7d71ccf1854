"""The command line: `mlflow-lifecycle {promote,rollback,archive,record,explain}`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from model_lifecycle.errors import LifecycleError, PolicyError
from model_lifecycle.rules import Finding, RefusedByPolicyError
from model_lifecycle.terminal import plain

_LONGEST_LINE = 10_000
_POLICY = "MLFLOW_LIFECYCLE_POLICY"
_EPILOG = f"""\
exit codes:
  0    done, or it had been done before
  1    it failed; the message says what to do
  2    wrong usage, or a policy file that cannot be used
  3    refused by the policy: the rules are listed, nothing was changed
  4    refused by the server: your role may not; nothing was changed
  5    somebody else was first, or the run has changed: the message says what; nothing was changed
  6    explain: a file is not what was sealed, or the server's record is not whole
  130  interrupted; run the command again to complete it

environment, as for any MLflow client:
  MLFLOW_TRACKING_URI, MLFLOW_TRACKING_AUTH=aws or MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_SERVER_CERT_PATH
  AWS_…            credentials that read the artifacts
  {_POLICY}   the policy file, if --policy is not given
"""


def parser() -> argparse.ArgumentParser:
    """The arguments; importing nothing heavier than argparse."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--tracking-uri", metavar="URL", help="the server (default: MLFLOW_TRACKING_URI)")
    shared.add_argument("--json", action="store_true", help="JSON on stdout; the words go to stderr")
    shared.add_argument(
        "--unguarded",
        action="store_true",
        help="work with a stock server too: nobody's name is verified, two promotions may both win",
    )
    decides = argparse.ArgumentParser(add_help=False)
    decides.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        default=os.environ.get(_POLICY),
        help=f"the policy (default: {_POLICY})",
    )
    decides.add_argument("--dry-run", action="store_true", help="judge the rules, change nothing")

    top = argparse.ArgumentParser(
        prog="mlflow-lifecycle",
        description="Move registered models by policy, and explain them later.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], _Output], words: str, *parents: Any) -> Any:
        added = commands.add_parser(name, help=words, description=words, parents=[shared, *parents])
        added.set_defaults(run=run)
        added.add_argument("name", metavar="NAME", help="the registered model")
        return added

    promote = command("promote", _promote, "move a version to the next stage, if the policy allows", decides)
    promote.add_argument("version", metavar="VERSION", type=_version)
    promote.add_argument("--to", required=True, choices=["staging", "production"])
    rollback = command("rollback", _rollback, "make the former Production version Production again", decides)
    rollback.add_argument(
        "--from",
        dest="away_from",
        metavar="VERSION",
        type=_version,
        help="do nothing unless this version is in Production (safe to repeat)",
    )
    rollback.add_argument(
        "--to", metavar="VERSION", type=_version, help="return to this one, not the last before"
    )
    archive = command("archive", _archive, "move a version to Archived", decides)
    archive.add_argument("version", metavar="VERSION", type=_version)
    record = command("record", _record, "wait until the server has sealed a version")
    record.add_argument("version", metavar="VERSION", type=_version)

    explain = command(
        "explain", _explain, "everything about one version, and whether its files are as sealed"
    )
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument("version", metavar="VERSION", type=_version, nargs="?")
    which.add_argument("--alias", metavar="ALIAS", help="the version that has this alias")
    which.add_argument("--stage", choices=["Staging", "Production", "Archived"], help="the version in it")
    which.add_argument(
        "--at",
        metavar="DATE",
        help="the version that was in Production then: 2026-01-31 or 2026-01-31T12:00Z",
    )
    explain.add_argument("--html", metavar="FILE", type=Path, help="write the report as one HTML file")
    explain.add_argument("--no-verify", action="store_true", help="do not ask S3 about the files")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parser().parse_args(argv)
    _quiet()
    try:
        answer = arguments.run(arguments)
    except LifecycleError as error:
        return _failed(error, as_json=arguments.json)
    except KeyboardInterrupt:
        _print("interrupted; run the command again to complete it", sys.stderr)
        return 130
    _print(answer.words, sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        _print_json(answer.document)
    code: int = answer.code
    return code


class _Output:
    def __init__(self, words: str, document: dict[str, Any], code: int = 0) -> None:
        self.words, self.document, self.code = words, document, code


def _promote(arguments: argparse.Namespace) -> _Output:
    from model_lifecycle.promotion import promote

    lifecycle = _lifecycle(arguments)
    return _outcome(
        promote(lifecycle, arguments.name, arguments.version, to=arguments.to, dry_run=arguments.dry_run)
    )


def _rollback(arguments: argparse.Namespace) -> _Output:
    from model_lifecycle.promotion import rollback

    return _outcome(
        rollback(
            _lifecycle(arguments),
            arguments.name,
            away_from=arguments.away_from or "",
            to=arguments.to or "",
            dry_run=arguments.dry_run,
        )
    )


def _archive(arguments: argparse.Namespace) -> _Output:
    from model_lifecycle.promotion import archive

    return _outcome(
        archive(_lifecycle(arguments), arguments.name, arguments.version, dry_run=arguments.dry_run)
    )


def _record(arguments: argparse.Namespace) -> _Output:
    from model_lifecycle.promotion import record

    seal = record(_registry(arguments), arguments.name, arguments.version)
    if seal is None:
        words = f"version {arguments.version}: the server seals it with its first promotion"
        return _Output(words, {"outcome": "nothing to do", "exit_code": 0, "manifest_sha256": "", "files": 0})
    size = f"{seal.files} files, {seal.bytes:,} bytes"
    words = f"version {arguments.version}: {size}; manifest sha256 {seal.sha256}"
    document = {"outcome": "done", "exit_code": 0, "manifest_sha256": seal.sha256, "files": seal.files}
    return _Output(words, document)


def _explain(arguments: argparse.Namespace) -> _Output:
    from model_lifecycle import report
    from model_lifecycle.explanation import explain

    explanation = explain(
        _registry(arguments),
        arguments.name,
        version=arguments.version or "",
        alias=arguments.alias or "",
        stage=arguments.stage or "",
        at=arguments.at or "",
        verify=not arguments.no_verify,
    )
    words = report.as_text(explanation)
    if arguments.html:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(report.as_html(explanation), encoding="utf-8")
        words += f"\nreport: {arguments.html}"
    return _Output(words, explanation.as_dict(), 6 if explanation.tampered else 0)


def _outcome(outcome: Any) -> _Output:
    lines = _rules(outcome.findings)
    where = f"{outcome.stage}{f' (@{outcome.alias})' if outcome.alias else ''}"
    if outcome.changed:
        instead = f" instead of version {outcome.instead_of}" if outcome.instead_of else ""
        lines.append(f"{outcome.model} version {outcome.version} is now in {where}{instead}")
    else:
        lines.append(f"{outcome.model} version {outcome.version}, {where}: nothing was changed")
    lines += [f"note: {note}" for note in outcome.notes]
    if outcome.entry:
        lines.append(f"recorded: entry {outcome.entry} of its history, seal {outcome.seal or 'none'}")
    return _Output("\n".join(lines), outcome.as_dict())


def _rules(findings: Sequence[Finding]) -> list[str]:
    width = max((len(plain(finding.rule)) for finding in findings), default=0)
    return [
        f"{'✓' if finding.passed else '✗'} {plain(finding.rule):<{width}}  {plain(finding.observed)}"
        + ("" if finding.passed else f"  (required: {plain(finding.required)})")
        for finding in findings
    ]


def _failed(error: LifecycleError, *, as_json: bool) -> int:
    if isinstance(error, RefusedByPolicyError):
        _print("\n".join(_rules(error.findings)), sys.stderr)
    _print(f"{error.kind}: {error}", sys.stderr)
    if as_json:
        _print_json(error.as_dict())
    return error.exit_code


def _registry(arguments: argparse.Namespace) -> Any:
    from model_lifecycle.registry import Registry

    return Registry(arguments.tracking_uri, guarded=not arguments.unguarded)


def _lifecycle(arguments: argparse.Namespace) -> Any:
    from model_lifecycle.policy import LoadedPolicy
    from model_lifecycle.promotion import Lifecycle

    if arguments.policy is None:
        raise PolicyError(f"no policy is named: give --policy FILE, or set {_POLICY}")
    policy = LoadedPolicy.load(Path(arguments.policy))
    return Lifecycle(_registry(arguments), policy)


def _version(text: str) -> str:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is no version number, such as 3')
    return str(int(text))


def _quiet() -> None:
    """No progress bars and no notices of libraries between our lines."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def _print(text: str, stream: TextIO) -> None:
    """Lines as a terminal shows them; none holds what moves the cursor or hides text."""
    encoding = stream.encoding or "utf-8"
    for line in text.split("\n") if text else ():
        stream.write(
            plain(line, limit=_LONGEST_LINE).encode(encoding, "backslashreplace").decode(encoding) + "\n"
        )
    stream.flush()


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()
