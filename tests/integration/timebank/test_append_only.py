"""What is posted stays: not the service's role, and not the owner of the tables either, changes it,
by whatever words. The role may not; the owner is stopped by triggers."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from common import db
from timebank.settings import as_app_role

LEDGER = ("posting", "transfer", "account_limit")
# An UPDATE that would change nothing is refused too: a trigger per row would not see it.
PLAIN = [
    change
    for table in LEDGER
    for change in (
        f"UPDATE {table} SET account_id = account_id"
        if table != "transfer"
        else "UPDATE transfer SET city_id = city_id",
        f"DELETE FROM {table}",
        f"DELETE FROM {table} WHERE false",
        f"TRUNCATE {table} CASCADE",
    )
]
OTHERWISE = [
    "WITH gone AS (DELETE FROM posting RETURNING *) SELECT count(*) FROM gone",
    "INSERT INTO hold TABLE hold ON CONFLICT (hold_id) DO UPDATE SET minutes = 1",
    "MERGE INTO posting p USING book b ON b.city_id = p.city_id WHEN MATCHED THEN DELETE",
    "MERGE INTO transfer t USING book b ON b.city_id = t.city_id WHEN MATCHED THEN DELETE",
    "TRUNCATE account CASCADE",
    "TRUNCATE book CASCADE",
    "UPDATE hold SET minutes = 6",
    "UPDATE hold SET expires_at = expires_at + interval '1 day'",
    "DELETE FROM hold",
    "TRUNCATE hold CASCADE",
]
# The ways around a trigger, which an owner has and the service must not have.
AROUND = [
    "ALTER TABLE posting DISABLE TRIGGER ALL",
    "ALTER TABLE posting DROP CONSTRAINT posting_pkey CASCADE",
    "DROP TRIGGER posting_only_grows ON posting",
    "DROP TABLE posting CASCADE",
    "ALTER FUNCTION refuse_change() RENAME TO allow_change",
    "DROP FUNCTION refuse_change CASCADE",
    "SET session_replication_role = replica",
    "CREATE RULE hide AS ON INSERT TO posting DO INSTEAD NOTHING",
    "UPDATE schema_migration SET sha256 = ''",
]


@pytest.fixture
async def app_role(bank: Any) -> AsyncIterator[db.Connection]:
    """A connection as the service has it."""
    connection = await db.connect(as_app_role(bank.dsn), name="test-app")
    yield connection
    await connection.close()


@pytest.fixture
async def ledger(bank: Any, owner: db.Connection) -> AsyncIterator[list[Any]]:
    """A transfer, limits and a hold; and at the end of the test they are what they were."""
    anna, bruno = bank.accounts["anna"], bank.accounts["bruno"]
    assert (await bank.caller("anna").pay(anna, bruno, 90)).status_code == 201
    steward = bank.caller("s", "nantes", "steward")
    assert (await steward.patch(f"accounts/{bruno}", {"ceiling_minutes": 900})).status_code == 200
    held = {
        "from_account": str(anna),
        "to_account": str(bruno),
        "minutes": 5,
        "expires_at": "2027-01-01T00:00:00Z",
    }
    assert (await bank.caller("anna").post("holds", held)).status_code == 201
    before = await rows(owner)
    assert all(before)
    yield before
    assert await rows(owner) == before


async def rows(owner: db.Connection) -> list[Any]:
    return [await owner.fetch(f"SELECT * FROM {table}") for table in (*LEDGER, "hold")]


async def all_refused(conn: db.Connection, changes: list[str], error: type[Exception]) -> None:
    done = []
    for change in changes:
        with contextlib.suppress(error):
            await conn.execute(change)
            done.append(change)
    assert not done


async def test_the_services_role_may_not(app_role: db.Connection, ledger: list[Any]) -> None:
    await all_refused(app_role, [*PLAIN, *OTHERWISE], asyncpg.InsufficientPrivilegeError)


async def test_the_owner_is_stopped(owner: db.Connection, ledger: list[Any]) -> None:
    await all_refused(owner, [*PLAIN, *OTHERWISE], asyncpg.RestrictViolationError)


async def test_the_services_role_finds_no_way_around(
    app_role: db.Connection, ledger: list[Any]
) -> None:
    await all_refused(app_role, AROUND, asyncpg.InsufficientPrivilegeError)


async def test_nothing_but_what_changes_may_be_changed(owner: db.Connection, bank: Any) -> None:
    """Whatever is added later: the role is given nothing but to read and to add."""
    granted = await owner.fetch(
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
        " WHERE grantee = 'timebank_app' AND table_name = ANY($1::text[])",
        [*LEDGER, "hold", "account", "transfer_memo"],
    )
    assert granted
    assert {row["privilege_type"] for row in granted} <= {"SELECT", "INSERT"}
    columns = await owner.fetch(
        "SELECT table_name, column_name FROM information_schema.role_column_grants"
        " WHERE grantee = 'timebank_app' AND privilege_type = 'UPDATE'"
        " AND table_name = ANY($1::text[])",
        [*LEDGER, "transfer_memo"],
    )
    assert [tuple(row.values()) for row in columns] == [("transfer_memo", "memo")]
