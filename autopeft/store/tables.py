"""The tables of the record, as today's code uses them. The way there from older databases is in ``alembic/``.

Times are seconds since 1970 by the database's clock. JSON columns hold plain values that the value types of
``autopeft.study`` and ``search_spaces`` read back; nothing in them is ever executed.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from autopeft.probe import ProbeKind
from autopeft.store.blame import Failure
from autopeft.study import TrialState


class StudyState(StrEnum):
    """Whether a study takes proposals."""

    OPEN = "OPEN"
    STOPPED = "STOPPED"


class Outcome(StrEnum):
    """How an attempt ended; what it means for the trial is decided in ``autopeft.store.blame``."""

    COMPLETE = "COMPLETE"
    PAUSED = "PAUSED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    LOST = "LOST"
    PREEMPTED = "PREEMPTED"
    CANCELLED = "CANCELLED"


def _one_of(column: str, states: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(state.value) for state in states)})"


_Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

study = Table(
    "study",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("trials", Integer, nullable=False),
    Column("hours", Double),
    Column("next_number", Integer, nullable=False),
    Column("driver", String(255)),
    Column("driver_epoch", Integer, nullable=False),
    Column("driver_expires_at", Double),
    Column("created_at", Double, nullable=False),
    Column("device_hours", Double, doc="of all workers together; NULL: no limit"),
    UniqueConstraint("name"),
    CheckConstraint(_one_of("state", StudyState), name="state"),
    CheckConstraint("(driver IS NULL) = (driver_expires_at IS NULL)", name="driver_lease"),
)

trial = Table(
    "trial",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("study_id", _Id, ForeignKey("study.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("configuration", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("replicate", Integer, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("label", Text),
    Column("state", String(16), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("owner", String(255)),
    Column("expires_at", Double),
    Column("cancel_requested", Boolean, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("preempted", Integer, nullable=False),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "digest", "replicate"),
    CheckConstraint(_one_of("state", TrialState), name="state"),
    CheckConstraint(
        "(state = 'RUNNING' AND owner IS NOT NULL AND expires_at IS NOT NULL)"
        " OR (state <> 'RUNNING' AND owner IS NULL AND expires_at IS NULL)",
        name="running_is_leased",
    ),
)
# Written out, not bound: a database uses a partial index only where it can see that the condition implies it.
is_queued = trial.c.state == literal_column("'QUEUED'")
is_running = trial.c.state == literal_column("'RUNNING'")
Index(
    "ix_trial_claim",
    trial.c.study_id,
    trial.c.priority.desc(),
    trial.c.number,
    sqlite_where=is_queued,
    postgresql_where=is_queued,
)
Index(
    "ix_trial_expiry",
    trial.c.expires_at,
    sqlite_where=is_running,
    postgresql_where=is_running,
)
Index("ix_trial_state", trial.c.study_id, trial.c.state)  # holds all that a count by state reads

attempt = Table(
    "attempt",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("trial_id", _Id, ForeignKey("trial.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", String(255), nullable=False),
    Column("environment", JSON, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("outcome", String(16)),
    Column("reason", Text),
    Column("traceback", Text),
    Column("failure", String(16)),
    UniqueConstraint("trial_id", "number"),
    CheckConstraint(f"outcome IS NULL OR {_one_of('outcome', Outcome)}", name="outcome"),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="ended"),
    CheckConstraint(f"failure IS NULL OR {_one_of('failure', Failure)}", name="failure"),
)

measurement = Table(
    "measurement",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("trial_id", _Id, ForeignKey("trial.id"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("values", JSON, nullable=False),
    Column("curve", JSON, nullable=False),
    Column("correct", Text, nullable=False, doc="one character a validation row, 1 or 0, in data order"),
    Column("created_at", Double, nullable=False),
    Column("details", JSON, nullable=False, doc="what the trial learned beside its values, one key a technique"),
    UniqueConstraint("trial_id", "rung"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("trial_id", _Id, ForeignKey("trial.id"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64)),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("trial_id", "rung"),
)

worker = Table(
    "worker",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("device", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)

front = Table(
    "front",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("study_id", _Id, ForeignKey("study.id"), nullable=False),
    Column("hypervolume", Double, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("created_at", Double, nullable=False),
)

Index("ix_front_study_id", front.c.study_id)

front_member = Table(
    "front_member",
    metadata,
    Column("front_id", _Id, ForeignKey("front.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("trial_id", _Id, ForeignKey("trial.id"), nullable=False),
)

probe = Table(
    "probe",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("spec", JSON, nullable=False, doc="all of it: scores, settings, seeds, hashes"),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    CheckConstraint(_one_of("kind", ProbeKind), name="kind"),
)

event = Table(
    "event",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("study_id", _Id, ForeignKey("study.id"), nullable=False),
    Column("trial_id", _Id, ForeignKey("trial.id")),
    Column("attempt", Integer),
    Column("kind", String(32), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_autoincrement=True,
)
Index("ix_event_study_id_id", event.c.study_id, event.c.id)
