"""Failures have a kind: why an attempt brought no measurement, beside its reason and its traceback.

What older attempts say by their outcome is kept: DIVERGED, LOST and PREEMPTED are kinds of their own, and FAILED was
always an exception.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS = "'exception', 'host memory', 'gpu memory', 'diverged', 'disk', 'preempted', 'lost', 'hang'"
BY_OUTCOME = {"DIVERGED": "diverged", "LOST": "lost", "PREEMPTED": "preempted", "FAILED": "exception"}


def upgrade() -> None:
    with op.batch_alter_table("attempt") as attempt:
        attempt.add_column(sa.Column("failure", sa.String(16)))
        attempt.create_check_constraint(op.f("ck_attempt_failure"), f"failure IS NULL OR failure IN ({KINDS})")
    table = sa.table("attempt", sa.column("failure"), sa.column("outcome"))
    for outcome, kind in BY_OUTCOME.items():
        op.execute(table.update().where(table.c.outcome == outcome).values(failure=kind))


def downgrade() -> None:
    with op.batch_alter_table("attempt") as attempt:
        attempt.drop_constraint(op.f("ck_attempt_failure"), type_="check")
        attempt.drop_column("failure")
