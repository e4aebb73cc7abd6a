"""Probes: what a short training of its own learned of where adapters matter (importance, selection).

They belong to no study, and older records have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "probe",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_probe"),
        sa.UniqueConstraint("name", name="uq_probe_name"),
        sa.CheckConstraint("kind IN ('importance', 'selection')", name=op.f("ck_probe_kind")),
    )


def downgrade() -> None:
    op.drop_table("probe")
