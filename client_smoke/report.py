"""The run as files for machines: JSON, and JUnit XML for CI."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_smoke.verdict import CannotRun, Result, Status

_VERDICTS = {0: "passed", 1: "promise broken", 2: "could not run"}
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Report:
    """All there is to say about one run; `code` is its exit code."""

    tracking_uri: str
    identifier: str
    started: dt.datetime
    seconds: float
    versions: Mapping[str, str]
    results: Sequence[Result]
    remains: Sequence[str]
    code: int

    def as_json(self) -> str:
        """A JSON document; its keys and verdicts are stable."""
        document = {
            "tracking_uri": self.tracking_uri,
            "verdict": _VERDICTS[self.code],
            "exit_code": self.code,
            "identifier": self.identifier,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "versions": dict(self.versions),
            "steps": [
                {
                    "name": result.name,
                    "promise": result.title,
                    "status": str(result.status),
                    "seconds": round(result.seconds, 3),
                    "observed": result.observed,
                    "seen": result.seen,
                    "next": result.next_action,
                }
                for result in self.results
            ],
            "remains": list(self.remains),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def as_junit(self) -> str:
        """A JUnit test suite: a failed step is a failure; a run that could not go on is an error."""
        statuses = [result.status for result in self.results]
        errors = sum(status in {Status.COULD_NOT_RUN, Status.INTERRUPTED} for status in statuses)
        suite = ElementTree.Element(
            "testsuite",
            name="client_smoke",
            tests=str(len(statuses)),
            failures=str(statuses.count(Status.FAILED)),
            errors=str(errors),
            skipped=str(sum(status in {Status.SKIPPED, Status.KEPT} for status in statuses)),
            time=f"{self.seconds:.3f}",
            timestamp=self.started.isoformat(timespec="seconds"),
        )
        for result in self.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname="client_smoke", name=result.title, time=f"{result.seconds:.3f}"
            )
            _add_outcome(case, result)
        root = ElementTree.Element("testsuites")
        root.append(suite)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_outcome(case: ElementTree.Element, result: Result) -> None:
    tags = {
        Status.FAILED: "failure",
        Status.COULD_NOT_RUN: "error",
        Status.INTERRUPTED: "error",
        Status.SKIPPED: "skipped",
        Status.KEPT: "skipped",
    }
    if tag := tags.get(result.status):
        outcome = ElementTree.SubElement(case, tag, message=_printable(result.seen or result.observed))
        outcome.text = _printable(f"next: {result.next_action}") if result.next_action else None
    else:
        ElementTree.SubElement(case, "system-out").text = _printable(result.observed)


def _printable(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)


def check_writable(path: Path) -> None:
    """Raise `CannotRun` now rather than after the run if a report cannot be written to `path`."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CannotRun(
            f"a report cannot be written to {path}",
            next_action="name a file in a directory that you may write",
        )


def write(path: Path, content: str) -> None:
    """Write the whole file or leave the old one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
