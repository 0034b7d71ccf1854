"""Which file a request asks for: of a run, a logged model, a model version or a trace."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import CreatePresignedDownloadUrl
from mlflow.store.artifact.artifact_repo import _validate_attachment_path
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.uri import validate_path_is_safe

from mlflow_aws_server.artifacts.errors import ArtifactError, invalid

_MOST_ARGUMENTS = 50
# Never a part of a header, whatever checks the name before.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILE_OF_MODEL = re.compile(r"/ajax-api/2\.0/mlflow/logged-models/([^/]+)/artifacts/files")
_SPANS = "traces.json"


class Owner(enum.Enum):
    """What a file belongs to."""

    RUN = "run"
    MODEL = "logged model"
    VERSION = "model version"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, as a request names it."""

    owner: Owner
    name: str
    """The owner's id, or the registered model's name."""
    path: str
    version: str = ""
    spans: bool = False
    """Of a trace: whether it is the spans themselves, which the database may hold."""


_DOWNLOADS = {
    "/get-artifact": Owner.RUN,
    "/model-versions/get-artifact": Owner.VERSION,
    "/ajax-api/2.0/mlflow/get-trace-artifact": Owner.TRACE,
    "/ajax-api/3.0/mlflow/get-trace-artifact": Owner.TRACE,
}


def is_download(path: str) -> bool:
    """Whether a GET of this path asks for a file."""
    return path in _DOWNLOADS or path.endswith("/artifacts/files")


def download(path: str, query: bytes) -> Wanted:
    """The file that a GET asks for, by MLflow's rules.

    Raises:
        ArtifactError: it names none, or a path that leads elsewhere.
    """
    given = _arguments(query)
    match _DOWNLOADS.get(path):
        case Owner.RUN:
            run = given.get("run_id") or given.get("run_uuid") or ""
            return Wanted(Owner.RUN, run, _safe(_required(given, "path")))
        case Owner.VERSION:
            file = _safe(_required(given, "path"))
            return Wanted(Owner.VERSION, given.get("name", ""), file, version=given.get("version", ""))
        case Owner.TRACE:
            return _of_trace(_required(given, "request_id"), given.get("path"))
        case _:
            match = _FILE_OF_MODEL.fullmatch(path)
            file = _required(given, "artifact_file_path")
            _safe(file)
            # MLflow looks for this one as it was given, not decoded once more.
            return Wanted(Owner.MODEL, match[1] if match else "", file)


def to_sign(body: bytes) -> tuple[Wanted, int | None]:
    """The file for which a presigned URL is asked, and for how many seconds, if the request says so.

    Raises:
        ArtifactError: the body is not such a request.
    """
    message = CreatePresignedDownloadUrl()
    try:
        document = json.loads(body or b"{}")
        if not isinstance(document, dict):
            raise invalid("The body is not a JSON object.")
        parse_dict(document, message)
    except ArtifactError:
        raise
    except Exception as error:
        # protobuf's own errors, which have no common base that is typed.
        raise invalid("The body is not a request for a presigned URL.") from error
    for name in ("run_id", "path"):
        if not getattr(message, name):
            raise invalid(f"Missing value for required parameter '{name}'.")
    seconds = message.expiration if message.HasField("expiration") else None
    return Wanted(Owner.RUN, message.run_id, _safe(message.path)), seconds


def _of_trace(trace: str, attachment: str | None) -> Wanted:
    if not attachment:
        return Wanted(Owner.TRACE, trace, _SPANS, spans=True)
    file = _safe(attachment)
    try:
        _validate_attachment_path(file)
    except MlflowException as error:
        raise invalid(error.message) from error
    return Wanted(Owner.TRACE, trace, f"attachments/{file}")


def _arguments(query: bytes) -> dict[str, str]:
    """Of equal names, the first counts, as in MLflow."""
    try:
        pairs = parse_qsl(
            query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_ARGUMENTS
        )
    except ValueError as error:
        raise invalid(f"A download has at most {_MOST_ARGUMENTS} query parameters.") from error
    return dict(reversed(pairs))


def _required(given: dict[str, str], name: str) -> str:
    if name not in given:
        raise invalid(f"Missing value for required parameter '{name}'.")
    return given[name]


def _safe(path: str) -> str:
    try:
        safe: str = validate_path_is_safe(path)
    except MlflowException as error:
        raise invalid(error.message) from error
    except ValueError as error:
        raise invalid("Invalid path") from error
    if _CONTROL.search(path):
        raise invalid("Invalid path")
    return safe
