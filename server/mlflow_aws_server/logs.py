"""Every line that a process of the image writes is one JSON object of ours, whatever text is in it.

MLflow and the libraries log what callers send: names, paths, messages of errors. Here all of it becomes a
value inside an object, in ASCII, so that no text of a caller can end a line or begin one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
import logging.config
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

CONFIG = Path(__file__).with_name("log_config.json")

LARGEST_LINE = 4096
"""In bytes, with its end: longer ones of several processes could mix in a pipe (POSIX's PIPE_BUF)."""

_CUT = "…"
# What every frame of a traceback would begin with.
_LIBRARIES = f"{Path(__file__).parents[1]}/"

_log = logging.getLogger("mlflow_aws_server")
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode


def configure() -> None:
    """Log as `log_config.json` says, and turn what is printed or dies in this process into such lines too."""
    logging.config.dictConfig(json.loads(CONFIG.read_text()))
    logging.captureWarnings(capture=True)
    # What cannot be written would be reported to a stream that logs.
    logging.raiseExceptions = False
    sys.excepthook = _log_exception
    threading.excepthook = lambda dead: _log_exception(dead.exc_type, dead.exc_value, dead.exc_traceback)
    sys.unraisablehook = lambda dead: _log_exception(dead.exc_type, dead.exc_value, dead.exc_traceback)
    sys.stdout = _printed("stdout", sys.__stdout__)
    sys.stderr = _printed("stderr", sys.__stderr__)


def encode(fields: dict[str, Any]) -> str:
    """JSON in printable ASCII: the form of every line, whatever the values hold."""
    with contextlib.suppress(orjson.JSONEncodeError):
        text = orjson.dumps(fields)
        if text.isascii() and b"\x7f" not in text:
            return text.decode("ascii")
    return _encode(fields).replace("\x7f", "\\u007f")


def printable(text: str) -> str:
    """The text without halves of surrogate pairs, which are no characters: some readers refuse the line."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


class JsonFormatter(logging.Formatter):
    """One JSON object of at most `LARGEST_LINE` bytes for each record; `extra={"fields": …}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; never raises."""
        fields: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": _message(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info).replace(_LIBRARIES, "")
        return _fitting(fields)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg!r} % {record.args!r}: {error!r}"


def _fitting(fields: dict[str, Any]) -> str:
    """The line; the longest values lose their middles until it fits."""
    fields = {name: printable(value) if isinstance(value, str) else value for name, value in fields.items()}
    longest = LARGEST_LINE
    while len(text := encode(fields)) >= LARGEST_LINE:
        longest = longest * 3 // 4
        fields = {name: _without_middle(value, longest) for name, value in fields.items()}
    return text


def _without_middle(value: Any, longest: int) -> Any:
    text = value if isinstance(value, str) else encode(value)
    if len(text) <= longest:
        return value
    # A traceback ends with what happened, and begins with what caused it.
    begin = longest // 3
    return f"{text[:begin]} {_CUT} {text[len(text) - (longest - begin) :]}"


def _log_exception(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _log.error("interrupted")
    else:
        _log.critical("an exception that nothing caught", exc_info=(kind, error or kind(), trace))


def _printed(name: str, real: Any) -> io.TextIOWrapper:
    stream = _PrintedLines(name, real.fileno())
    return io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline="\n", write_through=True)


class _PrintedLines(io.RawIOBase):
    """Stands in for standard output or error: logs each line that is printed to it."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = f"<{name}>"
        self._logger = logging.getLogger(name)
        self._descriptor = descriptor
        self._begun = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        *lines, self._begun = (self._begun + bytes(data)).split(b"\n")
        for line in lines:
            self._print(line)
        if len(self._begun) > LARGEST_LINE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        begun, self._begun = self._begun, b""
        self._print(begun)

    def _print(self, line: bytes) -> None:
        if line.strip():
            self._logger.info("%s", line.decode("utf-8", "backslashreplace"))
