"""Which revisions an older server can go on working beside: additive, or with a drain."""

from __future__ import annotations

import ast

import pytest
from mlflow_aws_server import revisions
from mlflow_aws_server.revisions import Revision, Revisions

_IMPORTS = "import sqlalchemy as sa\nfrom alembic import op\nrevision = 'b'\ndown_revision = 'a'\n"


def _why(upgrade: str, *, helpers: str = "") -> str | None:
    lines = "\n".join(f"    {line}" for line in upgrade.strip().splitlines())
    return revisions._why_drain(ast.parse(f"{_IMPORTS}{helpers}\ndef upgrade():\n{lines}\n"))


def test_every_revision_of_the_installed_mlflow_is_judged() -> None:
    """After a change of the pinned version: read each new revision, then correct these counts."""
    known = revisions.installed()
    first = "451aebb31d03"
    pending = known.pending(first)
    assert {each.id for each in pending} == set(known.by_id) - {first}
    assert (len(pending), sum(each.drains is None for each in pending)) == (66, 21)


@pytest.mark.parametrize(
    ("revision", "why"),
    [
        ("a8b9c0d1e2f3", None),  # new tables
        ("b7e2c1a4d9f3", None),  # a new column that may be empty
        ("da6fb0208061", None),  # a new column with a default
        ("dc11669786a5", "create_index on 'jobs'"),
        ("75868b020152", "_validate_required_trace_joins()"),  # rewrites rows
        ("17e22815139b", "alter_column on 'experiment_tags'"),
        ("c1d2e3f4a5b6", "drop_index on 'spans'"),
        ("ae8bbe7743c9", "foreign key to scorer_versions"),
        ("90e64c465722", "session.query(SqlRun).all()"),
    ],
)
def test_a_revision_of_mlflow_is_additive_or_says_what_is_not(revision: str, why: str | None) -> None:
    assert revisions.installed().by_id[revision].drains == why


@pytest.mark.parametrize(
    "upgrade",
    [
        '"""Nothing."""\npass',
        "op.add_column('runs', sa.Column('a', sa.Text(), server_default='x', nullable=False))",
        "op.add_column('runs', sa.Column('a', sa.Boolean(), server_default=sa.false()))",
        "op.add_column('runs', sa.Column('a', sa.Integer(), server_default=sa.text('0'), nullable=False))",
        "a = sa.Column('a', sa.Text())\nwith op.batch_alter_table('runs') as batch:\n    batch.add_column(a)",
        "op.create_table('t', sa.Column('a', sa.Text()))\nop.create_index('i', 't', ['a'])",
        "op.create_table('t', sa.ForeignKeyConstraint(['r'], ['runs.run_uuid'], ondelete='CASCADE'))",
        "op.create_table('t', sa.Column('a', sa.Text()))\n"
        "op.create_table('u', sa.Column('a', sa.Text(), sa.ForeignKey('t.a')))",
    ],
)
def test_additive(upgrade: str) -> None:
    assert _why(upgrade) is None


@pytest.mark.parametrize(
    ("upgrade", "why"),
    [
        ("op.execute('DELETE FROM runs')", "execute on op.execute('DELETE FROM runs')"),
        ("op.drop_table('runs')", "drop_table on op.drop_table('runs')"),
        ("op.drop_column('runs', 'name')", "drop_column on 'runs'"),
        ("op.rename_table('runs', 'jobs')", "rename_table on 'runs'"),
        ("op.create_index('i', 'runs', ['name'])", "create_index on 'runs'"),
        ("op.create_unique_constraint('u', 'runs', ['name'])", "create_unique_constraint on 'u'"),
        ("op.add_column('runs', sa.Column('a', sa.Text(), nullable=False))", "add_column on 'runs': "),
        (
            "op.add_column('runs', sa.Column('a', sa.Text(), server_default=sa.text('random()')))",
            "add_column on 'runs': ",
        ),
        ("op.add_column('runs', sa.Column('a', sa.Text(), unique=True))", "add_column on 'runs': "),
        (
            "op.add_column('runs', sa.Column('a', sa.Text(), sa.ForeignKey('jobs.id')))",
            "add_column on 'runs': ",
        ),
        ("op.add_column('runs', _column())", "add_column on 'runs': _column()"),
        ("op.add_column('runs', column)", "add_column on 'runs': column"),
        (
            "op.create_table('t', sa.ForeignKeyConstraint(['r'], ['runs.run_uuid']))",
            "foreign key to runs",
        ),
        ("op.create_table('t', sa.Column('a', surprising()))", "surprising()"),
        ("backfill()", "backfill()"),
        ("for table in ['runs']:\n    op.drop_table(table)", "for table in ['runs']:"),
        ("if op.get_bind().dialect.name == 'x':\n    pass\nelse:\n    op.drop_table('t')", "drop_table"),
        ("if surprising():\n    pass", "surprising()"),
        ("helper()", "helper()"),
        ("a = helper()", "op.drop_table('t')"),
        ("a = loop()", "loop()"),
        ("with op.get_context().autocommit_block():\n    pass", "with op.get_context()"),
    ],
)
def test_drains_and_says_why(upgrade: str, why: str) -> None:
    helpers = "def helper():\n    return op.drop_table('t')\ndef loop():\n    return loop()\n"
    assert (_why(upgrade, helpers=helpers) or "").startswith(why)


def test_a_script_without_upgrade_drains() -> None:
    assert revisions._why_drain(ast.parse("revision = 'b'")) == "no function upgrade()"


def _revisions(head: str, **drains: str | None) -> Revisions:
    order = list(drains)
    parents = [frozenset[str](), *(frozenset((each,)) for each in order)]
    return Revisions(
        [Revision(each, below, drains=drains[each]) for each, below in zip(order, parents, strict=False)],
        head=head,
    )


def test_a_head_serves_the_older_ones_up_to_the_last_drain() -> None:
    known = _revisions("d", a=None, b="it drops a table", c=None, d=None)
    assert known.served() == ["b", "c"]
    assert [each.id for each in known.pending("a")] == ["d", "c", "b"]
    assert known.pending("d") == []
    with pytest.raises(KeyError):
        known.pending("newer")
