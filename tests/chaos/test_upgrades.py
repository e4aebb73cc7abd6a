"""Fault 21: the database is upgraded to a revision that the workers do not know, while they run."""

import shutil

import pytest

from autopeft.errors import SchemaError
from autopeft.store import migrate, upgrade
from autopeft.study import TrialState

NEXT = '''"""What a coming version might bring: a column, a table, an index."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("attempt") as attempt:
        attempt.add_column(sa.Column("mood", sa.Text))
    op.create_table("song", sa.Column("title", sa.Text))
    op.create_index("ix_attempt_mood", "attempt", ["mood"])
'''


@pytest.fixture
def coming(tmp_path):
    """The scripts of a version to come: today's, and one more revision."""
    scripts = tmp_path / "scripts"
    shutil.copytree(migrate.script_location(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "9999_mood.py").write_text(NEXT.format(head=migrate.head_revision()))
    return scripts


def test_21_an_upgrade_while_workers_run_ends_the_old_ones_by_name_and_loses_nothing(
    record, fleet, gate, tools, url, coming, monkeypatch
):
    store, old = record(12), fleet(lease=60.0, faults={str(number): gate.fault for number in range(2, 12)})
    old.start(2)
    tools.wait_for(lambda: store.counts("aspects")[TrialState.COMPLETE] >= 2)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_PLACES", (coming,))
        assert upgrade(url) == "9999"
    gate.open()
    tools.wait_for(lambda: not any(map(tools.alive, old.workers)), what="the end of the old workers")
    assert old.said().count("was upgraded to revision 9999 and this process knows") >= 2
    assert store.counts("aspects")[TrialState.RUNNING] == 0
    assert store.counts("aspects")[TrialState.QUEUED] >= 1
    with pytest.raises(SchemaError, match="has revision 9999, this version knows up to"):
        type(store).open(url)
    tools.until_final(store, fleet(steps=2, scripts=str(coming)), 2)
    tools.all_complete(store, 12)
