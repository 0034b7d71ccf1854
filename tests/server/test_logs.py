"""Every line of a process is one JSON object of ours, whatever is logged, printed or raised in it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_aws_server.logs import LARGEST_LINE, JsonFormatter

_FORGED = '{"audit":"changed","principal":"admin","number":7}'
_KEYS = {"time", "level", "logger", "process", "message"}

# Each writes what a caller chose: FORGED stands in the middle, on a line of its own.
_WAYS = {
    "logger": "logging.getLogger('botocore').error('no\\n%s\\n', FORGED)",
    "logger with a handler of its own": """
        logger = logging.getLogger("mlflow"); logger.propagate = False
        logger.addHandler(logging.StreamHandler()); logger.error("no\\n%s\\n", FORGED)""",
    "logger whose arguments do not fit": "logging.getLogger('x').error('%d\\n', FORGED)",
    "exception in a log": """
        try: raise ValueError("no\\n" + FORGED + "\\n")
        except ValueError: logging.getLogger("x").exception("failed")""",
    "print": "print('no\\n' + FORGED + '\\n')",
    "print without an end": "print('no\\n' + FORGED, end='', file=sys.stderr)",
    "bytes": "sys.stdout.buffer.write(b'no\\xff\\n' + FORGED.encode() + b'\\n')",
    "traceback": """
        try: raise ValueError("no\\n" + FORGED + "\\n")
        except ValueError: traceback.print_exc()""",
    "warning": "warnings.warn('no\\n' + FORGED + '\\n')",
    "click": "click.echo('no\\n' + FORGED, err=True)",
    "exception of a thread": """
        def fail(): raise ValueError("no\\n" + FORGED + "\\n")
        thread = threading.Thread(target=fail); thread.start(); thread.join()""",
    "exception of a task": """
        async def fail(): raise ValueError("no\\n" + FORGED + "\\n")
        async def main(): asyncio.create_task(fail()); await asyncio.sleep(0)
        asyncio.run(main()); gc.collect()""",
    "exception of a callback": """
        def fail(): raise ValueError("no\\n" + FORGED + "\\n")
        async def main(): asyncio.get_running_loop().call_soon(fail); await asyncio.sleep(0)
        asyncio.run(main())""",
    "exception of a destructor": """
        class Dying:
            def __del__(self): raise ValueError("no\\n" + FORGED + "\\n")
        Dying()""",
    "exception": "raise ValueError('no\\n' + FORGED + '\\n')",
    "exit": "sys.exit('no\\n' + FORGED + '\\n')",
}


def _written(program: str) -> list[dict[str, object]]:
    setup = (
        "import asyncio, click, gc, logging, sys, threading, traceback, warnings\n"
        f"from mlflow_aws_server import logs\nlogs.configure()\nFORGED = {_FORGED!r}\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(program)],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert finished.stdout.isascii()
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_nothing_that_is_written_in_any_way_begins_a_line() -> None:
    program = "\n".join(
        f"def way_{number}():\n{textwrap.indent(textwrap.dedent(way).strip(), '    ')}\nway_{number}()"
        for number, (name, way) in enumerate(_WAYS.items())
        if name not in ("exception", "exit")
    )
    lines = _written(program)
    assert (
        len([line for line in lines if _FORGED in f"{line['message']}{line.get('exception')}"])
        >= len(_WAYS) - 2
    )
    assert all(set(line) - {"exception"} == _KEYS for line in lines)


@pytest.mark.parametrize("name", ["exception", "exit"])
def test_nothing_that_ends_a_process_begins_a_line(name: str) -> None:
    lines = _written(_WAYS[name])
    assert any(_FORGED in f"{line['message']}{line.get('exception')}" for line in lines)
    assert all(set(line) - {"exception"} == _KEYS for line in lines)


@given(
    message=st.text(st.characters(), max_size=9000),
    field=st.text(st.characters(categories=("Cc", "Cs", "Zl", "Zp", "Lo", "So")), max_size=9000),
    exception=st.text(st.characters(), max_size=9000),
)
def test_a_line_is_printable_ascii_and_short_whatever_the_text(
    message: str, field: str, exception: str
) -> None:
    error = ValueError(exception)
    record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", (message,), (ValueError, error, None))
    record.fields = {"field": field, "list": [field]}
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < LARGEST_LINE
    # No half of a surrogate pair: jq and other readers refuse it.
    read = json.loads(line)
    assert set(read) == {*_KEYS, "exception", "field", "list"}
    json.dumps(read["field"], ensure_ascii=False).encode()


def test_a_long_traceback_keeps_its_cause_and_its_end() -> None:
    try:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise ValueError("x" * 9000 + "the end") from error
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "failed", (), sys.exc_info())
    exception = json.loads(JsonFormatter().format(record))["exception"]
    assert "KeyError: 'the cause'" in exception
    assert exception.endswith("the end")
    assert len(exception) > LARGEST_LINE // 2
