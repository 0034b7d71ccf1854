"""The two database roles and what each may do.

The master user of RDS is not a superuser. It may create roles (CREATEROLE), owns the database, and can
grant `rds_iam`. It can administer the roles it creates, but not SET ROLE to them (PostgreSQL 16 and later
grant a creator only the admin option); so the migrator itself grants what belongs to it.

That admin option makes the master user a member of the new roles, hence of `rds_iam`, which ends password
logins, and only Amazon's own superuser could revoke it. So the master user becomes a member in its own name,
as RDS documents it: from then on it logs in with IAM tokens, and with nothing else.

Limits in time are at the role: no connection of the server lacks them, to a reader neither.
"""

from __future__ import annotations

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.sql import SQL, Identifier, Literal

from mlflow_aws_server.limits import IDLE_TIME, LOCK_TIME, QUESTION_TIME

_IAM_ROLE = "rds_iam"
_REVISION_TABLE = "alembic_version"

SERVER_SETTINGS = {
    "statement_timeout": f"{QUESTION_TIME.most}s",
    "lock_timeout": f"{LOCK_TIME.most}s",
    # Advisory locks that are held for minutes, while S3 copies, are held between transactions.
    "idle_in_transaction_session_timeout": f"{IDLE_TIME.most}s",
    # A statement ends soon after the worker that asked for it.
    "client_connection_check_interval": "5s",
    # To compile a search takes longer than to answer it.
    "jit": "off",
}
"""What every session of the server's role begins with."""

# Whatever the parameter group says, a migration takes as long as it takes.
_MIGRATOR_SETTINGS = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # After one that was killed, the tables are free again soon.
    "client_connection_check_interval": "1s",
}


def complete(connection: Connection, *, migrator: str, server: str) -> bool:
    """Whether both roles exist, with their settings, and the migrator may create tables and end sessions.

    And they and the owner log in by IAM.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) = 2
               AND bool_and(coalesce(rolconfig, '{}')
                            @> CASE rolname WHEN %(server)s THEN %(limits)s ELSE %(no_limits)s END)
               AND has_schema_privilege(%(migrator)s, 'public', 'CREATE')
               AND has_database_privilege(%(migrator)s, current_database(), 'CREATE')
               AND pg_has_role(%(migrator)s, %(server)s, 'USAGE')
               AND EXISTS (SELECT FROM pg_auth_members JOIN pg_database ON datdba = member
                            WHERE datname = current_database() AND roleid = %(iam)s::regrole)
              FROM pg_roles
             WHERE rolname IN (%(migrator)s, %(server)s) AND rolcanlogin
               AND pg_has_role(rolname, %(iam)s, 'MEMBER')
            """,
            {
                "migrator": migrator,
                "server": server,
                "iam": _IAM_ROLE,
                "limits": _stored(SERVER_SETTINGS),
                "no_limits": _stored(_MIGRATOR_SETTINGS),
            },
        )
        row = cursor.fetchone()
    return bool(row and row[0])


def _stored(settings: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def create(connection: Connection, *, database: str, migrator: str, server: str) -> None:
    """As the master user: create what is missing of both roles and their settings, in one transaction."""
    names = {"migrator": Identifier(migrator), "server": Identifier(server), "database": Identifier(database)}
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            for role in (migrator, server):
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
                if cursor.fetchone() is None:
                    cursor.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
            for statement in (
                # PUBLIC is every role, now and later.
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
                "GRANT CONNECT ON DATABASE {database} TO {migrator}, {server}",
                # An import has schemas of its own.
                "GRANT CREATE ON DATABASE {database} TO {migrator}",
                "GRANT USAGE, CREATE ON SCHEMA public TO {migrator}",
                "GRANT USAGE ON SCHEMA public TO {server}",
                # Only a member may end the server's sessions, or see what they do.
                "GRANT {server} TO {migrator}",
                f"GRANT {_IAM_ROLE} TO {{migrator}}, {{server}}, CURRENT_USER",
            ):
                cursor.execute(SQL(statement).format(**names))
            for role, settings in ((server, SERVER_SETTINGS), (migrator, _MIGRATOR_SETTINGS)):
                for name, value in settings.items():
                    alter = SQL("ALTER ROLE {} SET {} = {}")
                    cursor.execute(alter.format(Identifier(role), Identifier(name), Literal(value)))
            cursor.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise


def grant_data(connection: Connection, *, server: str) -> None:
    """As the migrator: let the server read and write rows of every table, now and later, and nothing else."""
    role = Identifier(server)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            for statement in (
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
                "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
                " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role}",
                # Only a migration may change the schema's revision.
                f"REVOKE INSERT, UPDATE, DELETE ON {_REVISION_TABLE} FROM {{role}}",
            ):
                cursor.execute(SQL(statement).format(role=role))
            cursor.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise
