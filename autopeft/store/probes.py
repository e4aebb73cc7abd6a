"""Probes in the record: written whole when they are done, never changed."""

from __future__ import annotations

from sqlalchemy import Connection, insert, or_, select
from sqlalchemy.exc import IntegrityError

from autopeft.errors import ConfigurationError, NotFoundError, StoreError
from autopeft.probe import Probe
from autopeft.settings import NAME
from autopeft.store.database import Now
from autopeft.store.tables import probe as table


def add(connection: Connection, probe: Probe) -> None:
    """Writes a probe; ``StoreError`` if its name is taken, ``ConfigurationError`` if it is no name."""
    if not NAME.fullmatch(probe.name):
        raise ConfigurationError(f"probe name {probe.name!r}: expected 1 to 128 of A-Z a-z 0-9 . _ -")
    row = {"name": probe.name, "kind": probe.kind.value, "spec": probe.to_json(), "sha256": probe.sha256}
    try:
        connection.execute(insert(table).values(created_at=Now(), **row))
    except IntegrityError as error:
        raise StoreError(f"probe {probe.name!r} exists already: give another --name") from error


def names(connection: Connection) -> list[str]:
    """Names of all probes, oldest first."""
    return list(connection.scalars(select(table.c.name).order_by(table.c.id)))


def read(connection: Connection, wanted: str, model_sha256: str | None = None) -> Probe:
    """The probe of that name, or the latest of that kind (of that model, if one is given).

    Raises:
        NotFoundError: If there is none.
    """
    query = select(table.c.spec).where(or_(table.c.name == wanted, table.c.kind == wanted)).order_by(table.c.id.desc())
    probes = [Probe.from_json(spec) for spec in connection.scalars(query)]
    for probe in probes:
        if probe.name == wanted or model_sha256 in (None, probe.model_sha256):
            return probe
    known = ", ".join(names(connection)) or "none"
    raise NotFoundError(
        f"no probe {wanted!r}{' of this model' if probes else ''}; there are: {known} "
        "(autopeft importance and autopeft select make some)"
    )
