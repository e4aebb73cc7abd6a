"""Whether the contract was held to PostgreSQL as well in this run."""

import pytest


def test_the_contract_runs_on_postgresql_too(request):
    pytest.importorskip("psycopg", reason="the store was tested on SQLite only: psycopg is not installed")
    assert request.getfixturevalue("postgresql_server").startswith("postgresql://")
