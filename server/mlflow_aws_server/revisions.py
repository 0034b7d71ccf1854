"""Which of MLflow's schema revisions an older server can go on working beside.

Read from the migration scripts, without importing MLflow. What is not understood counts as one that no older
server can work beside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlflow_aws_server import schema

# A new column's other arguments make constraints or indexes.
_COLUMN_KEYWORDS = frozenset(("nullable", "default", "server_default", "comment"))
# Deleting a row still works if what a newer server made beside it goes with it.
_FORGIVING = frozenset(("CASCADE", "SET NULL"))


@dataclass(frozen=True, slots=True)
class Revision:
    """One migration script."""

    id: str
    parents: frozenset[str]
    drains: str | None
    """What in it needs the older servers to be gone; None if they can stay: it is additive."""


class Revisions:
    """All revisions that an MLflow knows."""

    def __init__(self, revisions: Iterable[Revision], *, head: str) -> None:
        self.by_id: Mapping[str, Revision] = {each.id: each for each in revisions}
        self.head = head

    @classmethod
    def read(cls, versions: Path) -> Revisions:
        """Read the migration scripts in `versions`."""
        found = []
        for script in schema.scripts(versions):
            if (named := schema.revision_of(script)) is not None:
                found.append(Revision(*named, drains=_why_drain(script)))
        return cls(found, head=schema.Schema.read(versions).head)

    def pending(self, seen: str) -> list[Revision]:
        """What leads from the revision `seen` to the head, the newest first.

        Raises:
            KeyError: `seen` is not known.
        """
        done, missing, ahead = self._up_to(self.by_id[seen].id), dict[str, Revision](), [self.head]
        while ahead:
            if (revision := ahead.pop(0)) not in done and revision not in missing:
                missing[revision] = self.by_id[revision]
                ahead += sorted(self.by_id[revision].parents)
        return list(missing.values())

    def served(self) -> list[str]:
        """The older heads whose servers can work with this head's schema."""
        return sorted(
            each
            for each in self.by_id
            if each != self.head and all(one.drains is None for one in self.pending(each))
        )

    def _up_to(self, revision: str) -> set[str]:
        found: set[str] = set()
        ahead = [revision]
        while ahead:
            if (each := ahead.pop()) not in found:
                found.add(each)
                ahead += self.by_id[each].parents
        return found


@cache
def installed() -> Revisions:
    """Those of the installed MLflow."""
    return Revisions.read(schema.installed_versions())


class _DrainError(Exception):
    """A statement that an older server cannot work beside, or that is not understood."""


def _why_drain(script: ast.Module) -> str | None:
    functions = {each.name: each for each in script.body if isinstance(each, ast.FunctionDef)}
    try:
        if "upgrade" not in functions:
            raise _DrainError("no function upgrade()")
        _Upgrade(script, functions).read(functions["upgrade"].body)
    except _DrainError as why:
        return str(why)
    return None


class _Upgrade:
    """Reads one `upgrade()`; raises at the first statement that is not additive."""

    def __init__(self, script: ast.Module, functions: Mapping[str, ast.FunctionDef]) -> None:
        self._helpers = dict(functions)
        self._sqlalchemy = _names_of_sqlalchemy(script)
        self._values: dict[str, ast.expr] = {}
        self._made: set[str] = set()
        # The names of batch operations, and their tables.
        self._batches: dict[str, ast.expr] = {}

    def read(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Pass() | ast.Expr(ast.Constant()):
                    pass
                case ast.Assign(targets=[ast.Name(name)], value=value):
                    self._require_harmless(value)
                    self._values[name] = value
                case ast.If(test=test, body=body, orelse=otherwise):
                    self._require_harmless(test)
                    self.read(body)
                    self.read(otherwise)
                case ast.With(
                    items=[
                        ast.withitem(
                            ast.Call(
                                ast.Attribute(ast.Name("op"), "batch_alter_table"),
                                [table],
                                ([] | [ast.keyword("schema", ast.Constant(None))]),
                            ),
                            ast.Name(name),
                        )
                    ],
                    body=body,
                ):
                    self._batches[name] = table
                    self.read(body)
                case ast.Expr(ast.Call(ast.Attribute(ast.Name(on), operation)) as call):
                    self._operate(on, operation, call)
                case _:
                    raise _DrainError(ast.unparse(statement).splitlines()[0])

    def _operate(self, on: str, operation: str, call: ast.Call) -> None:
        arguments = list(call.args)
        if on in self._batches:
            arguments.insert(0 if operation != "create_index" else 1, self._batches[on])
        elif on != "op":
            raise _DrainError(ast.unparse(call))
        match operation, arguments:
            case "create_table", [table, *items]:
                for item in items:
                    self._require_independent(self._value(item))
                self._made.add(ast.unparse(table))
            case "add_column", [table, column] if not call.keywords:
                self._require_addable(column, ast.unparse(table))
            case "create_index", [_, table, columns] if ast.unparse(table) in self._made:
                self._require_harmless(columns)
            case _:
                table = arguments[1 if operation == "create_index" else 0] if len(arguments) > 1 else call
                raise _DrainError(f"{operation} on {ast.unparse(table)}")

    def _require_independent(self, item: ast.expr) -> None:
        """Refuse a part of a new table by which old ones change their behaviour."""
        self._require_harmless(item)
        for call in ast.walk(item):
            if not isinstance(call, ast.Call):
                continue
            kind = ast.unparse(call.func).rpartition(".")[-1]
            if kind in ("ForeignKey", "ForeignKeyConstraint"):
                given = {str(each.arg): each.value for each in call.keywords}
                positional = call.args[int(kind == "ForeignKeyConstraint") :]
                to = _literal(positional[0] if positional else given.get("refcolumns"))
                columns = to if isinstance(to, list) else [to]
                tables = {str(each).partition(".")[0] for each in columns}
                rule = _literal(given.get("ondelete"))
                if rule not in _FORGIVING and not tables <= {name.strip("'") for name in self._made}:
                    raise _DrainError(f"foreign key to {', '.join(sorted(tables))}")

    def _require_addable(self, column: ast.expr, table: str) -> None:
        """Refuse a new column that an old server's INSERT fails without, or that rewrites the table."""
        made = self._value(column)
        if not (isinstance(made, ast.Call) and len(made.args) == 2):
            raise _DrainError(f"add_column on {table}: {ast.unparse(made)}")
        self._require_harmless(made)
        given = {str(each.arg): each.value for each in made.keywords}
        required = _literal(given.get("nullable", ast.Constant(value=True))) is not True
        default = given.get("server_default")
        fits = default is None or _is_constant(default)
        if not set(given) <= _COLUMN_KEYWORDS or not fits or (required and default is None):
            raise _DrainError(f"add_column on {table}: {ast.unparse(made)}")

    def _value(self, node: ast.expr) -> ast.expr:
        return self._values.get(node.id, node) if isinstance(node, ast.Name) else node

    def _require_harmless(self, node: ast.AST) -> None:
        """Refuse calls but those that make a part of SQLAlchemy, or ask which database it is."""
        for call in ast.walk(node):
            if not isinstance(call, ast.Call) or ast.unparse(call) == "op.get_bind()":
                continue
            named: ast.expr = call.func
            while isinstance(named, (ast.Attribute, ast.Call)):
                named = named.value if isinstance(named, ast.Attribute) else named.func
            name = named.id if isinstance(named, ast.Name) else ""
            if name in self._helpers:
                # Not again inside itself.
                helper = self._helpers.pop(name)
                if not all(
                    isinstance(each, (ast.Assign, ast.If, ast.Return, ast.Expr)) for each in helper.body
                ):
                    raise _DrainError(f"{name}()")
                self._require_harmless(ast.Module(helper.body, []))
                self._helpers[name] = helper
            elif name not in self._sqlalchemy:
                raise _DrainError(ast.unparse(call))


def _names_of_sqlalchemy(script: ast.Module) -> set[str]:
    found = set()
    for each in script.body:
        match each:
            case ast.Import(names=names):
                found |= {one.asname or one.name for one in names if one.name == "sqlalchemy"}
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "sqlalchemy":
                found |= {one.asname or one.name for one in names}
    return found


def _is_constant(default: ast.expr) -> bool:
    """Whether PostgreSQL stores it once; what is computed is written into every row that is there."""
    match default:
        case ast.Constant(str()):
            return True
        case ast.Call(ast.Attribute(ast.Name("sa"), "true" | "false"), []):
            return True
        case ast.Call(ast.Attribute(ast.Name("sa"), "text"), [ast.Constant(str(text))]):
            return "(" not in text
    return False


def _literal(node: ast.expr | None) -> object:
    """What is written there; None if it is computed, or nothing."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None
