"""Measurements have details: what a trial learned beside its values (routing, importance, selection …).

Older measurements learned nothing of the kind: theirs are empty.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("measurement") as measurement:
        measurement.add_column(sa.Column("details", sa.JSON))
    op.execute(sa.text("UPDATE measurement SET details = '{}'"))
    with op.batch_alter_table("measurement") as measurement:
        measurement.alter_column("details", existing_type=sa.JSON, nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("measurement") as measurement:
        measurement.drop_column("details")
