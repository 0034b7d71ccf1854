"""Gives a PostgreSQL cluster what a new RDS instance has: its administrator, its roles, its database."""

from __future__ import annotations

from typing import Any

from local.parts.postgres import Postgres

# How users sign in over the Unix socket: members of `rds_iam` without a password, since the front door has
# checked their token; everybody else by password. The administrator, who may grant `rds_iam`, counts as a
# member here from the beginning; on RDS, from the first migration.
SOCKET_RULES = (
    "local all +rds_iam trust",
    "local all all scram-sha-256",
)


def make_rds_like(postgres: Postgres, *, administrator: str, password: str, database: str = "") -> None:
    """Give the cluster the roles, and the named database, of a new RDS instance, and nothing else.

    The administrator may create roles and databases and grant `rds_iam`; PostgreSQL's own superuser stays
    Amazon's.
    """
    from psycopg2 import sql

    name = sql.Identifier(administrator)
    with postgres.cursor() as cursor:
        _drop_everything(cursor)
        cursor.execute("CREATE ROLE rds_iam NOLOGIN")
        cursor.execute("CREATE ROLE rds_superuser NOLOGIN")
        cursor.execute("GRANT rds_iam TO rds_superuser WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
        cursor.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD {}").format(
                name, sql.Literal(password)
            )
        )
        cursor.execute(sql.SQL("GRANT rds_superuser TO {}").format(name))
        if database:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), name))


def _drop_everything(cursor: Any) -> None:
    from psycopg2 import sql

    cursor.execute("SELECT datname FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate")
    for (name,) in cursor.fetchall():
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    cursor.execute(r"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' AND rolname <> current_user")
    for (name,) in cursor.fetchall():
        cursor.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))
