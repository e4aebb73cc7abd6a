"""Trials are counted by state from an index, whatever their rows hold beside."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_trial_state", "trial", ["study_id", "state"])


def downgrade() -> None:
    op.drop_index("ix_trial_state", "trial")
