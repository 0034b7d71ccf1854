"""Gives a PostgreSQL cluster what a new RDS instance has: its administrator, its roles, its database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.parts.postgres import SUPERUSER, Postgres

# Who may come through the Unix socket: the administrator by password, a member of `rds_iam` at once, since
# the front door asks for a token and has it judged, and everybody else by password. The order matters: the
# administrator may grant `rds_iam`, which makes him a member of sorts.
SOCKET_RULES = (
    "local all +rds_superuser scram-sha-256",
    "local all +rds_iam trust",
    "local all all scram-sha-256",
)


def make_rds_like(postgres: Postgres, instance: Mapping[str, Any], *, password: str) -> None:
    """Create what RDS creates, from what DescribeDBInstances says about the instance.

    The administrator may create roles and databases and grant `rds_iam`; PostgreSQL's own superuser stays
    Amazon's.
    """
    import psycopg2
    from psycopg2 import sql

    administrator = sql.Identifier(instance["MasterUsername"])
    connection = psycopg2.connect(
        host=str(postgres.socket_directory), port=postgres.port, user=SUPERUSER, dbname="postgres"
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE rds_iam NOLOGIN")
            cursor.execute("CREATE ROLE rds_superuser NOLOGIN")
            cursor.execute("GRANT rds_iam TO rds_superuser WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
            cursor.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD {}").format(
                    administrator, sql.Literal(password)
                )
            )
            cursor.execute(sql.SQL("GRANT rds_superuser TO {}").format(administrator))
            cursor.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(instance["DBName"]), administrator
                )
            )
    finally:
        connection.close()
