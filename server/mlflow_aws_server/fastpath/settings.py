"""What the fast path needs to be told; the server's own settings satisfy it structurally."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class DatabaseAddress(Protocol):
    """Where the database is, and which certificate authority vouches for it."""

    @property
    def host(self) -> str:
        """The address, as the database's certificate names it."""

    @property
    def port(self) -> int:
        """The TCP port."""

    @property
    def name(self) -> str:
        """The database that holds MLflow's tables."""

    @property
    def ca_file(self) -> Path:
        """The CA bundle; connections are made with `verify-full`."""

    @property
    def region(self) -> str:
        """The AWS region that login tokens are made for."""


class ConnectionShare(Protocol):
    """How many database connections a worker process may hold for what."""

    @property
    def fast_path(self) -> int:
        """The fast path's share, at least 1."""


class FastPathSettings(Protocol):
    """The slice of the server's settings that the fast path reads, once, when it is built."""

    @property
    def database(self) -> DatabaseAddress:
        """Where to connect to."""

    @property
    def database_user(self) -> str:
        """The role to connect as; the right to read and write rows is enough."""

    @property
    def connections(self) -> ConnectionShare:
        """This process's share of database connections."""

    @property
    def fast_path(self) -> bool:
        """The switch: False leaves every request to stock MLflow."""
