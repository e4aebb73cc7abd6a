"""The first record: studies, trials with all their states and counters, attempts, measurements, fronts, events.

A migration describes the past: it never imports the tables of today's code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _study()
    _trial()
    _attempt()
    _measurement_and_checkpoint()
    _worker()
    _front()
    _event()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER event_is_append_only ON event")
        op.execute("DROP FUNCTION event_is_append_only()")
    for table in ("event", "front_member", "front", "worker", "checkpoint", "measurement", "attempt", "trial", "study"):
        op.drop_table(table)


def _study() -> None:
    op.create_table(
        "study",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("trials", sa.Integer, nullable=False),
        sa.Column("hours", sa.Double),
        sa.Column("next_number", sa.Integer, nullable=False),
        sa.Column("driver", sa.String(255)),
        sa.Column("driver_epoch", sa.Integer, nullable=False),
        sa.Column("driver_expires_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
        sa.CheckConstraint("state IN ('OPEN', 'STOPPED')", name=op.f("ck_study_state")),
        sa.CheckConstraint("(driver IS NULL) = (driver_expires_at IS NULL)", name=op.f("ck_study_driver_lease")),
    )


def _trial() -> None:
    op.create_table(
        "trial",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("configuration", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("replicate", sa.Integer, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("expires_at", sa.Double),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
        sa.Column("preempted", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_trial_study_id"),
        sa.UniqueConstraint("study_id", "number", name="uq_trial_study_id_number"),
        sa.UniqueConstraint("study_id", "digest", "replicate", name="uq_trial_study_id_digest_replicate"),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'RUNNING', 'PAUSED', 'COMPLETE', 'DIVERGED', 'FAILED', 'QUARANTINED', 'CANCELLED')",
            name=op.f("ck_trial_state"),
        ),
        sa.CheckConstraint(
            "(state = 'RUNNING' AND owner IS NOT NULL AND expires_at IS NOT NULL)"
            " OR (state <> 'RUNNING' AND owner IS NULL AND expires_at IS NULL)",
            name=op.f("ck_trial_running_is_leased"),
        ),
    )
    queued, running = sa.text("state = 'QUEUED'"), sa.text("state = 'RUNNING'")
    order = ["study_id", sa.text("priority DESC"), "number"]
    op.create_index("ix_trial_claim", "trial", order, sqlite_where=queued, postgresql_where=queued)
    op.create_index("ix_trial_expiry", "trial", ["expires_at"], sqlite_where=running, postgresql_where=running)


def _attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("outcome", sa.String(16)),
        sa.Column("reason", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_attempt_trial_id"),
        sa.UniqueConstraint("trial_id", "number", name="uq_attempt_trial_id_number"),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome IN"
            " ('COMPLETE', 'PAUSED', 'DIVERGED', 'FAILED', 'LOST', 'PREEMPTED', 'CANCELLED')",
            name=op.f("ck_attempt_outcome"),
        ),
        sa.CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name=op.f("ck_attempt_ended")),
    )


def _measurement_and_checkpoint() -> None:
    op.create_table(
        "measurement",
        sa.Column("id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("values", sa.JSON, nullable=False),
        sa.Column("curve", sa.JSON, nullable=False),
        sa.Column("correct", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_measurement_trial_id"),
        sa.UniqueConstraint("trial_id", "rung", name="uq_measurement_trial_id_rung"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoint"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_checkpoint_trial_id"),
        sa.UniqueConstraint("trial_id", "rung", name="uq_checkpoint_trial_id_rung"),
    )


def _worker() -> None:
    op.create_table(
        "worker",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_worker"),
    )


def _front() -> None:
    op.create_table(
        "front",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("hypervolume", sa.Double, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_front"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_front_study_id"),
    )
    op.create_index("ix_front_study_id", "front", ["study_id"])
    op.create_table(
        "front_member",
        sa.Column("front_id", ID, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("front_id", "position", name="pk_front_member"),
        sa.ForeignKeyConstraint(["front_id"], ["front.id"], name="fk_front_member_front_id"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_front_member_trial_id"),
    )


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("trial_id", ID),
        sa.Column("attempt", sa.Integer),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_event_study_id"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_event_trial_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_study_id_id", "event", ["study_id", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'events are never changed'; END $$"
        )
        op.execute(
            "CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE ON event"
            " FOR EACH ROW EXECUTE FUNCTION event_is_append_only()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER event_is_append_only_{verb.lower()} BEFORE {verb} ON event"
            " BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"
        )
