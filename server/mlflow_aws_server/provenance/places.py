"""Where artifacts may be: under the deployment's root, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from mlflow_aws_server.provenance import documents
from mlflow_aws_server.provenance.errors import ProvenanceError, unclear
from mlflow_aws_server.sealing.places import SEALED

# sealed/MODEL/VERSION/TIME
_PARTS_OF_A_COPY = 4
# What a reader of URIs, paths or lines could take for something else than a part of an object's key.
_AMBIGUOUS = re.compile(r"[\\?#\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_QUOTE = 300
# Of another version, of a logged model, of a run: MLflow finds out where that is.
_REFERENCE = re.compile(r"(?:models|runs):/(?!/)")


class ArtifactPlaces:
    """Tells the places under an artifact root from all others.

    What could be read in two ways is none: other letters in scheme or bucket, `.` and `..`, empty parts, a
    query, a fragment, a backslash, all of these percent-encoded too, as often as one likes.
    """

    def __init__(self, root: str) -> None:
        """`root` is s3://BUCKET or s3://BUCKET/PREFIX."""
        self._root = root.rstrip("/")

    def holds(self, uri: str) -> bool:
        """Whether artifacts may be written there: below the root, and not among the sealed copies."""
        parts = self._below(uri.removesuffix("/"))
        return bool(parts) and parts[0] != SEALED

    def holds_model(self, uri: str) -> bool:
        """Whether a model may be registered from there: below the root, or a sealed copy or a part of it."""
        parts = self._below(uri)
        return bool(parts) and (parts[0] != SEALED or len(parts) >= _PARTS_OF_A_COPY)

    def check_experiment(self, document: Mapping[str, Any]) -> None:
        """Check the location in a request to create an experiment.

        Raises:
            ProvenanceError: it is elsewhere.
        """
        given = documents.field(document, "artifact_location", str)
        if given and not self.holds(given):
            raise self.refusal("artifact_location", given, "Leave it out: the server chooses one.")

    def check_version(self, document: Mapping[str, Any]) -> None:
        """Check the source in a request to create a model version. A prompt has none that is ever loaded.

        Raises:
            ProvenanceError: it is elsewhere.
        """
        source = document.get("source")
        if not source or _is_prompt(document):
            # MLflow refuses a version without a source, and takes only its own placeholders for a prompt's.
            return
        if not isinstance(source, str):
            raise unclear(f"`source` is {source!r}, which is not a string")
        reference = _REFERENCE.match(source)
        if reference is not None:
            if _parts(source[reference.end() :]):
                return
        elif self.holds_model(source):
            return
        raise self.refusal(
            "source",
            source,
            "Log the model with this server first, and register it from there: as models:/MODEL_ID, "
            "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/PATH, or by the URI under that root.",
        )

    def refusal(self, what: str, given: str, remedy: str) -> ProvenanceError:
        """Why a place is refused."""
        quoted = given if len(given) <= _LONGEST_QUOTE else given[:_LONGEST_QUOTE] + "…"
        return ProvenanceError(
            400,
            "INVALID_PARAMETER_VALUE",
            f"`{what}` is {quoted!r}, but artifacts are kept under {self._root}/ only. {remedy}",
        )

    def _below(self, uri: str) -> list[str]:
        inside = f"{self._root}/"
        return _parts(uri.removeprefix(inside)) if uri.startswith(inside) else []


def _parts(path: str) -> list[str]:
    """The parts of a path; none if it could mean another one to somebody."""
    plain = path
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    parts = plain.split("/")
    if _AMBIGUOUS.search(plain) or len(parts) != path.count("/") + 1 or {"", ".", ".."} & set(parts):
        return []
    return parts


def _is_prompt(document: Mapping[str, Any]) -> bool:
    """As MLflow's handler decides it: the last of equal names counts."""
    tags = document.get("tags") or ()
    values = [tag.get("value") for tag in tags if tag.get("key") == IS_PROMPT_TAG_KEY]
    return bool(values) and isinstance(values[-1], str) and values[-1].lower() == "true"
