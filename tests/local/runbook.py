"""docs/runbook.md's commands, run as printed on a running platform, with what it says to put into them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local.environment import clean
from local.parts.aws import Aws
from local.state import PROJECT
from tests.clients.installation import installed
from tests.documents import blocks, spans

DOCUMENT = "docs/runbook.md"
STACK = "MlflowOnAws-dev-Service"
_LOCK = PROJECT / "tests" / "deploy" / "awscli.txt"
# The AWS CLI, which takes a second to load, once for many commands.
_AWS = """
import contextlib, io, json, sys
from awscli.clidriver import create_clidriver
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = create_clidriver().main(json.loads(line))
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


def commands() -> list[str]:
    """The commands of blocks and sentences that have all their arguments, in the document's order."""
    lines = [line for each in blocks(DOCUMENT) for line in each.commands.splitlines()]
    return list(dict.fromkeys(each for each in [*lines, *spans(DOCUMENT)] if each.startswith("aws ")))


class OnCall:
    """A person who types what the runbook says."""

    def __init__(self, aws: Aws, process: subprocess.Popen[str], directory: Path) -> None:
        self._aws, self._process, self._directory = aws, process, directory
        (stack,) = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        self.outputs: Mapping[str, str] = {
            each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]
        }
        table = re.findall(r"^\| `([A-Z_]+)` \| the output `(\w+)`", (PROJECT / DOCUMENT).read_text(), re.M)
        self._words = {word: self.outputs[output] for word, output in table}

    def types(self, command: str, **words: str) -> Any:
        """Run a command, which must succeed; its answer, as JSON or as text."""
        for word, value in {**self._words, **words}.items():
            command = re.sub(rf"(?<![\w-]){word}(?!\w)", value, command)
        shell = 'aws() { printf "%s\\0" "$@"; }\n' + command
        typed = subprocess.run(["sh", "-c", shell], capture_output=True, check=True, timeout=30).stdout
        arguments = typed.decode().split("\0")[:-1]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        assert code == 0, f"$ {command}\n{said}"
        return json.loads(said) if said and "--output" not in arguments else said

    def file(self, name: str, content: bytes) -> None:
        """Put a file where the commands are typed."""
        (self._directory / name).write_bytes(content)


@contextlib.contextmanager
def on_call(aws: Aws, directory: Path) -> Iterator[OnCall]:
    """A shell with the AWS CLI and the root's credentials."""
    environment = clean(
        **{name: value for name, value in aws.variables().items() if value},
        AWS_ENDPOINT_URL=aws.endpoint,
        AWS_DEFAULT_REGION=aws.region,
    )
    python = installed("awscli", _LOCK) / "bin" / "python"
    with subprocess.Popen(
        [str(python), "-c", _AWS],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield OnCall(aws, process, directory)
        finally:
            process.kill()
