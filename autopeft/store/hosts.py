"""SQLite serves one host: workers of another are refused, because its locks do not hold between hosts.

That a file lies on a network file system is seen in ``autopeft.store.disks``, when it is opened.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from autopeft.errors import ConfigurationError
from autopeft.store.database import Now
from autopeft.store.disks import INSTEAD
from autopeft.store.tables import study, worker

LIVE_SECONDS = 120.0
"""A worker heard of within so long counts as alive."""


def require_one_host(connection: Connection, host: str) -> None:
    """Nothing on a server, or if all live workers and drivers of an SQLite database are of ``host``.

    Raises:
        ConfigurationError: If one is of another host.
    """
    if connection.dialect.name != "sqlite":
        return
    others = set(connection.scalars(select(worker.c.host).where(worker.c.seen_at > Now() - LIVE_SECONDS)))
    drivers = connection.scalars(select(study.c.driver).where(study.c.driver_expires_at > Now()))
    others |= {driver.rpartition(":")[0] for driver in drivers if ":" in driver}
    if strangers := sorted(others - {host}):
        raise ConfigurationError(
            f"this SQLite database is in use on host {strangers[0]}, and this is {host}: {INSTEAD}"
        )
