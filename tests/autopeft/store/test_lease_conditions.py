"""When nothing is leased although something is queued, and when something is although it seems to wait."""

import time

import pytest
from sqlalchemy import event

from autopeft.errors import SchemaError


@pytest.mark.parametrize("study", [None, "aspects"])
def test_from_a_database_that_was_upgraded_nothing_is_leased(filled, run_sql, study):
    run_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="was upgraded to revision 9999 and this process knows"):
        filled.lease("w", study)
    assert filled.attempts("aspects", 0) == []


def test_a_driver_whose_database_was_upgraded_is_told(filled, run_sql):
    run_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="was upgraded to revision 9999"):
        filled.renew_driver("aspects", 1)


@pytest.mark.parametrize(("wait", "leased"), [(30, False), (7200, True)])
def test_a_wait_begun_before_the_clock_was_set_back_is_over(filled, run_sql, wait, leased):
    run_sql("UPDATE trial SET not_before = :later", later=time.time() + wait)
    assert (filled.lease("w", "aspects") is not None) == leased


def test_a_lease_and_a_report_are_one_statement_each_on_a_server(filled, url, measured):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no round trips")
    said = []
    filled.lease("w", "aspects")
    event.listen(filled._database._engine, "before_cursor_execute", lambda *seen: said.append(seen[2]))
    order = filled.lease("w", "aspects")
    filled.beat(order.trial_id, order.attempt)
    following = filled.report_and_lease(order.trial_id, order.attempt, measured(), None, "w", "aspects")
    filled.report(following.trial_id, following.attempt, measured())
    assert [statement.split()[0] for statement in said] == ["WITH"] * 4


def test_a_connection_that_rested_is_tried_before_it_is_used(filled, url, monkeypatch):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no connections to lose")
    import psycopg

    monkeypatch.setattr("autopeft.store.database.REST_SECONDS", 0.0)
    filled.counts("aspects")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert filled.lease("w", "aspects").number == 0
