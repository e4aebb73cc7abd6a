"""Studies have a limit on device time, of all their workers together.

Older studies have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("device_hours", sa.Double))


def downgrade() -> None:
    op.drop_column("study", "device_hours")  # in place: to make the table anew would break what refers to it
