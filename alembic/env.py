"""How alembic reaches the database: on the connection that ``autopeft.store.migrate`` hands over, or by itself.

By itself (the ``alembic`` command, for developers) it reads the address from ``AUTOPEFT_DB``. Offline SQL scripts are
not made.
"""

import os

from alembic import context
from sqlalchemy import Connection

from autopeft.store.database import Database
from autopeft.store.tables import metadata


def run(connection: Connection) -> None:
    """Runs the scripts that were asked for, in the connection's own transaction."""
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if context.is_offline_mode():
    raise SystemExit("offline mode is not supported: run 'alembic upgrade' with AUTOPEFT_DB set")
if handed_over is not None:
    run(handed_over)
else:
    database = Database(os.environ.get("AUTOPEFT_DB", "sqlite:///autopeft.db"))
    with database.writing() as connection:
        run(connection)
    database.close()
