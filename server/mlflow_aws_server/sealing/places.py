"""Where a version's sealed copy is, and which source may be copied there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlflow_aws_server.sealing.errors import UnsealableError

SEALED = "sealed"
"""Under the artifact root: where only the server writes, and nobody deletes."""

_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_LONGEST_SLUG = 80
_DIGEST_LENGTH = 12
# Of MLflow's column.
_LONGEST_LOCATION = 500


def slug(model: str) -> str:
    """The model's name as one segment of a key; two names never have the same."""
    raw = model.encode("utf-8", "surrogatepass")
    kept = "".join(chr(byte) if byte in _KEPT else f"~{byte:02X}" for byte in raw)
    if kept.startswith("."):
        kept = "~2E" + kept[1:]
    if len(kept) > _LONGEST_SLUG:
        return f"{kept[:_LONGEST_SLUG]}-{hashlib.sha256(raw).hexdigest()[:_DIGEST_LENGTH]}"
    return kept


@dataclass(frozen=True, slots=True)
class Prefix:
    """A place in a bucket; `key` has no slash at the end."""

    bucket: str
    key: str

    @classmethod
    def read(cls, uri: str) -> Prefix | None:
        """Read a URI as MLflow's clients do; None if it is not one of S3."""
        parts = urlsplit(uri)
        if parts.scheme != "s3":
            return None
        return cls(parts.netloc, parts.path.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def inside(self) -> str:
        """What the keys of everything in it begin with."""
        return f"{self.key}/" if self.key else ""

    def holds(self, other: Prefix) -> bool:
        """Whether `other` is this place, or in it."""
        return self.bucket == other.bucket and f"{other.key}/".startswith(self.inside)


@dataclass(frozen=True, slots=True)
class Root:
    """The artifact root of the deployment."""

    prefix: Prefix

    @classmethod
    def read(cls, uri: str) -> Root:
        """Read the setting."""
        prefix = Prefix.read(uri)
        assert prefix is not None  # noqa: S101 - the settings were checked
        return cls(prefix)

    @property
    def sealed(self) -> Prefix:
        """Where all sealed copies are."""
        return Prefix(self.prefix.bucket, f"{self.prefix.inside}{SEALED}")

    def place_of(self, model: str, version: int, creation_time: int) -> Prefix:
        """Where the copies of this version are; the creation time tells apart models made anew.

        Raises:
            UnsealableError: MLflow could not store a location that long.
        """
        place = Prefix(self.sealed.bucket, f"{self.sealed.inside}{slug(model)}/{version}/{creation_time}")
        if len(str(place)) > _LONGEST_LOCATION - 3:
            raise UnsealableError(
                f"the sealed copy's location would have {len(str(place))} characters, and MLflow stores "
                f"{_LONGEST_LOCATION}: choose a shorter artifact prefix"
            )
        return place

    def source(self, location: str, place: Prefix) -> Prefix:
        """The source that a version names, to be copied to `place`.

        Raises:
            UnsealableError: it is not under the root, or holds the sealed copies themselves.
        """
        source = Prefix.read(location)
        if source is None or not self.prefix.holds(source):
            raise UnsealableError(
                f"its source {location!r} is not under {self.prefix}: log the model with this server, and "
                "register it from there"
            )
        if source.holds(place):
            raise UnsealableError(
                f"its source {location!r} holds the sealed copies themselves: register the directory of one "
                "model"
            )
        return source
